//! Launches of ops that were joined, see [`super::fuse`].

use biga_hal::{Activation, ByteRange, OpKind, Result, RopeStyle};
use biga_shaders::Kernel;

use super::{
    Launch, Lowering,
    check::{range, value_range},
    fuse::{AttentionShape, Leaves, Unit},
    product::QuantisedX,
    push::Push,
};
use crate::weight::{CHUNK, chunks};

/// Subgroups of a workgroup that computes a chunk of gate and up.
const GATE_UP_SUBGROUPS: u32 = 8;

/// The same in a chain, where weights are small and workgroups few.
const CHAINED_GATE_UP_SUBGROUPS: u32 = 16;

/// Bytes of gate and up beyond which no chain is worth it. On an H200 66 MB lose 7 % of a step by one.
const MOST_GATE_UP: u64 = 8 << 20;

impl Lowering<'_> {
    /// The same segment, another op.
    pub(super) fn of(&self, op: usize) -> Lowering<'_> {
        Lowering { bound: &self.segment.ops[op], ..*self }
    }

    fn output_range(&self) -> Option<ByteRange> {
        let width = self.bound.op.kind.output_width()?;
        Some(value_range(self.bound.output.as_ref()?, self.rows().0, width))
    }

    /// The launch of a unit of several ops. `self` is at its first.
    pub(super) fn joined(&self, out: &mut Vec<Launch>, unit: Unit) -> Result<Launch> {
        match unit {
            Unit::Norm { branch_norm, residual, norm, leaves } => self.row_norm(branch_norm, residual, norm, leaves),
            Unit::Activate(activate) => self.activate_to_halves(activate),
            Unit::RopeAppend { qk_norm, rope, append } => self.rope_append(qk_norm, rope, append),
            Unit::Attention { quantise, attention } => self.attention_split(attention, quantise),
            Unit::GateUp { activate, .. } => self.gate_up(out, activate),
            Unit::Alone(_) => Err(self.invalid("an op by itself is no joined one")),
        }
    }

    fn row_norm(
        &self,
        branch_norm: Option<usize>,
        residual: Option<usize>,
        norm: Option<usize>,
        leaves: Leaves,
    ) -> Result<Launch> {
        let (rows, header_word) = self.rows();
        let width = self.bound.op.kind.input_widths().first().copied().unwrap_or(0);
        let fails = || self.invalid(format!("no workgroup holds rows of {width}"));
        let lanes = self.tuning.row_lanes(width).ok_or_else(fails)?;
        let norm_of = |op: Option<usize>| match op.map(|op| self.of(op)) {
            Some(of) => match of.bound.op.kind {
                OpKind::RmsNorm { eps, weight_offset, .. } => (of.weight(0), eps, weight_offset),
                _ => (0, 0.0, 0.0),
            },
            None => (0, 0.0, 0.0),
        };
        let (branch_weight, branch_eps, branch_offset) = norm_of(branch_norm);
        let (weight, eps, offset) = norm_of(norm);
        let mut reads = vec![range(&self.segment.step)];
        let mut writes = Vec::new();
        for op in [branch_norm, norm].into_iter().flatten() {
            reads.push(range(&self.of(op).bound.weights[0].slice));
        }
        let (x, branch, stream) = match residual.map(|op| self.of(op)) {
            Some(of) => {
                let branch = branch_norm.map_or_else(|| of.input(1), |op| self.of(op).input(0));
                let all = |address| ByteRange { address, size_bytes: (4 * rows * width) as u64 };
                reads.extend([all(of.input(0)), all(branch)]);
                writes.extend(of.output_range());
                (of.input(0), branch, of.output()?)
            }
            None => {
                reads.extend(self.input_ranges());
                (self.input(0), 0, 0)
            }
        };
        let chunks = (rows * chunks(width)) as u64;
        let (mut stride, mut natural) = (0, false);
        let (y, scales) = match norm.map(|op| (op, self.of(op))) {
            Some(_) if leaves == Leaves::Quants => {
                let x = QuantisedX::at(self.scratch.first, chunks);
                writes.extend([x.quants, x.scales]);
                (x.quants.address, x.scales.address)
            }
            Some((norm, of)) if leaves == Leaves::Halves => {
                let x = of.of(norm + 1).halved_x()?;
                writes.extend([x.halves, x.scales]);
                (stride, natural) = (x.stride, x.natural);
                (x.halves.address, x.scales.address)
            }
            Some((_, of)) => {
                writes.extend(of.output_range());
                (of.output()?, 0)
            }
            None => (0, 0),
        };
        let mut push = Push::default();
        for address in [x, branch, branch_weight, stream, weight, y, scales, self.step()] {
            push.address(address);
        }
        push.word(header_word as u32).word(self.word("rows", rows)?).word(self.word("width", width)?);
        push.float(branch_eps).float(branch_offset).float(eps).float(offset).word(self.word("rows", stride)?);
        let per_lane = self.word("width", (width / 4).div_ceil(lanes as usize))?;
        let flag = |on: bool| u32::from(on);
        let leaves = match leaves {
            Leaves::Floats => 0,
            Leaves::Quants => 1,
            Leaves::Halves => 2,
        };
        let joins = [residual, branch_norm, norm].map(|op| flag(op.is_some()));
        let own = [&[per_lane], &joins[..], &[leaves, flag(natural)]].concat();
        let grid = self.fits([self.word("rows", rows)?, 1, 1])?;
        let mut launch = self.launch(Kernel::RowNorm, lanes, &own, push, grid);
        (launch.dispatch.reads, launch.dispatch.writes) = (reads, writes);
        Ok(launch.in_chain(self.tuning))
    }

    fn rope_append(&self, qk_norm: Option<usize>, rope: usize, append: usize) -> Result<Launch> {
        let (turn, store) = (self.of(rope), self.of(append));
        let OpKind::Rope { heads, style, inv_freqs } = &turn.bound.op.kind else {
            return Err(turn.invalid("no rotary embedding"));
        };
        let kv = store.kv()?;
        let table = turn.frequencies(inv_freqs)?;
        let (weights, eps, offset) = match qk_norm.map(|op| self.of(op)) {
            Some(of) => match of.bound.op.kind {
                OpKind::QkNorm { eps, weight_offset, .. } => ([of.weight(0), of.weight(1)], eps, weight_offset),
                _ => return Err(of.invalid("no norm of q and k")),
            },
            None => ([0, 0], 0.0, 0.0),
        };
        let mut push = Push::default();
        store.push_kv(&mut push, kv, *heads)?;
        push.address(self.input(0)).address(turn.output()?).address(table);
        push.address(weights[0]).address(weights[1]).float(eps).float(offset);
        let head_dim = self.word("head size", heads.head_dim)?;
        let own = [head_dim, u32::from(qk_norm.is_some()), u32::from(*style == RopeStyle::Interleaved)];
        let all_heads = self.word("heads", heads.n_heads + 2 * heads.n_kv_heads)?;
        let grid = self.fits([all_heads, self.word("tokens", self.segment.bucket.tokens)?, 1])?;
        let mut launch = self.launch(Kernel::RopeAppend(kv.dtype), self.tuning.lanes(), &own, push, grid);
        launch.dispatch.reads = self.input_ranges();
        launch.dispatch.reads.extend([range(&self.segment.step), table_range(table, inv_freqs.len())]);
        if let Some(of) = qk_norm.map(|op| self.of(op)) {
            launch.dispatch.reads.extend(of.bound.weights.iter().map(|weight| range(&weight.slice)));
        }
        launch.dispatch.writes = turn.output_range().into_iter().chain(store.kv_ranges(kv, *heads)?).collect();
        Ok(launch.in_chain(self.tuning))
    }

    fn attention_split(&self, index: usize, quantise: bool) -> Result<Launch> {
        let OpKind::Attention { heads, scale, window, softcap } = self.bound.op.kind else {
            return Err(self.invalid("no attention"));
        };
        let kv = self.kv()?;
        let shape = AttentionShape::of(self.segment, self.tuning, index).ok_or_else(|| self.invalid("no shape"))?;
        let tokens = self.segment.bucket.tokens;
        let too_large = || self.invalid("partial results pass what is counted");
        let parts = shape.parts(tokens, heads.n_heads, heads.head_dim).ok_or_else(too_large)?;
        self.word("partial results", parts)?;
        let x = QuantisedX::at(self.scratch.first, (tokens * heads.q_width() / CHUNK) as u64);
        let (y, y_scales) = if quantise { (x.quants.address, x.scales.address) } else { (self.output()?, 0) };
        let mut push = Push::default();
        self.push_kv(&mut push, kv, heads)?;
        push.address(self.input(0)).address(y).address(y_scales);
        push.address(self.scratch.parts).address(self.scratch.counters);
        push.float(scale).float(softcap.unwrap_or(0.0));
        // A window longer than any position is none.
        push.word(window.map_or(0, |window| u32::try_from(window).unwrap_or(0)));
        let columns = heads.n_heads / shape.heads;
        let splits = self.word("splits", shape.splits)?;
        let own = [
            self.word("head size", heads.head_dim)?,
            self.word("heads", heads.n_heads / heads.n_kv_heads)?,
            self.word("heads", shape.heads)?,
            shape.row_lanes,
            shape.batch,
            self.word("block length", kv.block_len)?,
            u32::from(softcap.is_some()),
            u32::from(quantise),
        ];
        let grid = self.fits([splits, self.word("heads", columns)?, self.word("tokens", tokens)?])?;
        let mut launch = self.launch(Kernel::AttentionSplit(kv.dtype), shape.lanes, &own, push, grid);
        launch.dispatch.reads.extend(self.kv_ranges(kv, heads)?);
        if quantise {
            launch.dispatch.writes = vec![x.quants, x.scales];
        }
        if shape.splits > 1 {
            let shared = [
                ByteRange { address: self.scratch.parts, size_bytes: 4 * parts as u64 },
                ByteRange { address: self.scratch.counters, size_bytes: 4 * (columns * tokens) as u64 },
            ];
            launch.dispatch.reads.extend(shared);
            launch.dispatch.writes.extend(shared);
        }
        Ok(launch.in_chain(self.tuning))
    }

    fn gate_up(&self, out: &mut Vec<Launch>, activate: usize) -> Result<Launch> {
        let OpKind::Activate { activation, .. } = self.of(activate).bound.op.kind else {
            return Err(self.invalid("no activation follows"));
        };
        let (rows, header_word) = self.rows();
        let [gate, up] = self.bound.weights.as_slice() else { return Err(self.invalid("two weights are wanted")) };
        let x = self.quantised_x(out, gate.columns)?;
        let y = QuantisedX::at(self.scratch.second, (rows * chunks(gate.rows)) as u64);
        let mut push = Push::default();
        for range in [range(&gate.slice), range(&up.slice), x.quants, x.scales, y.quants, y.scales] {
            push.address(range.address);
        }
        push.address(self.step()).word(header_word as u32);
        let tiles = self.word("grid width", gate.rows / CHUNK)?;
        let n_chunks = self.word("columns", chunks(gate.columns))?;
        let lanes = |subgroups| self.tuning.subgroup * self.tuning.subgroups_up_to(subgroups);
        let gelu = u32::from(activation == Activation::GeluTanh);
        let mut launch = if self.is_small(&self.bound.weights, MOST_GATE_UP) {
            push.word(self.word("weight rows", gate.rows)?).word(n_chunks);
            let grid = self.fits([tiles, 1, 1])?;
            let own = [n_chunks, gelu, self.tuning.one_row(gate.rows, n_chunks).1];
            let lanes = lanes(CHAINED_GATE_UP_SUBGROUPS);
            self.launch(Kernel::GateUpOne(gate.dtype), lanes, &own, push, grid).in_chain(self.tuning)
        } else {
            push.word(self.word("rows", rows)?).word(self.word("weight rows", gate.rows)?).word(n_chunks);
            if self.tuning.lanes_take(rows, gate.dtype) {
                let cut = self.tuning.lanes_gate_up(rows);
                let own = [self.word("rows", rows)?, cut.tiles, cut.sharers, gelu];
                let lanes = cut.subgroups * self.tuning.subgroup;
                self.launch(Kernel::GateUpLanes(gate.dtype), lanes, &own, push, self.fits([tiles, 1, 1])?)
            } else {
                // Each chunk of x is loaded for so many rows of both weights.
                let (at_once, known) = if rows == 1 { (1, n_chunks) } else { (2, 0) };
                let own = [self.word("rows", rows)?, at_once, gelu, known];
                self.launch(Kernel::GateUp(gate.dtype), lanes(GATE_UP_SUBGROUPS), &own, push, self.fits([tiles, 1, 1])?)
            }
        };
        launch.dispatch.reads =
            vec![x.quants, x.scales, range(&gate.slice), range(&up.slice), range(&self.segment.step)];
        launch.dispatch.writes = vec![y.quants, y.scales];
        Ok(launch)
    }
}

pub(super) fn table_range(address: u64, len: usize) -> ByteRange {
    ByteRange { address, size_bytes: 4 * len as u64 }
}
