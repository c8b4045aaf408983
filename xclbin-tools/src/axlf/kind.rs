//! The kinds of sections: `Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h`, `axlf_section_kind`;
//! names and formats: `Xilinx/XRT:src/runtime_src/tools/xclbinutil/Section*.cxx`.

use std::fmt;

/// What a section holds, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u32);

/// How a section stands in a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Its bytes.
    Raw,
    /// JSON with a member of the section's name.
    Json,
    /// The JSON as a web page.
    Html,
    /// Plain text; no kind takes or gives it.
    Txt,
}

impl Format {
    /// The format of that name, in any case.
    pub fn from_name(name: &str) -> Option<Format> {
        let formats = [("RAW", Format::Raw), ("JSON", Format::Json), ("HTML", Format::Html), ("TXT", Format::Txt)];
        formats.iter().find_map(|(known, format)| known.eq_ignore_ascii_case(name).then_some(*format))
    }
}

use Format::{Html, Json, Raw};

/// One line per kind, by number: name, member in JSON, formats that `xclbinutil` takes, formats that it gives.
#[rustfmt::skip]
const KINDS: [(&str, &str, &[Format], &[Format]); 37] = [
    ("BITSTREAM", "", &[Raw], &[Raw]),
    ("CLEARING_BITSTREAM", "", &[Raw], &[Raw]),
    ("EMBEDDED_METADATA", "", &[Raw], &[Raw]),
    ("FIRMWARE", "", &[Raw], &[Raw]),
    ("DEBUG_DATA", "", &[Raw], &[Raw]),
    ("SCHED_FIRMWARE", "", &[Raw], &[Raw]),
    ("MEM_TOPOLOGY", "mem_topology", &[Json], &[Json, Html, Raw]),
    ("CONNECTIVITY", "connectivity", &[Json], &[Json, Html, Raw]),
    ("IP_LAYOUT", "ip_layout", &[Json], &[Json, Html, Raw]),
    ("DEBUG_IP_LAYOUT", "debug_ip_layout", &[Json], &[Json, Html, Raw]),
    ("DESIGN_CHECKPOINT", "", &[Raw], &[Raw]),
    ("CLOCK_FREQ_TOPOLOGY", "clock_freq_topology", &[Json], &[Json, Html, Raw]),
    ("MCS", "", &[Raw], &[Raw]),
    ("BMC", "", &[Raw], &[]),
    ("BUILD_METADATA", "build_metadata", &[Json, Raw], &[Json, Html]),
    ("KEYVALUE_METADATA", "keyvalue_metadata", &[Json], &[Json, Html]),
    ("USER_METADATA", "", &[Raw], &[Raw]),
    ("DNA_CERTIFICATE", "", &[], &[Json, Html, Raw]),
    ("PDI", "", &[Raw], &[Raw]),
    ("BITSTREAM_PARTIAL_PDI", "", &[Raw], &[Raw]),
    ("PARTITION_METADATA", "partition_metadata", &[Json, Raw], &[Json, Html, Raw]),
    ("EMULATION_DATA", "", &[Raw], &[Raw]),
    ("SYSTEM_METADATA", "", &[Raw], &[Raw]),
    ("SOFT_KERNEL", "", &[Raw], &[]),
    ("FLASH", "", &[Raw], &[]),
    ("AIE_METADATA", "", &[Json, Raw], &[Json, Html]),
    ("GROUP_TOPOLOGY", "group_topology", &[Json], &[Json, Html, Raw]),
    ("GROUP_CONNECTIVITY", "group_connectivity", &[Json], &[Json, Html, Raw]),
    ("SMARTNIC", "smartnic", &[Json, Raw], &[Json, Html, Raw]),
    ("AIE_RESOURCES", "", &[Raw], &[Raw]),
    ("OVERLAY", "", &[Raw], &[Raw]),
    ("VENDER_METADATA", "", &[Raw], &[]),
    ("AIE_PARTITION", "aie_partition", &[Json], &[Json]),
    ("IP_METADATA", "", &[Raw], &[Raw]),
    ("AIE_RESOURCES_BIN", "", &[Raw], &[]),
    ("AIE_TRACE_METADATA", "", &[Json, Raw], &[Json, Raw]),
    ("DTBO", "", &[Raw], &[Raw]),
];

impl Kind {
    /// Empty in NPU packages.
    pub const BITSTREAM: Kind = Kind(0);
    /// XML: kernels and their arguments.
    pub const EMBEDDED_METADATA: Kind = Kind(2);
    /// Memories.
    pub const MEM_TOPOLOGY: Kind = Kind(6);
    /// Arguments and memories.
    pub const CONNECTIVITY: Kind = Kind(7);
    /// Compute units.
    pub const IP_LAYOUT: Kind = Kind(8);
    /// JSON: who built it.
    pub const BUILD_METADATA: Kind = Kind(14);
    /// JSON: keys and values of the user's.
    pub const KEYVALUE_METADATA: Kind = Kind(15);
    /// JSON.
    pub const AIE_METADATA: Kind = Kind(25);
    /// Memories, grouped.
    pub const GROUP_TOPOLOGY: Kind = Kind(26);
    /// Arguments and grouped memories.
    pub const GROUP_CONNECTIVITY: Kind = Kind(27);
    /// Columns and PDIs.
    pub const AIE_PARTITION: Kind = Kind(32);
    /// JSON.
    pub const AIE_TRACE_METADATA: Kind = Kind(35);

    /// All kinds that have a name.
    pub fn all() -> impl Iterator<Item = Kind> {
        (0..).zip(&KINDS).map(|(number, _)| Kind(number))
    }

    fn line(self) -> Option<&'static (&'static str, &'static str, &'static [Format], &'static [Format])> {
        usize::try_from(self.0).ok().and_then(|index| KINDS.get(index))
    }

    /// The name that `xclbinutil` has for it.
    pub fn name(self) -> Option<&'static str> {
        self.line().map(|line| line.0)
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::all().find(|kind| kind.name() == Some(name))
    }

    /// The outermost member of its JSON.
    pub fn node(self) -> Option<&'static str> {
        self.line().map(|line| line.1).filter(|node| !node.is_empty())
    }

    /// The kind whose JSON has that outermost member.
    pub fn from_node(node: &str) -> Option<Kind> {
        Kind::all().find(|kind| kind.node() == Some(node))
    }

    /// Formats that `xclbinutil` takes for it.
    pub fn takes(self) -> &'static [Format] {
        self.line().map_or(&[], |line| line.2)
    }

    /// Formats that `xclbinutil` gives of it.
    pub fn gives(self) -> &'static [Format] {
        self.line().map_or(&[], |line| line.3)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => f.pad(&format!("KIND_{}", self.0)),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        let check = |name: &str, number| assert_eq!(Kind::from_name(name), Some(Kind(number)));
        check("BITSTREAM", 0);
        check("MEM_TOPOLOGY", 6);
        check("PDI", 18);
        check("GROUP_CONNECTIVITY", 27);
        check("AIE_PARTITION", 32);
        check("DTBO", 36);
        for kind in Kind::all() {
            assert_eq!(kind.name().and_then(Kind::from_name), Some(kind));
            assert!(kind.node().is_none_or(|node| Kind::from_node(node) == Some(kind)));
        }
        assert_eq!(Kind(99).to_string(), "KIND_99");
    }
}
