//! Lowering and the barriers that follow from it, without a device.

use std::{any::Any, sync::Arc};

use biga_hal::{
    Activation, Allocation, BoundKv, BoundOp, BoundWeight, Bucket, Buffer, BufferSlice, DType, DeviceId, Epoch, Heads,
    HostRange, Op, OpKind, RopeStyle, Rows, Segment, StepLayout, StepLimits, WeightRole,
};

use super::{Kernel, Launch, lower};
use crate::{
    hazard::Hazards,
    options::{Kernels, VulkanOptions},
    probe,
    tile::Matrices,
    tuning::Tuning,
    weight,
};

/// Memory that is only an address.
#[derive(Debug)]
struct Address(u64, u64);

impl Allocation for Address {
    fn name(&self) -> &str {
        "address"
    }
    fn size_bytes(&self) -> u64 {
        self.1
    }
    fn owner(&self) -> Option<DeviceId> {
        None
    }
    fn epoch(&self) -> Epoch {
        Epoch::default()
    }
    fn host_range(&self) -> Option<HostRange> {
        None
    }
    fn device_address(&self) -> u64 {
        self.0
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Space(u64);

impl Space {
    fn slice(&mut self, size_bytes: usize) -> BufferSlice {
        let address = self.0;
        self.0 += (size_bytes as u64).next_multiple_of(256);
        Buffer::new(Address(address, size_bytes as u64)).whole()
    }

    fn op(&mut self, kind: OpKind, inputs: Vec<BufferSlice>, bucket: Bucket, kv: Option<BoundKv>) -> BoundOp {
        let weights = kind
            .weights()
            .iter()
            .map(|shape| {
                let dtype = if shape.role == WeightRole::Vector { DType::F32 } else { DType::Q4_0 };
                let slice = self.slice(weight::size_bytes(shape, dtype).unwrap());
                BoundWeight { slice, dtype, rows: shape.rows, columns: shape.columns }
            })
            .collect();
        let output = kind.output_width().map(|width| self.slice(4 * width * bucket.tokens));
        BoundOp {
            op: Arc::new(Op { kind, layer: Some(0) }),
            rows: Rows::Tokens,
            inputs,
            output,
            weights,
            kv,
            internal: false,
        }
    }
}

fn segment(tokens: usize, build: impl FnOnce(&mut Space, Bucket) -> Vec<BoundOp>) -> Segment {
    let limits = StepLimits { max_tokens: tokens, max_outputs: 4, max_slots: 2, max_blocks: 8, n_tables: 2 };
    let step_layout = StepLayout::new(limits).unwrap();
    let bucket = Bucket { tokens, sequences: 2, outputs: 4 };
    let mut space = Space(1 << 20);
    let step = space.slice(step_layout.size_bytes);
    let ops = build(&mut space, bucket);
    Segment { name: "test".into(), bucket, ops, step, step_layout }
}

/// Apart from what [`Space`] gives out.
const SCRATCH: u64 = 1 << 40;

fn launches(segment: &Segment, kernels: Kernels) -> Vec<Launch> {
    let options = VulkanOptions { kernels, ..VulkanOptions::default() };
    lower(segment, &Tuning::new(&probe::example_facts(), options), &[], SCRATCH).unwrap()
}

fn barriers(launches: &[Launch]) -> Vec<bool> {
    let mut hazards = Hazards::default();
    launches.iter().map(|launch| hazards.admit(&launch.dispatch)).collect()
}

const HEADS: Heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 32 };

fn kv(table: usize, layer: u64) -> Option<BoundKv> {
    let part = 2 * 4 * 32 * 2;
    Some(BoundKv {
        table,
        block_len: 4,
        k_offset_bytes: 2 * layer * part,
        v_offset_bytes: (2 * layer + 1) * part,
        block_bytes: 8 * part,
        dtype: DType::F16,
    })
}

#[test]
fn the_products_of_one_op_run_side_by_side() {
    let of = |last: DType| {
        let mut segment = segment(3, |space, bucket| {
            let x = space.slice(4 * 64 * 3);
            let qkv = OpKind::QkvProjection { width: 64, heads: HEADS, bias: true };
            let mut qkv = space.op(qkv, vec![x], bucket, None);
            qkv.weights[2].slice = space.slice(64 * 1024);
            qkv.weights[2].dtype = last;
            let after = space.op(OpKind::SelectOutputs { width: 256 }, vec![qkv.output.clone().unwrap()], bucket, None);
            vec![qkv, BoundOp { rows: Rows::Outputs, ..after }]
        });
        segment.bucket.outputs = 3;
        segment
    };
    let writes = |launch: &Launch| launch.dispatch.writes.len();
    // The quants of x, the product of one format, what reads it.
    let found = launches(&of(DType::Q4_0), Kernels::Gpu);
    assert_eq!(barriers(&found), [false, true, true]);
    assert_eq!(writes(&found[1]), 1, "whole rows");
    // q and k, and v beside them: their part of each of the three rows.
    let found = launches(&of(DType::Q8_0), Kernels::Gpu);
    assert_eq!(barriers(&found), [false, true, false, true]);
    assert!(found[1..3].iter().all(|launch| writes(launch) == 3));
}

#[test]
fn the_cache_orders_its_readers_after_its_writers() {
    let segment = segment(3, |space, bucket| {
        let x = space.slice(4 * HEADS.qkv_width() * 3);
        let append = |space: &mut Space, kv| space.op(OpKind::KvAppend { heads: HEADS }, vec![x.clone()], bucket, kv);
        let attend = |space: &mut Space, kv| {
            let kind = OpKind::Attention { heads: HEADS, scale: 1.0, window: None, softcap: None };
            space.op(kind, vec![x.clone()], bucket, kv)
        };
        vec![
            append(space, kv(0, 0)),
            // Another layer and another table: nothing shared.
            append(space, kv(0, 1)),
            append(space, kv(1, 0)),
            attend(space, kv(0, 0)),
            attend(space, kv(1, 0)),
            append(space, kv(1, 0)),
        ]
    });
    for kernels in [Kernels::Gpu, Kernels::Software] {
        assert_eq!(barriers(&launches(&segment, kernels)), [false, false, false, true, false, true]);
    }
}

#[test]
fn the_bucket_and_the_device_choose_the_product() {
    let kernel = |tokens, kernels| {
        let segment = segment(tokens, |space, bucket| {
            let x = space.slice(4 * 64 * tokens);
            vec![space.op(OpKind::Down { ff: 64, width: 100 }, vec![x], bucket, None)]
        });
        let launch = launches(&segment, kernels).pop().unwrap();
        (launch.kernel, launch.grid)
    };
    assert_eq!(kernel(1, Kernels::Gpu), (Kernel::MatVecOne(DType::Q4_0), [13, 1, 1]));
    assert_eq!(kernel(2, Kernels::Gpu), (Kernel::MatVec(DType::Q4_0), [50, 1, 1]));
    assert_eq!(kernel(4, Kernels::Gpu), (Kernel::MatVec(DType::Q4_0), [25, 1, 1]));
    assert_eq!(kernel(5, Kernels::Gpu), (Kernel::MatMulSplit(DType::Q4_0), [1, 7, 1]));
    assert_eq!(kernel(65, Kernels::Gpu), (Kernel::MatMulMatrix(DType::Q4_0), [2, 2, 1]));
    assert_eq!(kernel(1, Kernels::Software), (Kernel::MatMulRows(DType::Q4_0), [2, 1, 1]));
    assert_eq!(kernel(65, Kernels::Software), (Kernel::MatMulRows(DType::Q4_0), [2, 9, 1]));
}

#[test]
fn lanes_make_the_matrices_of_few_rows_where_they_can() {
    let mut facts = probe::example_facts();
    facts.matrix_f16.push([16, 8, 16]);
    let kernels = |tokens: usize, matrices: Matrices| -> Vec<&'static str> {
        let segment = segment(tokens, |space, bucket| layer(space, bucket, true));
        let options = VulkanOptions { kernels: Kernels::Gpu, matrices, ..VulkanOptions::default() };
        let tables = super::constant_tables(&segment).into_iter().map(|table| (table, 1 << 50)).collect::<Vec<_>>();
        let launches = lower(&segment, &Tuning::new(&facts, options), &tables, SCRATCH).unwrap();
        launches[2..10].iter().map(|launch| launch.kernel.source().0).collect()
    };
    let of = |product: &'static str, gate_up: &'static str| {
        ["row_norm", product, "rope_append", "attention_split", product, "row_norm", gate_up, product]
    };
    for tokens in [3, 8] {
        assert_eq!(kernels(tokens, Matrices::Auto), of("matvec_lanes", "gate_up_lanes"));
    }
    assert_eq!(kernels(2, Matrices::Auto), of("matvec_i8", "gate_up"));
    assert_eq!(kernels(4, Matrices::Never), of("matvec_i8", "gate_up"));
    assert!(kernels(16, Matrices::Auto).contains(&"gate_up_lanes"));
    assert!(kernels(17, Matrices::Auto).contains(&"matmul_split"));
}

#[test]
fn push_constants_fit_what_every_device_has() {
    let segment = segment(2, |space, bucket| {
        let x = space.slice(4 * HEADS.qkv_width() * 2);
        let kind = OpKind::Attention { heads: HEADS, scale: 1.0, window: Some(3), softcap: Some(1.0) };
        let product = OpKind::Head { width: HEADS.qkv_width(), vocab: 9, softcap: Some(2.0) };
        vec![space.op(kind, vec![x.clone()], bucket, kv(0, 0)), space.op(product, vec![x], bucket, None)]
    });
    for launch in launches(&segment, Kernels::Gpu) {
        assert!(launch.push.len() * 4 <= crate::sys::device::PUSH_BYTES as usize, "{:?}", launch.kernel);
    }
}

/// A layer with every op that a model may have, up to the next layer's projection.
fn layer(space: &mut Space, bucket: Bucket, internal: bool) -> Vec<BoundOp> {
    const WIDTH: usize = 64;
    let norm = || OpKind::RmsNorm { width: WIDTH, eps: 1e-6, weight_offset: 0.0 };
    let rope = OpKind::Rope { heads: HEADS, style: RopeStyle::Halves, inv_freqs: Arc::from([1.0; 16]) };
    let attention = OpKind::Attention { heads: HEADS, scale: 1.0, window: None, softcap: None };
    let qkv = || OpKind::QkvProjection { width: WIDTH, heads: HEADS, bias: false };
    let mut ops: Vec<BoundOp> = Vec::new();
    let mut add = |kind: OpKind, inputs: Vec<BufferSlice>| {
        let kv = if kind.uses_kv() { kv(0, 0) } else { None };
        let op = BoundOp { internal, ..space.op(kind, inputs, bucket, kv) };
        let output = op.output.clone();
        ops.push(op);
        output.unwrap_or_else(|| ops[0].inputs[0].clone())
    };
    let stream = add(OpKind::Down { ff: 64, width: WIDTH }, vec![Space(1 << 30).slice(4 * 64 * bucket.tokens)]);
    let x = add(norm(), vec![stream.clone()]);
    let x = add(qkv(), vec![x]);
    let x = add(OpKind::QkNorm { heads: HEADS, eps: 1e-6, weight_offset: 0.0 }, vec![x]);
    let q = add(rope, vec![x]);
    add(OpKind::KvAppend { heads: HEADS }, vec![q.clone()]);
    let x = add(attention, vec![q]);
    let x = add(OpKind::OutputProjection { input: HEADS.q_width(), output: WIDTH, bias: false }, vec![x]);
    let x = add(norm(), vec![x]);
    let stream = add(OpKind::Residual { width: WIDTH }, vec![stream, x]);
    let x = add(norm(), vec![stream.clone()]);
    let x = add(OpKind::GateUp { width: WIDTH, ff: 96 }, vec![x]);
    let x = add(OpKind::Activate { ff: 96, activation: Activation::Silu }, vec![x]);
    let x = add(OpKind::Down { ff: 96, width: WIDTH }, vec![x]);
    let stream = add(OpKind::Residual { width: WIDTH }, vec![stream, x]);
    let x = add(norm(), vec![stream]);
    add(qkv(), vec![x]);
    ops
}

fn sources(segment: &Segment, kernels: Kernels) -> Vec<&'static str> {
    let tuning = Tuning::new(&probe::example_facts(), VulkanOptions { kernels, ..VulkanOptions::default() });
    let tables = super::constant_tables(segment).into_iter().map(|table| (table, 1 << 50)).collect::<Vec<_>>();
    let launches = lower(segment, &tuning, &tables, SCRATCH).unwrap();
    launches.iter().map(|launch| launch.kernel.source().0).collect()
}

#[test]
fn a_layer_of_few_tokens_is_eight_launches() {
    let joined =
        ["row_norm", "matvec_i8", "rope_append", "attention_split", "matvec_i8", "row_norm", "gate_up", "matvec_i8"];
    let found = sources(&segment(2, |space, bucket| layer(space, bucket, true)), Kernels::Gpu);
    // The product that makes the stream, with its x; then the layer, and the beginning of the next.
    assert_eq!(found[..2], ["quantise", "matvec_i8"]);
    assert_eq!(found[2..10], joined);
    assert_eq!(found[10..], ["row_norm", "matvec_i8"]);
}

#[test]
fn gate_and_up_quantise_what_nobody_left_as_quants() {
    let segment = segment(2, |space, bucket| {
        let x = space.slice(4 * 64 * 2);
        let both = space.op(OpKind::GateUp { width: 64, ff: 96 }, vec![x], bucket, None);
        let activate = OpKind::Activate { ff: 96, activation: Activation::Silu };
        let activate = space.op(activate, vec![both.output.clone().unwrap()], bucket, None);
        let down = space.op(OpKind::Down { ff: 96, width: 64 }, vec![activate.output.clone().unwrap()], bucket, None);
        vec![BoundOp { internal: true, ..both }, BoundOp { internal: true, ..activate }, down]
    });
    assert_eq!(sources(&segment, Kernels::Gpu), ["quantise", "gate_up", "matvec_i8"]);
}

#[test]
fn a_layer_by_matrix_instructions_makes_halves_where_values_arise() {
    let found = sources(&segment(16, |space, bucket| layer(space, bucket, true)), Kernels::Gpu);
    let split = "matmul_split";
    assert_eq!(found[..3], ["x_to_f16", split, "row_norm"]);
    assert_eq!(found[3..10], [split, split, split, "rope_append", "attention_matrix", "x_to_f16", split]);
    // The activation is part of what makes its halves.
    assert_eq!(found[10..15], ["row_norm", split, split, "x_to_f16", split]);
    assert_eq!(found[15..], ["row_norm", split, split, split]);
}

#[test]
fn values_that_others_read_are_written() {
    let found = sources(&segment(2, |space, bucket| layer(space, bucket, false)), Kernels::Gpu);
    assert!(!found.contains(&"gate_up") && !found.contains(&"rope_append"), "{found:?}");
    // The stream and its norm may still be one launch: both are written.
    assert!(found.contains(&"row_norm"));
    let software = sources(&segment(2, |space, bucket| layer(space, bucket, true)), Kernels::Software);
    assert!(!software.iter().any(|name| ["row_norm", "gate_up", "attention_split"].contains(name)), "{software:?}");
}

#[test]
fn prompts_attend_by_matrix_instructions() {
    let kernel = |tokens: usize, sequences: usize, dtype: DType, matrices: Matrices| {
        let mut segment = segment(tokens, |space, bucket| {
            let qkv = space.slice(4 * HEADS.qkv_width() * tokens);
            let attention = OpKind::Attention { heads: HEADS, scale: 1.0, window: None, softcap: None };
            vec![space.op(attention, vec![qkv], bucket, kv(0, 0).map(|kv| BoundKv { dtype, ..kv }))]
        });
        segment.bucket.sequences = sequences;
        let options = VulkanOptions { kernels: Kernels::Gpu, matrices, ..VulkanOptions::default() };
        let tuning = Tuning::new(&probe::example_facts(), options);
        lower(&segment, &tuning, &[], SCRATCH).unwrap()[0].kernel
    };
    assert_eq!(kernel(65, 2, DType::F16, Matrices::Auto), Kernel::AttentionMatrix(DType::F16));
    assert_eq!(kernel(16, 2, DType::Q8_0, Matrices::Auto), Kernel::AttentionMatrix(DType::Q8_0));
    // Steps of decoding, caches that halves do not hold, devices without the instructions.
    assert_eq!(kernel(65, 65, DType::F16, Matrices::Auto), Kernel::Attention(DType::F16));
    assert_eq!(kernel(65, 2, DType::F32, Matrices::Auto), Kernel::Attention(DType::F32));
    assert_eq!(kernel(65, 2, DType::F16, Matrices::Never), Kernel::Attention(DType::F16));
}

#[test]
fn a_product_reads_its_x_where_the_unit_before_left_it() {
    let segment = segment(2, |space, bucket| {
        let x = space.slice(4 * 64 * 2);
        let norm = space.op(OpKind::RmsNorm { width: 64, eps: 1e-6, weight_offset: 0.0 }, vec![x], bucket, None);
        let down = space.op(OpKind::Down { ff: 64, width: 64 }, vec![norm.output.clone().unwrap()], bucket, None);
        vec![BoundOp { internal: true, ..norm }, down]
    });
    let launches = launches(&segment, Kernels::Gpu);
    let [norm, down] = launches.as_slice() else { panic!("{launches:?}") };
    assert!(norm.dispatch.writes.iter().all(|range| down.dispatch.reads.contains(range)));
}
