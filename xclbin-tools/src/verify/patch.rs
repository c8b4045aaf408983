//! Rules for patches: what puts the addresses of a launch's buffers into descriptors.

use super::{Findings, kernels::Slots, rule::rules, stream::Context};
use crate::{
    array::{Address, Register, TileKind},
    txn::{DDR_APERTURE, KERNEL_ARGUMENTS_BEFORE, TRANSLATED_ARGUMENTS},
};

rules! {
    ARGUMENT: Error "patch-argument" {
        asks: "a patch names a buffer that the kernel declares",
        effect: "the firmware takes what stands behind the arguments for an address: the DMA reads or overwrites \
            memory of somebody else, or faults",
        mend: "declare the buffer as an argument of the kernel, or patch with one that is declared",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    SCALAR: Error "patch-scalar" {
        asks: "the argument that a patch names is a buffer",
        effect: "the firmware takes a number for an address: the DMA reads or overwrites memory of somebody else",
        mend: "patch with a buffer, or declare the argument as one (a pointer)",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    KERNEL: Warning "patch-kernel" {
        asks: "a stream that is given without its kernel's name patches buffers that every kernel declares",
        effect: "launched with a kernel that lacks the buffer, it moves memory of somebody else, or faults",
        mend: "say which kernel it is launched with: --insts KERNEL=FILE",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    REGISTER: Error "patch-register" {
        asks: "a patch goes to word 1 of a shim tile's buffer descriptor, where the address is",
        effect: "the address lands in another register, and the transfer moves bytes from where it was before",
        mend: "patch offset 0x1d004 + 32 * descriptor of a shim tile",
        source: "Xilinx/mlir-aie:lib/Dialect/AIEX/Transforms/AIEDmaToNpu.cpp",
    }
    WINDOW: Error "patch-aperture" {
        asks: "patches of the sixth buffer and later ones add 0x80000000, those of the first five do not",
        effect: "firmware adds the window of host memory to the first five alone: the DMA reads or writes outside \
            of host memory, faults, or moves garbage",
        mend: "add 0x80000000 from buffer 5 on and nowhere else (xclbin txn patch --fold); for an ELF nowhere (--unfold)",
        source: "Xilinx/mlir-aie:lib/Targets/AIETargetNPU.cpp",
    }
    OFFSET: Error "patch-alignment" {
        asks: "what a patch adds to a buffer's address is a multiple of 4",
        effect: "a descriptor's address counts words: the lowest two bits are dropped or change another field, and \
            the transfer starts up to 3 bytes before its place",
        mend: "start each transfer at a whole word of its buffer",
        source: "https://docs.amd.com/r/en-US/am025-versal-aie-ml-register-reference",
    }
}

/// Checks a patch, which reaches a register unless that was found to be wrong.
pub(super) fn check(
    reached: Option<(Address, Register)>,
    argument: u64,
    offset_bytes: u64,
    context: Context<'_>,
    place: &dyn std::fmt::Display,
    found: &mut Findings,
) {
    if let Some((address, register)) = reached {
        let is_address_word = matches!(register, Register::BufferDescriptor { word: 1, .. });
        if !is_address_word || address.tile_kind() != Some(TileKind::Shim) {
            found.add(&REGISTER, place, format_args!("{register}"), "word 1 of a shim tile's buffer descriptor");
        }
    }
    if let Some(slots) = context.slots {
        check_argument(argument, slots, place, found);
    }
    if !offset_bytes.is_multiple_of(4) {
        found.add(&OFFSET, place, format_args!("offset {offset_bytes:#x}"), "a multiple of 4");
    }
    // In an ELF relocations patch, and the operation does nothing.
    let wanted = argument >= TRANSLATED_ARGUMENTS;
    if !context.is_in_elf && (offset_bytes >= DDR_APERTURE) != wanted {
        let bound = match wanted {
            true => "from buffer 5 on, 0x80000000 is added",
            false => "firmware adds 0x80000000 to buffers 0 to 4 itself",
        };
        found.add(&WINDOW, place, format_args!("buffer {argument} with offset {offset_bytes:#x}"), bound);
    }
}

fn check_argument(argument: u64, slots: &Slots<'_>, place: &dyn std::fmt::Display, found: &mut Findings) {
    let declares = || match slots.kernel {
        Some(name) => format!("kernel {name} declares"),
        None if slots.n_kernels > 1 => "every kernel declares".to_owned(),
        None => "the kernel declares".to_owned(),
    };
    let slot = argument.saturating_add(KERNEL_ARGUMENTS_BEFORE);
    let value = format_args!("buffer {argument} (argument {slot} of the kernel)");
    let index = usize::try_from(argument).unwrap_or(usize::MAX);
    let Some(slot) = slots.slots.get(index) else {
        let count = slots.slots.len();
        let bound = format_args!("{} at most {count} behind opcode, instr and ninstr", declares());
        return found.add(&ARGUMENT, place, value, bound);
    };
    if slot.n_buffers == 0 {
        found.add(&SCALAR, place, value, format_args!("{} a number there ({})", declares(), slot.name));
    } else if slot.n_buffers < slots.n_kernels {
        let bound = format_args!("{} of {} kernels declare a buffer there", slot.n_buffers, slots.n_kernels);
        found.add(&KERNEL, place, value, bound);
    }
}
