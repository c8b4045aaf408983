//! Attention of many tokens by matrix instructions: which ops it is for, and how it is cut into workgroups.

use biga_hal::{BoundOp, DType, Heads, OpKind, Result, Segment};
use biga_shaders::Kernel;

use super::{Launch, Lowering, push::Push};
use crate::{tile::MatrixShape, tuning::Tuning};

/// The most tokens for which another kernel is faster.
const FEW_TOKENS: usize = 8;

/// The longest heads whose queries and sums a subgroup holds in registers.
const HELD_DIM: u32 = 128;
/// The longest heads whose sums two subgroups hold.
const MAX_DIM: u32 = 256;

/// The most workgroups among which the runs of a tile are shared: most tiles are of one sequence.
const RUN_WORKGROUPS: usize = 4;

/// What one workgroup of the kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlashTile {
    shape: MatrixShape,
    head_dim: u32,
    /// Query heads of a KV head.
    group: u32,
    /// Of a workgroup.
    subgroups: u32,
    /// Positions of a step.
    positions: u32,
    /// Whether queries stay in registers; else they lie in shared memory.
    hold_q: bool,
    /// Subgroups that have the same rows, each some columns of the result.
    parts: u32,
}

/// The tile of an attention op, if matrix instructions are for it: many tokens, of fewer sequences, over a
/// cache that loses nothing in halves and whose rows are read 16 bytes at a time.
pub(super) fn tile(segment: &Segment, bound: &BoundOp, tuning: &Tuning) -> Option<FlashTile> {
    let (OpKind::Attention { heads, .. }, Some(kv)) = (&bound.op.kind, &bound.kv) else { return None };
    let bucket = segment.bucket;
    let aligned = match kv.dtype {
        DType::F16 => [kv.k_offset_bytes, kv.v_offset_bytes, kv.block_bytes].iter().all(|bytes| bytes % 16 == 0),
        DType::Q8_0 => true,
        _ => false,
    };
    if bucket.tokens <= FEW_TOKENS || bucket.sequences >= bucket.tokens || !aligned {
        return None;
    }
    let head_dim = u32::try_from(heads.head_dim).ok()?;
    let group = u32::try_from(heads.n_heads / heads.n_kv_heads).ok()?;
    let shape = tuning.matrix?;
    // Drivers on the CPU, whose matrices are small, would take minutes to compile what holds them.
    let hold_q = head_dim <= HELD_DIM && shape[0] == 16;
    let sizes: &[[u32; 3]] = if head_dim <= HELD_DIM { &[[4, 32, 1], [2, 32, 1]] } else { &[[4, 16, 2]] };
    let of = |&[subgroups, positions, parts]: &[u32; 3]| FlashTile {
        shape,
        head_dim,
        group,
        subgroups,
        positions,
        hold_q,
        parts,
    };
    sizes.iter().map(of).find(|tile| tile.fits(tuning))
}

impl FlashTile {
    /// Query rows: those of a token's group, token by token.
    fn rows(&self) -> u32 {
        self.subgroups / self.parts * self.shape[0]
    }

    fn fits(&self, tuning: &Tuning) -> bool {
        let [m, n, k] = self.shape;
        // Lanes that share a row of scores, and take two quads of it at a time.
        let row_lanes = tuning.subgroup / m;
        self.head_dim <= MAX_DIM
            && self.head_dim.is_multiple_of(n * self.parts)
            && [8, n, k].iter().all(|side| self.head_dim.is_multiple_of(*side) && self.positions.is_multiple_of(*side))
            && tuning.subgroup == row_lanes * m
            && row_lanes.is_power_of_two()
            && self.positions.is_multiple_of(8 * row_lanes)
            && (1..=self.rows()).contains(&self.group)
            && self.subgroups * tuning.subgroup <= tuning.max_lanes
            && self.shared_bytes() <= tuning.max_shared_bytes
    }

    /// Shared memory of a workgroup; the kernel reckons it alike.
    fn shared_bytes(&self) -> u32 {
        let d_stride = (self.head_dim / 8) | 1;
        let cached = self.positions * d_stride + self.head_dim * ((self.positions / 8) | 1);
        let queries = self.rows() * d_stride;
        let tiles = if self.hold_q { cached.max(queries) } else { cached + queries };
        let score_row = (self.positions / 4).max(self.positions / 8 + self.shape[1] / 4) | 1;
        // Two steps' places, and whether they are there.
        16 * (tiles + self.rows() * self.parts * score_row) + 2 * self.positions * (8 + 4)
    }
}

impl Lowering<'_> {
    /// The launch but for what it reads of the cache. `push` is that of every attention kernel.
    pub(super) fn flash_attention(&self, tile: FlashTile, heads: Heads, push: Push) -> Result<Launch> {
        let kv = self.kv()?;
        let bucket = self.segment.bucket;
        let [m, n, k] = tile.shape;
        let FlashTile { head_dim, group, subgroups, positions, hold_q, parts, .. } = tile;
        let own = [m, n, k, head_dim, group, subgroups, positions, u32::from(hold_q), parts];
        let tokens = (tile.rows() / group) as usize;
        let runs = bucket.sequences.clamp(1, RUN_WORKGROUPS.min(tokens));
        let grid = self.fits([
            self.word("grid width", bucket.tokens.div_ceil(tokens))?,
            self.word("grid height", heads.n_kv_heads)?,
            self.word("grid depth", runs)?,
        ])?;
        let lanes = subgroups * self.tuning.subgroup;
        Ok(self.launch(Kernel::AttentionMatrix(kv.dtype), lanes, &own, push, grid))
    }
}
