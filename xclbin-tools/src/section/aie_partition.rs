//! AIE_PARTITION: how many columns the kernels need, where they may start, and the PDIs that configure them. Drawn in
//! `docs/src/formats/xclbin.md`
//! (`Xilinx/XRT:src/runtime_src/core/include/xrt/detail/xclbin.h`, `struct aie_partition`).

mod json;
mod read;
mod write;

use std::borrow::Cow;

use crate::axlf::Uuid;

/// The section, borrowing images and names from its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AiePartition<'a> {
    /// 0.
    pub schema_version: u8,
    /// The index by which the container may hold several partitions; mostly empty.
    pub name: Cow<'a, str>,
    /// What the driver takes as the greatest number of operations per cycle.
    pub operations_per_cycle: u32,
    /// Of the compiler's choice.
    pub inference_fingerprint: u64,
    /// Of the compiler's choice.
    pub pre_post_fingerprint: u64,
    /// Absent in older files, where its offset is 0.
    pub kernel_commit_id: Option<Cow<'a, str>>,
    /// Columns of the array that the PDIs configure.
    pub column_width: u16,
    /// Columns where the partition may begin.
    pub start_columns: Vec<u16>,
    /// The images.
    pub pdis: Vec<Pdi<'a>>,
}

/// One image and the kernels that run on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pdi<'a> {
    /// Of the compiler's choice.
    pub uuid: Uuid,
    /// The image itself: see [`crate::pdi`].
    pub image: Cow<'a, [u8]>,
    /// The kernels, in groups.
    pub groups: Vec<CdoGroup<'a>>,
}

/// Kernels of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CdoGroup<'a> {
    /// `DPU`.
    pub name: Cow<'a, str>,
    /// What it is for.
    pub kind: CdoType,
    /// The PDI's id in its package, which a LOADPDI operation of an instruction stream names.
    pub pdi_id: u64,
    /// The ids under which EMBEDDED_METADATA and IP_LAYOUT know the kernels.
    pub kernel_ids: Vec<u64>,
    /// Groups to load before, by the format; compilers write 0xc1 and the like, which is no PDI's id, and nothing is
    /// known to read them. They are kept as they are.
    pub pre_cdo_groups: Vec<u64>,
}

/// What a group is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CdoType(pub u8);

impl CdoType {
    /// A whole configuration: mlir-aie's.
    pub const PRIMARY: CdoType = CdoType(1);
    /// A change to a configuration.
    pub const LITE: CdoType = CdoType(2);
    /// For kernels before and after those of the model.
    pub const PRE_POST: CdoType = CdoType(3);

    const NAMES: [&str; 4] = ["UNKNOWN", "PRIMARY", "LITE", "PRE_POST"];

    /// The name in JSON; `UNKNOWN` for numbers without one.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).unwrap_or(&Self::NAMES[0])
    }

    /// The type of that name in any case; unknown for other names, as `xclbinutil` has it.
    pub fn from_name(name: &str) -> CdoType {
        let found = Self::NAMES.iter().zip(0..).find(|(known, _)| known.eq_ignore_ascii_case(name));
        CdoType(found.map_or(0, |(_, number)| number))
    }
}

/// Bytes of the section that a list or a name takes, for checks of overlap and alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it is: `start_columns`, `pdi_image`, ...
    pub what: &'static str,
    /// Where its offset stands, from the section's start.
    pub at: u64,
    /// Where it begins, from the section's start.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

impl AiePartition<'_> {
    /// All kernel ids, each with the index of the PDI that holds it.
    pub fn kernel_ids(&self) -> impl Iterator<Item = (usize, u64)> {
        self.pdis.iter().enumerate().flat_map(|(index, pdi)| {
            let ids = pdi.groups.iter().flat_map(|group| &group.kernel_ids);
            ids.map(move |id| (index, *id))
        })
    }
}
