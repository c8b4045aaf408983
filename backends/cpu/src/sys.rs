//! All of the crate's unsafe code.
//!
//! # Safety
//! Three things make it sound, and each is established outside the hot path:
//! - a compiled [`crate::executable::Program`] holds every buffer that its calls name, and every range was
//!   checked against its buffer when the program was compiled (`executable.rs`);
//! - what a step brings (token ids, positions, slots, output rows, block addresses) was copied out of the
//!   step buffer and checked before the run (`frame.rs`), and the registry of buffers stays read-locked
//!   until the run ends, so that no block disappears under it;
//! - within a call the workers write disjoint ranges, and between calls they meet at a barrier.
//!
//! Bytes that another device or the host writes while a submission runs are the caller's mistake: fences
//! order them, as the contract says.
#![allow(unsafe_code, reason = "the one place of this crate that may")]

/// Compiles the plain kernels of `kernels/` for one instruction set and lists them with its tiles.
macro_rules! kernel_set {
    ($lanes:ty, $unpack:ident, $fused:literal, $(#[$features:meta])?) => {
        /// The set.
        pub(crate) static SET: crate::sys::set::KernelSet = crate::sys::set::KernelSet {
            quantise,
            unpack: $unpack,
            expand,
            tile_i8,
            tile_f32,
            rms_norm,
            activate,
            rope,
            attention,
        };

        $(#[$features])?
        fn quantise(x: &[f32], layout: &crate::kernels::layout::Layout, out: &mut [f32]) {
            crate::kernels::quantise::quantise(x, layout, out);
        }

        $(#[$features])?
        fn unpack_plain(dtype: biga_hal::DType, bytes: &[u8], layout: &crate::kernels::layout::Layout, out: &mut [f32]) {
            crate::kernels::unpack::unpack(dtype, bytes, layout, out);
        }

        $(#[$features])?
        fn expand(dtype: biga_hal::DType, bytes: &[u8], out: &mut [f32]) {
            crate::kernels::unpack::expand::<$lanes>(dtype, bytes, out);
        }

        $(#[$features])?
        fn rms_norm(x: &mut [f32], weight: &[[u8; 4]], eps: f32, offset: f32) {
            crate::kernels::rows::rms_norm::<$fused>(x, weight, eps, offset);
        }

        $(#[$features])?
        fn activate(activation: biga_hal::Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
            crate::kernels::rows::activate::<$fused>(activation, gate, up, y);
        }

        $(#[$features])?
        fn rope(row: &mut [f32], head_dim: usize, style: biga_hal::RopeStyle, angles: &[f32]) {
            crate::kernels::rows::rope(row, head_dim, style, angles);
        }

        $(#[$features])?
        fn attention(unit: &crate::kernels::attention::Unit<'_>, queries: &mut [f32], scratch: &mut [f32]) {
            crate::kernels::attention::attention::<$lanes, $fused>(unit, queries, scratch);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod memory;
mod portable;
pub(crate) mod run;
mod set;
pub(crate) mod system;

use crate::kernels::Kernels;
use set::KernelSet;

/// The functions of a resolved set; `None` for the reference, which has a path of its own.
pub(crate) fn kernel_set(kernels: Kernels) -> Option<&'static KernelSet> {
    match kernels {
        Kernels::Reference => None,
        #[cfg(target_arch = "x86_64")]
        Kernels::Avx2 => Some(&avx2::SET),
        #[cfg(target_arch = "x86_64")]
        Kernels::Avx512 => Some(&avx512::SET),
        _ => Some(&portable::SET),
    }
}
