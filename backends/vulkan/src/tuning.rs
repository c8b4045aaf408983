//! Choices that depend on the kind of device: which product kernel, how many lanes a workgroup has.

use biga_hal::{DType, DeviceKind};
use biga_shaders::Kernel;

use crate::{
    elements::Elements,
    options::{Kernels, VulkanOptions},
    probe,
    sys::facts::Facts,
    tile::{Matrices, MatrixShape, MatrixTile},
};

/// What lowering needs to know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// The subgroup size that pipelines ask for.
    pub(crate) subgroup: u32,
    /// True for drivers that run on the CPU, where shared memory and barriers are dear.
    pub(crate) software: bool,
    /// Subgroups of a workgroup.
    pub(crate) max_subgroups: u32,
    /// Workgroups along each axis.
    pub(crate) max_grid: [u32; 3],
    /// Shared memory of a workgroup.
    pub(crate) max_shared_bytes: u32,
    /// Lanes of a workgroup.
    pub(crate) max_lanes: u32,
    /// The matrix instruction to use.
    pub(crate) matrix: Option<MatrixShape>,
    /// Where an invocation's components of a matrix lie, once that is known.
    pub(crate) elements: Option<Elements>,
    /// True if lanes make matrices by themselves, for few rows of x; a device must show that it lets them.
    pub(crate) lanes: bool,
    /// The tile of every product by matrix instructions, if not that of the table.
    pub(crate) tile: Option<MatrixTile>,
    /// The tile of large products that was the fastest on this device, if that was measured.
    pub(crate) prompt_tile: Option<MatrixTile>,
    /// Whether tiles may have parts of 64 by 64, whose sums take 128 registers a lane: NVIDIA's compiler holds them,
    /// RADV spills on gfx1151.
    pub(crate) large_parts: bool,
    /// Processors that each hold workgroups of their own.
    pub(crate) compute_units: u32,
    /// True if launches may wait for each other in the shader.
    pub(crate) chains: bool,
}

/// The matrix instruction whose factors lanes make by themselves, and their subgroup.
const LANES_SHAPE: (MatrixShape, u32) = ([16, 8, 16], 32);

/// How a workgroup of such a product is cut (`lanes.glsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LanesCut {
    /// Subgroups of a workgroup.
    pub(crate) subgroups: u32,
    /// Matrices of 16 rows of each weight that a subgroup computes.
    pub(crate) tiles: u32,
    /// Subgroups that share the columns of a row.
    pub(crate) sharers: u32,
}

impl LanesCut {
    /// Rows of a weight that a workgroup computes.
    pub(crate) fn rows(&self) -> u32 {
        self.subgroups / self.sharers * self.tiles * 16
    }
}

/// What to assume where a driver does not count compute units: a larger integrated GPU.
const COMPUTE_UNITS: u32 = 16;

const NVIDIA: u32 = 0x10DE;

/// Whose devices start workgroups in the order of their launches, which `chain.glsl` rests on: AMD, NVIDIA, and
/// Mesa's driver on the CPU, which runs one launch after another.
const CHAIN_VENDORS: [u32; 3] = [0x1002, NVIDIA, 0x10005];

impl Tuning {
    /// For a device.
    pub(crate) fn new(facts: &Facts, options: VulkanOptions) -> Tuning {
        let software = match options.kernels {
            Kernels::Auto => probe::kind(facts) == DeviceKind::SoftwareGpu,
            Kernels::Gpu => false,
            Kernels::Software => true,
        };
        // 32 where there is a choice: shorter reductions, and rows of small models fill it.
        let (min, max) = (facts.min_subgroup_size, facts.max_subgroup_size);
        let subgroup =
            if facts.can_require_subgroup_size && min <= 32 && 32 <= max { 32 } else { facts.subgroup_size.max(1) };
        let matrix = if software || options.matrices == Matrices::Never { None } else { matrix(facts) };
        let (shape, lanes) = LANES_SHAPE;
        Tuning {
            lanes: matrix.is_some()
                && subgroup == lanes
                && facts.matrix_f16.contains(&shape)
                && facts.max_workgroup_subgroups >= 8
                && facts.max_lanes >= 256,
            subgroup,
            software,
            max_subgroups: facts.max_workgroup_subgroups,
            max_grid: facts.max_grid,
            max_shared_bytes: facts.max_shared_bytes,
            max_lanes: facts.max_lanes.min(subgroup.saturating_mul(facts.max_workgroup_subgroups)),
            matrix,
            elements: None,
            tile: if let Matrices::Tile(tile) = options.matrices { Some(tile) } else { None },
            prompt_tile: None,
            large_parts: facts.vendor_id == NVIDIA,
            compute_units: facts.compute_units.unwrap_or(COMPUTE_UNITS),
            chains: !software && !options.only_barriers && CHAIN_VENDORS.contains(&facts.vendor_id),
        }
    }

    /// Lanes of element-wise kernels.
    pub(crate) fn lanes(&self) -> u32 {
        64.max(self.subgroup)
    }

    /// Lanes of kernels that sum over a row. One subgroup needs no shared memory.
    pub(crate) fn reduction_lanes(&self) -> u32 {
        if self.software { self.subgroup } else { self.subgroup * self.most_subgroups() }
    }

    /// The kernel that reads a buffer for measuring, and its specialisation constants.
    pub(crate) fn reading(&self) -> (Kernel, [u32; 2]) {
        (Kernel::ReadBandwidth, [self.reduction_lanes().max(self.lanes()), self.subgroup])
    }

    /// Specialisation constants of the kernel that tells how matrices lie, where there are any.
    pub(crate) fn asking(&self) -> Option<[u32; 5]> {
        self.matrix.map(|[m, n, k]| [self.subgroup, self.subgroup, m, n, k])
    }

    /// Lanes of an attention workgroup, as many subgroups as its shared memory holds partial results of.
    pub(crate) fn attention_lanes(&self, head_dim: u32) -> u32 {
        if self.software {
            return self.subgroup;
        }
        let fits = self.max_shared_bytes / 2 / (4 * (head_dim + 2)).max(1);
        self.subgroup * self.most_subgroups().min(fits).max(1)
    }

    /// Lanes and weight rows of a workgroup of the product of `tokens` rows with quantised weights. Chosen on an
    /// H200: subgroups share a row where there are few rows or where rows are long; with several rows of x, each of
    /// their chunks is loaded for four rows of the weight.
    pub(crate) fn matvec(&self, tokens: usize, weight_rows: usize, chunks: usize) -> (u32, u32) {
        const TALL: usize = 12288;
        const LONG: usize = 512;
        let (subgroups, rows) = match tokens {
            1 if weight_rows < TALL => (4, 1),
            1 => (1, 4),
            2 => (if chunks < LONG { 1 } else { 4 }, 2),
            _ => (if chunks < LONG { 1 } else { 4 }, 4),
        };
        (self.subgroup * self.subgroups_up_to(subgroups), self.enough_rows(rows, weight_rows))
    }

    /// True if lanes make the matrices of products of `tokens` rows of x with weights of a format: where that is known to
    /// be faster, on an H200.
    pub(crate) fn lanes_take(&self, tokens: usize, dtype: DType) -> bool {
        let most = match dtype {
            DType::Q4_0 => 16,
            DType::Q8_0 => 8,
            _ => return false,
        };
        self.lanes && (3..=most).contains(&tokens)
    }

    /// The cut of such a product. Chosen on an H200: of tall weights a subgroup takes more rows, for which it makes halves
    /// of x once.
    pub(crate) fn lanes_cut(&self, tokens: usize, weight_rows: usize) -> LanesCut {
        match (tokens, weight_rows) {
            (..=8, 65536..) => LanesCut { subgroups: 4, tiles: 2, sharers: 1 },
            (..=8, 8192..) | (_, 65536..) => LanesCut { subgroups: 4, tiles: 2, sharers: 4 },
            (..=8, _) | (_, 8192..) => LanesCut { subgroups: 8, tiles: 1, sharers: 8 },
            _ => LanesCut { subgroups: 4, tiles: 1, sharers: 4 },
        }
    }

    /// The same of gate and up, where a workgroup computes 32 rows of both.
    pub(crate) fn lanes_gate_up(&self, tokens: usize) -> LanesCut {
        match tokens {
            ..=8 => LanesCut { subgroups: 2, tiles: 2, sharers: 2 },
            _ => LanesCut { subgroups: 4, tiles: 1, sharers: 2 },
        }
    }

    /// Subgroups of a workgroup of the one-token product, which take a row each, and chunks of a row that a lane
    /// loads at a time. Chosen on an H200: fewer of either for short weights, fewer chunks for long rows, by registers.
    pub(crate) fn one_row(&self, weight_rows: usize, chunks: u32) -> (u32, u32) {
        const TALL: usize = 2048;
        const LONG: u32 = 512;
        let subgroups = self.subgroups_up_to(if weight_rows < TALL { 8 } else { 16 });
        (subgroups, if chunks <= self.subgroup || chunks > LONG { 1 } else { 2 })
    }

    /// At least so many rows a workgroup, more where the grid would not hold the weight's.
    pub(crate) fn enough_rows(&self, at_least: u32, weight_rows: usize) -> u32 {
        let mut rows = at_least;
        while weight_rows.div_ceil(rows as usize) > self.max_grid[0] as usize && rows < 16 {
            rows *= 2;
        }
        rows
    }

    /// Lanes of a workgroup that holds a row of so many f32 in registers, four at a time; `None` if it does not fit.
    pub(crate) fn row_lanes(&self, width: usize) -> Option<u32> {
        const MOST_PER_LANE: u32 = 4;
        let quads = u32::try_from(width / 4).ok()?;
        let most = (self.max_lanes / self.subgroup).min(self.max_subgroups) * self.subgroup;
        // Two for each lane: half the lanes to wait for, and a row is there after two loads.
        let lanes = quads.div_ceil(2).next_multiple_of(self.subgroup).min(most);
        let per_lane = quads.div_ceil(lanes.max(1));
        let shared = lanes.checked_mul(per_lane)?.checked_mul(8)?.checked_add(1024)?;
        (per_lane <= MOST_PER_LANE && shared <= self.max_shared_bytes).then_some(lanes)
    }

    /// Lanes of a workgroup that holds so many units in registers, and how many each lane holds.
    pub(crate) fn holding(&self, units: u32) -> (u32, u32) {
        let most = (self.max_lanes / self.subgroup).min(self.max_subgroups).max(1) * self.subgroup;
        let lanes = units.next_multiple_of(self.subgroup).min(most);
        (lanes, units.div_ceil(lanes))
    }

    /// Lanes of a workgroup of the split attention: as many subgroups as shared memory holds partial results of,
    /// each of `part` f32, beside `whole` of the result. `None` if not even one fits.
    pub(crate) fn split_lanes(&self, part: usize, whole: usize) -> Option<u32> {
        let left = (self.max_shared_bytes as usize).checked_sub(8 * whole + 64)?;
        let fits = u32::try_from(left / (4 * part)).ok()?;
        (fits > 0).then(|| self.subgroup * self.most_subgroups().min(fits))
    }

    /// So many subgroups, or as many as a workgroup may have.
    pub(crate) fn subgroups_up_to(&self, most: u32) -> u32 {
        most.min(self.max_subgroups).min(self.max_lanes / self.subgroup).max(1)
    }

    /// Subgroups of the largest workgroups: 256 lanes, or what the device allows.
    fn most_subgroups(&self) -> u32 {
        (256 / self.subgroup).min(self.max_subgroups).max(1)
    }
}

/// Mesa 26.1's driver on the CPU crashes as it compiles matrix instructions for subgroups of 16.
const SOFTWARE_MATRIX_SUBGROUP: u32 = 8;

/// The matrix instruction to use: that of most hardware, else the first that the kernels can.
fn matrix(facts: &Facts) -> Option<MatrixShape> {
    if probe::kind(facts) == DeviceKind::SoftwareGpu && facts.subgroup_size > SOFTWARE_MATRIX_SUBGROUP {
        return None;
    }
    const USUAL: MatrixShape = [16, 16, 16];
    let can = |[m, n, k]: &MatrixShape| [m, n, k].iter().all(|side| [8, 16].contains(*side));
    let mut shapes = facts.matrix_f16.iter().copied();
    if facts.matrix_f16.contains(&USUAL) { Some(USUAL) } else { shapes.find(can) }
}

#[cfg(test)]
mod tests {
    use super::{Kernels, Tuning, VulkanOptions};
    use crate::{probe::example_facts, sys::facts::Facts};

    fn tuning(facts: &Facts, kernels: Kernels) -> Tuning {
        Tuning::new(facts, VulkanOptions { kernels, ..VulkanOptions::default() })
    }

    #[test]
    fn matrix_instructions_are_for_gpus_that_have_a_fitting_shape() {
        let mut facts = example_facts();
        assert_eq!(tuning(&facts, Kernels::Gpu).matrix, Some([16, 16, 16]));
        assert_eq!(tuning(&facts, Kernels::Software).matrix, None);
        facts.matrix_f16 = vec![[16, 8, 32], [8, 8, 8]];
        assert_eq!(tuning(&facts, Kernels::Gpu).matrix, Some([8, 8, 8]));
        facts.matrix_f16.clear();
        assert_eq!(tuning(&facts, Kernels::Gpu).matrix, None);
    }

    #[test]
    fn a_width_of_32_is_taken_where_offered() {
        let mut facts = example_facts();
        assert_eq!(tuning(&facts, Kernels::Auto).subgroup, 32);
        (facts.subgroup_size, facts.min_subgroup_size, facts.max_subgroup_size) = (8, 8, 8);
        assert_eq!(tuning(&facts, Kernels::Auto).subgroup, 8);
    }

    #[test]
    fn workgroups_have_as_many_subgroups_as_the_device_allows() {
        let mut facts = example_facts();
        let lanes = |facts: &Facts| {
            let tuning = tuning(facts, Kernels::Gpu);
            (tuning.reduction_lanes(), tuning.attention_lanes(64))
        };
        assert_eq!(lanes(&facts), (256, 256));
        (facts.subgroup_size, facts.min_subgroup_size, facts.max_subgroup_size) = (4, 4, 4);
        assert_eq!(lanes(&facts), (128, 128));
        (facts.subgroup_size, facts.min_subgroup_size, facts.max_subgroup_size) = (128, 128, 128);
        assert_eq!(lanes(&facts), (256, 256));
    }

    #[test]
    fn long_heads_get_fewer_subgroups() {
        let tuning = tuning(&example_facts(), Kernels::Gpu);
        assert_eq!(tuning.attention_lanes(64), 256);
        assert!(tuning.attention_lanes(4096) < 256);
    }
}
