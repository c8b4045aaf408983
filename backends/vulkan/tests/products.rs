//! Products and tables against the CPU's plain reference: every format and every kernel, at the edges of tiles.

mod case;
mod pick;

use biga_hal::{Backend, Choices, DType, Heads, OpKind};
use biga_vulkan::{Kernels, Matrices, VulkanBackend, VulkanOptions};
use case::{Case, Random, SUM, check};
use pick::devices;

/// The same where both factors are rounded to halves first, and the scales of a weight's parts before them.
const HALVES: f32 = 1e-3;

fn products(kernels: Kernels, matrices: Matrices) {
    for device in devices(VulkanOptions { kernels, matrices, ..VulkanOptions::default() }) {
        let mut random = Random(1);
        for dtype in DType::ALL {
            // Two rows of x never become halves, some devices' three and four do where lanes make the matrices, and
            // f32 weights never do.
            let halves = kernels == Kernels::Gpu && matrices != Matrices::Never && dtype != DType::F32;
            let few = if matches!(dtype, DType::Q4_0 | DType::Q8_0) { 2 } else { 4 };
            let tolerance = |bucket: usize| if halves && bucket > few { HALVES } else { SUM };
            let columns = if dtype.block_len() == 256 { 512 } else { 96 };
            let wide = columns * 3;
            for (n, bucket, columns) in
                [(1, 1, columns), (2, 3, columns), (4, 4, columns), (5, 17, wide), (37, 40, columns), (100, 100, wide)]
            {
                let kind = OpKind::Down { ff: columns, width: 71 };
                check(&device, &Case::new(&mut random, kind, dtype, n, bucket), tolerance(bucket));
            }
            let heads = Heads { n_heads: 3, n_kv_heads: 1, head_dim: 10 };
            for n in [1, 9] {
                let kind = OpKind::QkvProjection { width: columns, heads, bias: true };
                check(&device, &Case::new(&mut random, kind, dtype, n, n), tolerance(n));
                let kind = OpKind::Head { width: columns, vocab: 130, softcap: Some(30.0) };
                // The cap hides how large the sum was that the error belongs to.
                check(&device, &Case::new(&mut random, kind, dtype, n, n), 10.0 * tolerance(n));
                let kind = OpKind::GateUp { width: columns, ff: 33 };
                check(&device, &Case::new(&mut random, kind, dtype, n, n), tolerance(n));
            }
            let kind = OpKind::Embed { vocab: 40, width: columns, scale: 2.5 };
            check(&device, &Case::new(&mut random, kind, dtype, 7, 9), 1e-6);
        }
        // Widths that are no whole number of chunks.
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for n in [1, 11] {
                let kind = OpKind::OutputProjection { input: 45, output: 19, bias: true };
                check(&device, &Case::new(&mut random, kind, dtype, n, 12), HALVES);
            }
            let kind = OpKind::Embed { vocab: 40, width: 45, scale: 1.0 };
            check(&device, &Case::new(&mut random, kind, dtype, 3, 3), 1e-6);
        }
    }
}

#[test]
fn products_by_the_kernels_for_gpus() {
    products(Kernels::Gpu, Matrices::Auto);
}

#[test]
fn products_by_the_kernels_for_gpus_without_matrices() {
    products(Kernels::Gpu, Matrices::Never);
}

#[test]
fn products_by_the_kernels_for_drivers_on_the_cpu() {
    products(Kernels::Software, Matrices::Auto);
}

/// Steps of several streams: whole matrices of 8 rows of x and parts of them, runs of 256 columns and a part of one.
#[test]
fn some_rows_are_multiplied() {
    for device in devices(Kernels::Gpu) {
        let mut random = Random(9);
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            let columns = if dtype.block_len() == 256 { 2560 } else { 2336 };
            for (n, bucket) in [(2, 2), (3, 3), (7, 8), (8, 8), (11, 16)] {
                let kind = OpKind::Down { ff: columns, width: 71 };
                check(&device, &Case::new(&mut random, kind, dtype, n, bucket), HALVES);
            }
            let heads = Heads { n_heads: 4, n_kv_heads: 1, head_dim: 16 };
            let kind = OpKind::QkvProjection { width: columns, heads, bias: true };
            check(&device, &Case::new(&mut random, kind, dtype, 5, 6), HALVES);
        }
    }
}

/// Formats whose columns kernels take in different orders, in one op.
#[test]
fn formats_mix_within_an_op() {
    for device in devices(Kernels::Gpu) {
        let mut random = Random(8);
        let heads = Heads { n_heads: 3, n_kv_heads: 1, head_dim: 10 };
        let kind = OpKind::QkvProjection { width: 544, heads, bias: true };
        for formats in [[DType::Q8_0, DType::Q4_0, DType::F16], [DType::Q5_1, DType::BF16, DType::Q8_0]] {
            let mut case = Case::new(&mut random, kind.clone(), DType::Q4_0, 9, 9);
            for (i, (dtype, shape)) in formats.into_iter().zip(kind.weights()).enumerate() {
                case.weights[i] = dtype;
                case.weight_bytes[i] = random.weight(&shape, dtype);
            }
            check(&device, &case, HALVES);
        }
    }
}

/// Activations pass the range of halves, and one row's range is not another's.
#[test]
fn rows_of_any_magnitude_are_multiplied() {
    for device in devices(Kernels::Gpu) {
        let mut random = Random(6);
        let (columns, tokens) = (96, 20);
        let kind = OpKind::Down { ff: columns, width: 24 };
        let mut case = Case::new(&mut random, kind, DType::F16, tokens, tokens);
        case.by_row = true;
        for exponent in [-20, 20] {
            for (i, x) in case.inputs[0].iter_mut().enumerate() {
                // Rows of zeros among them.
                let row = (i / columns) as i32;
                *x = if row % 7 == 6 { 0.0 } else { random.float() * 10f32.powi(exponent + row % 3) };
            }
            check(&device, &case, HALVES);
        }
    }
}

/// Tiles that the table may choose on some device, in units of a matrix of 8 by 8.
#[test]
fn every_tile_computes_the_same() {
    for tile in [
        "8x8*4*2",
        "16x16*2*1",
        "16x16*4*0",
        "32x32/16x8/2",
        "32x64/32x32/0",
        "16x16@8*4*1",
        "32x8@16*1*2",
        "8x16@8*2*3",
    ] {
        let matrices = Matrices::Tile(tile.parse().unwrap());
        for device in devices(VulkanOptions { kernels: Kernels::Gpu, matrices, ..VulkanOptions::default() }) {
            let mut random = Random(7);
            // Fewer columns than the subgroups share, and more.
            for (dtype, ff) in [(DType::F16, 96), (DType::Q6_K, 1536)] {
                let kind = OpKind::Down { ff, width: 71 };
                check(&device, &Case::new(&mut random, kind, dtype, 37, 40), HALVES);
            }
        }
    }
}

#[test]
fn devices_compute_the_same_with_what_measuring_chose() {
    for device in devices(Kernels::Gpu) {
        let mut last = 0.0;
        let choices = device.tune(&mut |done| last = done).unwrap();
        println!("{}: {choices:?}", device.info().name);
        assert!(choices.is_empty() || (last - 1.0_f64).abs() < 1e-9, "stopped at {last}");
        let id = device.info().id;
        let damaged: Choices = choices.keys().map(|name| (name.clone(), "damaged".to_owned())).collect();
        for choices in [choices, damaged] {
            let backend = VulkanBackend::with_options(Kernels::Gpu.into());
            let device = backend.open_with(id, &choices).unwrap();
            // Enough rows that the chosen tile occupies a device of 16 compute units.
            let kind = OpKind::Down { ff: 96, width: 2100 };
            check(&device, &Case::new(&mut Random(5), kind, DType::Q4_0, 65, 65), HALVES);
        }
    }
}
