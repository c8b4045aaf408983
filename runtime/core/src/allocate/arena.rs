//! Memory for values. Phases never run at the same time, so arenas of the same kind share one buffer.
//! Within a phase no two arenas are of one kind: [`Plan::verify`] checks that.

use std::{collections::BTreeMap, sync::Arc};

use biga_hal::{Access, Accessors, Buffer, BufferDesc, BufferSlice, Device, DeviceKind};

use super::reach;
use crate::{
    Result,
    plan::{Arena, Location, Plan},
};

/// What makes two arenas shareable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    owner: usize,
    accessors: Vec<usize>,
    host: bool,
}

/// The buffers, by kind, each as every device that reaches it sees it.
#[derive(Debug)]
pub(super) struct Arenas {
    /// By phase, by arena: the kind.
    kinds: Vec<Vec<Kind>>,
    buffers: BTreeMap<Kind, BTreeMap<usize, Buffer>>,
}

impl Arenas {
    /// A place in an arena of a phase, as `device` reaches it.
    pub(super) fn slice(&self, phase: usize, location: Location, device: usize) -> Result<BufferSlice> {
        let kind = &self.kinds[phase][location.arena];
        let buffer = self.buffers.get(kind).and_then(|by_device| by_device.get(&device));
        let buffer = buffer.ok_or_else(|| {
            crate::Error::Invalid(format!("plan: device {device} reads an arena of device {} unasked", kind.owner))
        })?;
        Ok(buffer.slice(location.offset_bytes, location.size_bytes)?)
    }

    /// The device that owns the arena of a place.
    pub(super) fn owner(&self, phase: usize, location: Location) -> usize {
        self.kinds[phase][location.arena].owner
    }
}

pub(super) fn allocate(devices: &[Arc<dyn Device>], plan: &Plan) -> Result<Arenas> {
    // Exactly what tells arenas of a phase apart in the plan: were two of them one kind here, their values
    // would lie on top of each other.
    let kind_of =
        |arena: &Arena| Kind { owner: arena.owner, accessors: arena.accessors.clone(), host: arena.host_reads };
    let kinds: Vec<Vec<Kind>> = plan.phases.iter().map(|phase| phase.arenas.iter().map(kind_of).collect()).collect();
    let mut sizes: BTreeMap<Kind, u64> = BTreeMap::new();
    for (phase, kinds) in plan.phases.iter().zip(&kinds) {
        for (arena, kind) in phase.arenas.iter().zip(kinds) {
            let size = sizes.entry(kind.clone()).or_default();
            *size = (*size).max(arena.size_bytes);
        }
    }
    let mut buffers = BTreeMap::new();
    for (kind, size_bytes) in sizes {
        buffers.insert(kind.clone(), allocate_one(devices, &kind, size_bytes)?);
    }
    Ok(Arenas { kinds, buffers })
}

fn allocate_one(devices: &[Arc<dyn Device>], kind: &Kind, size_bytes: u64) -> Result<BTreeMap<usize, Buffer>> {
    let with_cpu = kind.accessors.iter().any(|&device| devices[device].info().kind == DeviceKind::Cpu);
    let others = kind.accessors.iter().map(|&device| (devices[device].info().id, Access::ReadWrite));
    // The engine's own reads and copies go through the device, which may copy; the CPU device works in place.
    let host = if with_cpu { Some(Access::ReadWrite) } else { kind.host.then_some(Access::Read) };
    let accessors = Accessors { host, devices: others.collect() };
    let name = if kind.accessors.is_empty() { "values" } else { "shared values" };
    let desc = BufferDesc { name: name.to_owned(), size_bytes: size_bytes.max(1), accessors };
    let own = devices[kind.owner].allocate(&desc)?;
    let mut by_device = BTreeMap::new();
    for &device in &kind.accessors {
        by_device.insert(device, reach(&*devices[device], &own)?);
    }
    by_device.insert(kind.owner, own);
    Ok(by_device)
}
