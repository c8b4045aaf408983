//! Every op but products and tables against the CPU's plain reference, over formats and sizes that stress the
//! kernels' edges.
//!
//! Tighter than the conformance suite, which allows for coarser devices. See `pick` for what takes part.

mod case;
mod pick;

use std::sync::Arc;

use biga_hal::{
    Activation, BoundOp, Bucket, Buffer, DType, Heads, Op, OpKind, RopeStyle, Rows, Segment, StepHeader, StepLayout,
    StepLimits,
};
use biga_vulkan::{Kernels, Matrices, VulkanOptions};
use case::{Case, Random, Rig, SUM, check};
use pick::devices;

#[test]
fn element_wise_ops() {
    for device in [Kernels::Gpu, Kernels::Software].into_iter().flat_map(devices) {
        let mut random = Random(2);
        let heads = Heads { n_heads: 6, n_kv_heads: 2, head_dim: 20 };
        let kinds = [
            OpKind::RmsNorm { width: 300, eps: 1e-5, weight_offset: 1.0 },
            OpKind::RmsNorm { width: 7, eps: 1e-6, weight_offset: 0.0 },
            OpKind::QkNorm { heads, eps: 1e-6, weight_offset: 0.0 },
            OpKind::Residual { width: 130 },
            OpKind::Activate { ff: 70, activation: Activation::Silu },
            OpKind::Activate { ff: 70, activation: Activation::GeluTanh },
            OpKind::SelectOutputs { width: 70 },
        ];
        for kind in kinds {
            for (n, bucket) in [(1, 1), (6, 9)] {
                let mut case = Case::new(&mut random, kind.clone(), DType::F32, n, bucket);
                check(&device, &case, SUM);
                if kind.in_place_input().is_some() {
                    case.in_place = true;
                    check(&device, &case, SUM);
                }
            }
        }
    }
}

#[test]
fn rope_turns_exactly_far_out() {
    for device in devices(Kernels::Auto) {
        let mut random = Random(3);
        for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
            for base in [10_000f32, 1_000_000.0] {
                let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 64 };
                let inv_freqs: Arc<[f32]> = (0..32).map(|i| base.powf(-(i as f32) / 32.0)).collect();
                let kind = OpKind::Rope { heads, style, inv_freqs };
                let mut case = Case::new(&mut random, kind, DType::F32, 8, 8);
                case.positions = vec![0, 1, 7, 1000, 32_767, 100_001, 131_071, 1_000_003];
                check(&device, &case, 1e-6);
                case.in_place = true;
                check(&device, &case, 1e-6);
            }
        }
    }
}

#[test]
fn the_cache_holds_what_the_reference_stores() {
    for device in devices(Kernels::Auto) {
        let mut random = Random(4);
        for dtype in DType::KV {
            let heads = Heads { n_heads: 4, n_kv_heads: 2, head_dim: 64 };
            let mut case = Case::new(&mut random, OpKind::KvAppend { heads }, DType::F32, 9, 11);
            case.kv = Some(dtype);
            case.positions = vec![0, 1, 2, 3, 4, 5, 17, 90, 159];
            case.slots = vec![0, 0, 0, 1, 1, 2, 2, 2, 0];
            // Bytes: a quant may round the other way where the quotient is a tie but for one bit.
            check(&device, &case, if dtype == DType::Q8_0 { 1.0 / 255.0 } else { 0.0 });
        }
    }
}

/// Where matrix instructions are used, q and the weights of positions are halves. A GPU's reciprocal is not
/// exact, so a quant may round the other way.
fn attention_tolerance(cache: DType) -> f32 {
    match cache {
        DType::Q8_0 => 3e-3,
        DType::F16 => 1e-3,
        _ => 3e-6,
    }
}

/// Steps of prompts: chunks after a filled cache, several sequences, whose tokens are no whole tiles.
#[test]
fn attention_of_prompts() {
    let options = |matrices| VulkanOptions { kernels: Kernels::Gpu, matrices, ..VulkanOptions::default() };
    for device in [Matrices::Auto, Matrices::Never].into_iter().flat_map(|matrices| devices(options(matrices))) {
        let mut random = Random(8);
        for (head_dim, n_heads, n_kv_heads) in
            [(64, 5, 5), (80, 3, 1), (96, 4, 2), (128, 10, 2), (128, 7, 1), (256, 8, 1), (16, 40, 1)]
        {
            let heads = Heads { n_heads, n_kv_heads, head_dim };
            let formats = [DType::F16, DType::Q8_0].into_iter().filter(|dtype| dtype.row_bytes(head_dim).is_some());
            for (dtype, (window, softcap)) in
                formats.flat_map(|dtype| [(None, None), (Some(33), Some(3.0))].map(|case| (dtype, case)))
            {
                let scale = 2.0 / (head_dim as f32).sqrt();
                let kind = OpKind::Attention { heads, scale, window, softcap };
                let tokens = 45;
                let mut case = Case::new(&mut random, kind, DType::F32, tokens, 50);
                case.kv = Some(dtype);
                case.bucket.sequences = 3;
                // Rows of q far from one another in magnitude.
                for (i, q) in case.inputs[0].iter_mut().enumerate() {
                    *q *= [1.0, 3.0, 1e-6, 0.0][i / head_dim % 4];
                }
                case.before = vec![
                    (0..50).map(|i| (0, i)).collect(),
                    (50..97).map(|i| (0, i)).collect(),
                    (0..33).map(|i| (1, i)).collect(),
                    (0..2).map(|i| (2, i)).collect(),
                ];
                // The end of a prompt, one from its begin, a single token, and again the first sequence.
                let runs = [(0, 66..97), (2, 0..2), (1, 22..33), (0, 3..4)];
                let rows: Vec<(u32, u32)> =
                    runs.into_iter().flat_map(|(slot, at)| at.map(move |p| (slot, p))).collect();
                assert_eq!(rows.len(), tokens);
                (case.slots, case.positions) = rows.into_iter().unzip();
                check(&device, &case, attention_tolerance(dtype));
            }
        }
    }
}

#[test]
fn attention_over_blocks_windows_and_sequences() {
    for device in [Kernels::Gpu, Kernels::Software].into_iter().flat_map(devices) {
        let mut random = Random(5);
        for dtype in DType::KV {
            for (head_dim, n_heads, n_kv_heads) in [(64, 6, 2), (32, 2, 2), (128, 4, 1), (256, 2, 1)] {
                let heads = Heads { n_heads, n_kv_heads, head_dim };
                for (window, softcap) in [(None, None), (Some(5), None), (None, Some(2.0)), (Some(64), Some(30.0))] {
                    let scale = 1.0 / (head_dim as f32).sqrt();
                    let kind = OpKind::Attention { heads, scale, window, softcap };
                    let mut case = Case::new(&mut random, kind, DType::F32, 12, 12);
                    case.kv = Some(dtype);
                    // Sequence 0 to position 131, sequence 1 to 9, sequence 2 to 0.
                    case.before = (0..11).map(|c| (0..12).map(|i| (0, 12 * c + i)).collect()).collect();
                    case.before.push((0..10).map(|i| (1, i)).collect());
                    case.before.push(vec![(2, 0)]);
                    case.positions = vec![0, 1, 3, 4, 63, 64, 130, 131, 0, 5, 9, 0];
                    case.slots = vec![0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2];
                    check(&device, &case, attention_tolerance(dtype));
                }
            }
        }
    }
}

/// Page-aligned memory of the host's own, as another owner's buffer.
#[derive(Debug)]
struct HostPages {
    memory: Vec<u8>,
    first: usize,
    size_bytes: usize,
}

impl HostPages {
    const ALIGNMENT: usize = 65536;

    fn new(values: &[f32]) -> HostPages {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let size_bytes = bytes.len().next_multiple_of(HostPages::ALIGNMENT);
        let mut memory = vec![0u8; size_bytes + HostPages::ALIGNMENT];
        let first = memory.as_ptr().align_offset(HostPages::ALIGNMENT);
        memory[first..first + bytes.len()].copy_from_slice(bytes);
        HostPages { memory, first, size_bytes }
    }
}

impl biga_hal::Allocation for HostPages {
    fn name(&self) -> &str {
        "host pages"
    }
    fn size_bytes(&self) -> u64 {
        self.size_bytes as u64
    }
    fn owner(&self) -> Option<biga_hal::DeviceId> {
        None
    }
    fn epoch(&self) -> biga_hal::Epoch {
        biga_hal::Epoch::default()
    }
    fn host_range(&self) -> Option<biga_hal::HostRange> {
        let address = self.memory[self.first..].as_ptr().expose_provenance();
        Some(biga_hal::HostRange { address, size_bytes: self.size_bytes, writable: true })
    }
    fn device_address(&self) -> u64 {
        0
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

#[test]
fn host_memory_is_read_where_it_lies() {
    for device in devices(Kernels::Auto) {
        let rig = Rig { device: Arc::clone(&device) };
        let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
        let imported = match device.import(&Buffer::new(HostPages::new(&values))) {
            Ok(imported) => imported,
            Err(biga_hal::Error::NotImportable { cause, .. }) => {
                println!("skipped: {cause}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let limits = StepLimits { max_tokens: 2, max_outputs: 1, max_slots: 1, max_blocks: 1, n_tables: 1 };
        let step_layout = StepLayout::new(limits).unwrap();
        let step = rig.buffer("step", step_layout.size_bytes);
        rig.fill(
            &step,
            0,
            &StepHeader { n_tokens: 2, n_sequences: 1, n_outputs: 0, ..StepHeader::default() }.to_bytes(),
        );
        let ones = rig.floats(&[1.0; 128]);
        let output = rig.buffer("output", 512);
        let op = BoundOp {
            op: Arc::new(Op { kind: OpKind::Residual { width: 64 }, layer: None }),
            rows: Rows::Tokens,
            inputs: vec![imported.slice(0, 512).unwrap(), ones.whole()],
            output: Some(output.whole()),
            weights: Vec::new(),
            kv: None,
            internal: false,
        };
        let bucket = Bucket { tokens: 2, sequences: 1, outputs: 1 };
        rig.run(&Segment { name: "import".into(), bucket, ops: vec![op], step: step.whole(), step_layout });
        let mut seen = [0f32; 128];
        device.read(&output.whole(), bytemuck::cast_slice_mut(&mut seen)).unwrap();
        assert!(seen.iter().zip(&values).all(|(seen, value)| *seen == value + 1.0), "{seen:?}");
    }
}

#[test]
fn an_unaligned_import_is_refused() {
    for device in devices(Kernels::Auto) {
        let mut pages = HostPages::new(&[1.0; 64]);
        pages.first += 64;
        pages.size_bytes = 4096;
        let refused = device.import(&Buffer::new(pages));
        assert!(matches!(refused, Err(biga_hal::Error::NotImportable { .. })), "{refused:?}");
    }
}
