//! MEM_TOPOLOGY and GROUP_TOPOLOGY: the memories that buffers may stand in. Both have one layout, drawn in
//! `docs/src/formats/xclbin.md`
//! (`Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h`, `struct mem_topology`).

use super::{
    Name,
    json::{At, Tree},
    table,
};
use crate::{
    axlf::Kind,
    bytes::{Reader, Writer},
    error::Result,
};

const MEMORY_BYTES: usize = 40;

/// What a memory is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemType(pub u8);

impl MemType {
    /// The only one that NPU packages use.
    pub const DRAM: MemType = MemType(2);
    /// Has neither size nor base address in JSON.
    const STREAMING_CONNECTION: MemType = MemType(9);

    const NAMES: [&str; 12] = [
        "MEM_DDR3",
        "MEM_DDR4",
        "MEM_DRAM",
        "MEM_STREAMING",
        "MEM_PREALLOCATED_GLOB",
        "MEM_ARE",
        "MEM_HBM",
        "MEM_BRAM",
        "MEM_URAM",
        "MEM_STREAMING_CONNECTION",
        "MEM_HOST",
        "MEM_PS_KERNEL",
    ];

    /// The name in `xclbin.h`, or `UNKNOWN (n)`.
    pub fn name(self) -> String {
        super::name_of(&Self::NAMES, self.0.into())
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<MemType> {
        Self::NAMES.iter().zip(0..).find_map(|(known, number)| (*known == name).then_some(MemType(number)))
    }
}

/// One memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Memory {
    /// What it is made of.
    pub kind: MemType,
    /// Zero where the memory is not there.
    pub used: u8,
    /// Zero.
    pub reserved: [u8; 6],
    /// In KiB; of a stream its route.
    pub size_kib: u64,
    /// Of a stream its flow.
    pub base_address: u64,
    /// The name by which kernels' arguments ask for it.
    pub tag: Name<16>,
}

/// The memories, in order: connections name them by index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemTopology {
    /// All of them.
    pub memories: Vec<Memory>,
}

impl MemTopology {
    /// Reads a section.
    ///
    /// # Errors
    /// A size that contradicts the count.
    pub fn parse(bytes: &[u8]) -> Result<MemTopology> {
        let (count, mut reader) = table::open(bytes, "MEM_TOPOLOGY", 8, MEMORY_BYTES)?;
        let memories = (0..count).map(|_| Memory::parse(&mut reader)).collect::<Result<_>>()?;
        Ok(MemTopology { memories })
    }

    /// The section's bytes; none where there is no memory, as `xclbinutil` leaves such a section out.
    ///
    /// # Errors
    /// More memories than the count holds.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = table::start(self.memories.len(), 8)?;
        for memory in &self.memories {
            memory.write(&mut out);
        }
        Ok(out.bytes)
    }

    /// Reads JSON with the member `mem_topology` or `group_topology`, as the kind is.
    ///
    /// # Errors
    /// A member that is missing or makes no sense; a count that is not that of the list.
    pub fn from_json(json: &Tree, kind: Kind) -> Result<MemTopology> {
        let root = At::root(json);
        let table = root.get(kind.node().unwrap_or_default())?;
        let memories = table::items(&table, "m_mem_data", Memory::from_json)?;
        Ok(MemTopology { memories })
    }

    /// The same JSON back, without the outermost member.
    pub fn to_json(&self) -> Tree {
        table::to_json("m_mem_data", self.memories.iter().copied().map(Memory::to_json))
    }
}

impl Memory {
    fn parse(reader: &mut Reader<'_>) -> Result<Memory> {
        Ok(Memory {
            kind: MemType(reader.u8("m_type")?),
            used: reader.u8("m_used")?,
            reserved: reader.array("padding")?,
            size_kib: reader.u64("m_size")?,
            base_address: reader.u64("m_base_address")?,
            tag: Name(reader.array("m_tag")?),
        })
    }

    fn write(&self, out: &mut Writer) {
        out.u8(self.kind.0);
        out.u8(self.used);
        out.put(&self.reserved);
        out.u64(self.size_kib);
        out.u64(self.base_address);
        out.put(&self.tag.0);
    }

    fn from_json(json: At<'_>) -> Result<Memory> {
        let kind = json.get("m_type")?;
        let known = MemType::from_name(kind.text()?);
        let kind = known
            .ok_or_else(|| kind.error(format!("{:?}", kind.tree.text), "one of MEM_DRAM, MEM_DDR4, ... is expected"))?;
        let mut memory = Memory { kind, used: json.get("m_used")?.decimal()?, ..Memory::default() };
        memory.tag = super::name_from(&json, "m_tag")?;
        if kind != MemType::STREAMING_CONNECTION {
            memory.size_kib = size_kib(&json)?;
            memory.base_address = json.get("m_base_address")?.number()?;
        }
        Ok(memory)
    }

    fn to_json(self) -> Tree {
        Tree::default()
            .with("m_type", self.kind.name())
            .with("m_used", self.used.to_string())
            .with("m_sizeKB", format!("{:#x}", self.size_kib))
            .with("m_tag", self.tag.text().as_ref())
            .with("m_base_address", format!("{:#x}", self.base_address))
    }
}

/// `m_size` in bytes or `m_sizeKB`, not both; zero where neither is there.
fn size_kib(json: &At<'_>) -> Result<u64> {
    match (json.find("m_size"), json.find("m_sizeKB")) {
        (None, None) => Ok(0),
        (None, Some(kib)) => kib.number(),
        (Some(bytes), None) => match bytes.number()? {
            number if number.is_multiple_of(1024) => Ok(number >> 10),
            number => Err(bytes.error(number, "a multiple of 1024 bytes is expected")),
        },
        (Some(_), Some(kib)) => Err(kib.error("m_size and m_sizeKB", "one of the two is expected")),
    }
}
