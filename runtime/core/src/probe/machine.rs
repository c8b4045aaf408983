//! The machine: the backends that the application registered, what they find, and the devices opened.

use std::{path::Path, sync::Arc};

use biga_hal::{Backend, Device, DeviceId, DeviceInfo, DeviceKind, OpQuery, Unavailable, Unsupported};

use super::{Measurements, NpuReport, Topology};
use crate::{
    Result,
    plan::{Capabilities, PlanError, PlannedWeight},
};

/// The backends of one application. It owns no device: [`Machine::probe`] lists them, [`Machine::open`]
/// opens those of a topology.
#[derive(Debug, Default)]
pub struct Machine {
    backends: Vec<Arc<dyn Backend>>,
    measurements: Measurements,
}

impl Machine {
    /// A machine without backends, on which nothing is found.
    pub fn new() -> Machine {
        Machine::default()
    }

    /// Adds a backend. A later one of the same name takes the place of the earlier.
    pub fn register(&mut self, backend: Arc<dyn Backend>) {
        self.backends.retain(|known| known.name() != backend.name());
        self.backends.push(backend);
    }

    /// Gives the machine figures from an earlier measuring; [`Machine::probe`] applies those of devices
    /// that are still the same.
    pub fn set_measurements(&mut self, measurements: Measurements) {
        self.measurements = measurements;
    }

    /// The registered backends.
    pub fn backends(&self) -> &[Arc<dyn Backend>] {
        &self.backends
    }

    /// Asks every backend what exists. A backend without a device is no error: it is listed as
    /// unavailable, with its cause and remedy. So is the NPU where no backend for it is registered, since
    /// policies name it.
    pub fn probe(&self) -> Topology {
        let mut topology = Topology::default();
        for backend in &self.backends {
            match backend.probe() {
                Ok(devices) if devices.is_empty() => {
                    let cause = format!("the {} driver lists no device", backend.name());
                    topology.unavailable.push((backend.name(), Unavailable { cause, remedy: None }));
                }
                Ok(devices) => topology.devices.extend(devices),
                Err(unavailable) => topology.unavailable.push((backend.name(), unavailable)),
            }
        }
        if !self.backends.iter().any(|backend| backend.name() == "npu") {
            topology.unavailable.push(("npu", NpuReport::look(Path::new("/")).unavailable()));
        }
        topology.devices.sort_by_key(preference);
        self.measurements.apply(&mut topology);
        topology
    }

    /// Opens every device of a topology. One that fails is left out of [`OpenDevices::topology`] and
    /// listed there as unavailable, so that a plan goes on without it and says why.
    ///
    /// # Errors
    /// The first device's error if none opens; [`PlanError::NoDevice`] for an empty topology.
    pub fn open(&self, topology: &Topology) -> Result<OpenDevices> {
        let mut opened = OpenDevices { devices: Vec::new(), topology: topology.clone() };
        let mut first_error = None;
        for info in &topology.devices {
            match self.open_one(info) {
                Ok(device) => opened.devices.push((info.id, device)),
                Err(error) => {
                    tracing::warn!(device = %info.id, name = %info.name, %error, "device does not open");
                    opened.leave_out(info, &error);
                    first_error.get_or_insert(error);
                }
            }
        }
        match first_error {
            Some(error) if opened.devices.is_empty() => Err(error.into()),
            None if opened.devices.is_empty() => Err(PlanError::NoDevice.into()),
            _ => Ok(opened),
        }
    }

    fn open_one(&self, info: &DeviceInfo) -> biga_hal::Result<Arc<dyn Device>> {
        let backend = self.backends.iter().find(|backend| backend.name() == info.id.backend);
        let backend = backend.ok_or(biga_hal::Error::NoSuchDevice(info.id))?;
        backend.open_with(info.id, &self.measurements.choices(&info.identity))
    }
}

/// Order of devices in a topology, and of preference among equals.
fn preference(info: &DeviceInfo) -> (u8, DeviceId) {
    let rank = match info.kind {
        DeviceKind::Npu => 0,
        DeviceKind::DiscreteGpu => 1,
        DeviceKind::IntegratedGpu => 2,
        DeviceKind::SoftwareGpu => 3,
        DeviceKind::Cpu => 4,
    };
    (rank, info.id)
}

/// The open devices of a topology. It tells the planner what they can do.
#[derive(Debug)]
pub struct OpenDevices {
    devices: Vec<(DeviceId, Arc<dyn Device>)>,
    topology: Topology,
}

impl OpenDevices {
    /// An open device.
    pub fn get(&self, id: DeviceId) -> Option<&Arc<dyn Device>> {
        self.devices.iter().find(|(known, _)| *known == id).map(|(_, device)| device)
    }

    /// Every open device, in the topology's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (DeviceId, &Arc<dyn Device>)> {
        self.devices.iter().map(|(id, device)| (*id, device))
    }

    /// What is open: the topology asked for, less the devices that did not open. Plan with this one.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    fn leave_out(&mut self, info: &DeviceInfo, error: &biga_hal::Error) {
        self.topology.devices.retain(|device| device.id != info.id);
        self.topology.links.retain(|link| link.from != info.id && link.to != info.id);
        let cause = format!("{} ({}) does not open: {error}", info.name, info.id);
        self.topology.unavailable.push((info.id.backend, Unavailable { cause, remedy: None }));
    }
}

impl Capabilities for OpenDevices {
    fn supports(&self, device: DeviceId, query: &OpQuery<'_>) -> std::result::Result<(), Unsupported> {
        match self.get(device) {
            Some(open) => open.supports(query),
            None => Err(Unsupported { op: query.kind.name(), device, cause: "the device is not open".to_owned() }),
        }
    }

    fn weight_size_bytes(&self, device: DeviceId, weight: &PlannedWeight) -> u64 {
        match self.get(device) {
            Some(open) if !open.reads_weights_in_place() => open.weight_size_bytes(&weight.shape, weight.dtype),
            _ => 0,
        }
    }
}
