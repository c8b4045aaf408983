//! A kernel in IP_LAYOUT, CONNECTIVITY and MEM_TOPOLOGY, as `xclbinutil --add-kernel` puts it there.

use std::collections::BTreeSet;

use super::{
    few,
    kernel::{Argument, Kernel, unit_name},
};
use crate::{
    error::{Error, Result},
    section::{
        Connectivity, IpLayout, MemTopology, Name,
        connectivity::Connection,
        ip_layout::{Ip, IpType},
        mem_topology::{MemType, Memory},
        shown,
        table::MAX_ENTRIES,
    },
};

/// The memory of kernels on the host's processor, made where an argument asks for it by an empty text.
const PS_KERNEL: &str = "MEM_PS_KERNEL";

/// The three sections that say which argument of which unit lies in which memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wiring {
    pub(crate) memory: MemTopology,
    pub(crate) ips: IpLayout,
    pub(crate) connectivity: Connectivity,
}

impl Wiring {
    /// Adds each instance of a kernel. `units` are the names of all in IP_LAYOUT.
    ///
    /// # Errors
    /// A unit's name that is taken or too long, a kernel id that is taken, a memory that is not there.
    pub(crate) fn add(&mut self, kernel: &Kernel, units: &mut BTreeSet<String>) -> Result<()> {
        let properties = kernel.properties()?;
        if let (Some(id), true) = (kernel.id()?, kernel.is_dpu()?) {
            self.check_id(id)?;
        }
        self.check_count(kernel)?;
        for instance in &kernel.instances {
            let name = format!("{}:{instance}", kernel.name);
            if !units.insert(name.clone()) {
                return Err(Error::refused("instance", shown(&name), "the package has one of that name"));
            }
            let index = i32::try_from(self.ips.ips.len())
                .map_err(|_| Error::refused("instance", &name, "CONNECTIVITY counts units with 31 bits"))?;
            let (kind, name) = (IpType::PS_KERNEL, unit_name(&name)?);
            self.ips.ips.push(Ip { kind, properties, base_address: Ip::NO_ADDRESS, name });
            for (argument, index_of_argument) in kernel.arguments.iter().zip(0..) {
                let Some(wanted) = &argument.memory else { continue };
                for memory in self.memories(wanted)? {
                    self.connect(Connection { argument: index_of_argument, ip: index, memory });
                }
            }
        }
        Ok(())
    }

    /// Each instance connects each argument: short texts may multiply to very many connections.
    fn check_count(&self, kernel: &Kernel) -> Result<()> {
        let memories = |argument: &Argument| argument.memory.as_ref().map_or(0, |wanted| wanted.split(',').count());
        let per_instance = kernel.arguments.iter().map(memories).fold(0, usize::saturating_add);
        let n_added = per_instance.saturating_mul(kernel.instances.len());
        let n_connections = self.connectivity.connections.len().saturating_add(n_added);
        if n_connections > MAX_ENTRIES {
            let bound = format!("CONNECTIVITY is read with at most {MAX_ENTRIES}: give fewer instances or arguments");
            return Err(Error::refused("connections", n_connections, bound));
        }
        Ok(())
    }

    fn check_id(&self, id: u16) -> Result<()> {
        match self.ips.ips.iter().find(|ip| ip.kernel_id() == Some(id.into())) {
            None => Ok(()),
            Some(ip) => {
                let bound = format!("{} has it, and a launch would run that one: take another", ip.name);
                Err(Error::refused("kernel id", format!("{id:#x}"), bound))
            }
        }
    }

    /// The indices that an argument's `memory-connection` stands for.
    fn memories(&mut self, wanted: &str) -> Result<Vec<i32>> {
        if wanted.is_empty() {
            return Ok(vec![self.ps_kernel_memory()?]);
        }
        let n_memories = self.memory.memories.len();
        let bound = || match n_memories {
            0 => "MEM_TOPOLOGY has no memory: give the memories too (`xclbin build --mem-topology`)".to_owned(),
            _ => format!("MEM_TOPOLOGY has {}", few(self.memory.memories.iter().map(|memory| memory.tag.to_string()))),
        };
        // Indices first, as xclbinutil does: a memory cannot be named by a number.
        let indices: Option<Vec<usize>> = wanted.split(',').map(|text| text.parse().ok()).collect();
        let indices = match indices {
            Some(indices) => indices,
            None => {
                let named = self.memory.memories.iter().position(|memory| memory.tag.text() == wanted);
                vec![named.ok_or_else(|| Error::refused("memory", shown(wanted), bound()))?]
            }
        };
        let checked = |index: usize| i32::try_from(index).ok().filter(|_| index < n_memories);
        let index = |index| checked(index).ok_or_else(|| Error::refused("memory index", index, bound()));
        indices.into_iter().map(index).collect()
    }

    fn ps_kernel_memory(&mut self) -> Result<i32> {
        let kind = MemType::from_name(PS_KERNEL).unwrap_or_default();
        let known = self.memory.memories.iter().position(|memory| memory.kind == kind);
        let index = known.unwrap_or(self.memory.memories.len());
        if known.is_none() {
            self.memory.memories.push(Memory { kind, used: 1, tag: Name::new(PS_KERNEL)?, ..Memory::default() });
        }
        i32::try_from(index).map_err(|_| Error::refused("memory index", index, "CONNECTIVITY counts with 31 bits"))
    }

    fn connect(&mut self, connection: Connection) {
        let index = usize::try_from(connection.memory).unwrap_or(usize::MAX);
        if let Some(memory) = self.memory.memories.get_mut(index) {
            memory.used = 1;
        }
        self.connectivity.connections.push(connection);
    }
}
