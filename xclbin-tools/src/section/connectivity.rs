//! CONNECTIVITY and GROUP_CONNECTIVITY: which argument of which kernel may stand in which memory. One layout, drawn in
//! `docs/src/formats/xclbin.md`
//! (`Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h`, `struct connectivity`).

use super::{
    json::{At, Tree},
    table,
};
use crate::{
    axlf::Kind,
    bytes::{Reader, Writer},
    error::Result,
};

const CONNECTION_BYTES: usize = 12;

/// One argument and a memory that it may stand in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// The argument's index in the kernel, from 0; scalars have none.
    pub argument: i32,
    /// The kernel's index in IP_LAYOUT.
    pub ip: i32,
    /// The memory's index in MEM_TOPOLOGY or GROUP_TOPOLOGY.
    pub memory: i32,
}

/// The connections, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connectivity {
    /// All of them.
    pub connections: Vec<Connection>,
}

impl Connectivity {
    /// Reads a section.
    ///
    /// # Errors
    /// A size that contradicts the count.
    pub fn parse(bytes: &[u8]) -> Result<Connectivity> {
        let (count, mut reader) = table::open(bytes, "CONNECTIVITY", 4, CONNECTION_BYTES)?;
        let connections = (0..count).map(|_| Connection::parse(&mut reader)).collect::<Result<_>>()?;
        Ok(Connectivity { connections })
    }

    /// The section's bytes; none where there is no connection, as `xclbinutil` leaves such a section out.
    ///
    /// # Errors
    /// More connections than the count holds.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = table::start(self.connections.len(), 4)?;
        for connection in &self.connections {
            connection.write(&mut out);
        }
        Ok(out.bytes)
    }

    /// Reads JSON with the member `connectivity` or `group_connectivity`, as the kind is.
    ///
    /// # Errors
    /// A member that is missing or makes no sense; a count that is not that of the list.
    pub fn from_json(json: &Tree, kind: Kind) -> Result<Connectivity> {
        let root = At::root(json);
        let table = root.get(kind.node().unwrap_or_default())?;
        let connections = table::items(&table, "m_connection", Connection::from_json)?;
        Ok(Connectivity { connections })
    }

    /// The same JSON back, without the outermost member.
    pub fn to_json(&self) -> Tree {
        table::to_json("m_connection", self.connections.iter().copied().map(Connection::to_json))
    }
}

impl Connection {
    fn parse(reader: &mut Reader<'_>) -> Result<Connection> {
        let mut index = |what| reader.array(what).map(i32::from_le_bytes);
        Ok(Connection {
            argument: index("arg_index")?,
            ip: index("m_ip_layout_index")?,
            memory: index("mem_data_index")?,
        })
    }

    fn write(self, out: &mut Writer) {
        for index in [self.argument, self.ip, self.memory] {
            out.put(&index.to_le_bytes());
        }
    }

    fn from_json(json: At<'_>) -> Result<Connection> {
        Ok(Connection {
            argument: json.get("arg_index")?.decimal()?,
            ip: json.get("m_ip_layout_index")?.decimal()?,
            memory: json.get("mem_data_index")?.decimal()?,
        })
    }

    /// Negative indices come out as `xclbinutil` prints them: modulo 2^32.
    fn to_json(self) -> Tree {
        Tree::default()
            .with("arg_index", self.argument.cast_unsigned().to_string())
            .with("m_ip_layout_index", self.ip.cast_unsigned().to_string())
            .with("mem_data_index", self.memory.cast_unsigned().to_string())
    }
}
