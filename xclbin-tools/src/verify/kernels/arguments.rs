//! Rules for a kernel's arguments: they are a table of offsets that firmware knows by heart.

use std::collections::HashSet;

use super::super::{Findings, rule::rules};
use crate::section::{
    EmbeddedMetadata,
    embedded_metadata::{Argument, Kernel},
};

rules! {
    ABI: Error "argument-abi" {
        asks: "a kernel's arguments start with opcode (8 bytes at 0), instructions (a buffer at 8) and their count \
            (at 0x10), or are those of the older layout with instructions at 0x28",
        effect: "firmware takes another word for the address of the instructions: a hang",
        mend: "declare opcode, instr and ninstr first, at offsets 0x00, 0x08 and 0x10",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    OVERLAP: Error "argument-overlap" {
        asks: "no two arguments share bytes",
        effect: "setting one argument changes the other: a buffer's address is wrong, and memory is overwritten",
        mend: "give each argument an offset behind the one before: buffers from 0x14 on, every 8 bytes",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    TOO_FEW: Error "argument-too-few" {
        asks: "a kernel declares five buffers at least",
        effect: "in a chain of commands firmware reads five addresses: those that are missing come from elsewhere",
        mend: "declare bo0 to bo4, used or not",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    TOO_MANY: Error "argument-too-many" {
        asks: "a kernel declares 16 buffers at most",
        effect: "a command has no room for more: launches fail, or the last buffers are not patched",
        mend: "put several tensors into one buffer at offsets",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    TWICE: Error "argument-duplicate" {
        asks: "no two arguments of a kernel have one name or one id",
        effect: "the runtime merges arguments of one id: a buffer is set in the wrong place",
        mend: "number arguments from 0, and name each differently",
        source: "Xilinx/XRT:src/runtime_src/core/common/xclbin_parser.cpp",
    }
    SIZE: Error "argument-size" {
        asks: "a buffer takes 8 bytes",
        effect: "half an address is written: the DMA reads or overwrites memory of somebody else",
        mend: "set the argument's size to 8",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
}

/// What kernels declare behind opcode, instructions and their count: what the patches of a stream count.
pub(in super::super) struct Slots<'a> {
    /// The kernel that is meant; none for all.
    pub(in super::super) kernel: Option<&'a str>,
    /// How many kernels are meant.
    pub(in super::super) n_kernels: usize,
    /// In their order.
    pub(in super::super) slots: Vec<Slot<'a>>,
}

/// An argument of several kernels.
pub(in super::super) struct Slot<'a> {
    /// How the first kernel that has it calls it.
    pub(in super::super) name: &'a str,
    /// How many kernels have a buffer there.
    pub(in super::super) n_buffers: usize,
}

impl<'a> Slots<'a> {
    /// Of one kernel, or of all; none where no kernel takes an instruction stream.
    pub(in super::super) fn of(metadata: &'a EmbeddedMetadata, name: Option<&'a str>) -> Option<Slots<'a>> {
        let mut all = Slots { kernel: name, n_kernels: 0, slots: Vec::new() };
        let is_meant = |kernel: &&Kernel| name.is_none_or(|name| kernel.name == name);
        for kernel in metadata.kernels.iter().filter(is_meant).filter(|kernel| Layout::of(kernel) == Layout::Stream) {
            all.n_kernels = all.n_kernels.saturating_add(1);
            for (index, argument) in slots(kernel).enumerate() {
                if all.slots.len() == index {
                    all.slots.push(Slot { name: &argument.name, n_buffers: 0 });
                }
                if let Some(slot) = all.slots.get_mut(index).filter(|_| holds_address(argument)) {
                    slot.n_buffers = slot.n_buffers.saturating_add(1);
                }
            }
        }
        Some(all).filter(|all| all.n_kernels > 0)
    }
}

/// How a kernel's arguments lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Opcode, instructions, their count, buffers.
    Stream,
    /// Opcode, five buffers with the instructions behind the fourth: kernels of before instruction streams.
    Older,
    /// Pre- and postprocessing: instructions, their count, buffers.
    PrePost,
    /// None of them.
    Other,
}

const FUNCTIONAL_PRE_POST: u64 = 1;

impl Layout {
    fn of(kernel: &Kernel) -> Layout {
        let at = |offset: u64, is_buffer: bool, size_bytes: u64| {
            kernel.arguments.iter().any(|argument| {
                (argument.offset, argument.is_buffer(), argument.size_bytes) == (offset, is_buffer, size_bytes)
            })
        };
        let has_opcode = at(0, false, 8);
        match kernel.extended_data.map(|data| data.functional) {
            Some(FUNCTIONAL_PRE_POST) => Layout::PrePost,
            Some(_) if has_opcode && at(0x28, true, 8) && at(0x30, false, 4) => Layout::Older,
            Some(_) if has_opcode && at(8, true, 8) && at(0x10, false, 4) => Layout::Stream,
            _ => Layout::Other,
        }
    }
}

/// What stands behind opcode, instructions and their count.
fn slots(kernel: &Kernel) -> impl Iterator<Item = &Argument> {
    kernel.arguments.iter().filter(|argument| argument.offset >= 0x14)
}

/// Whether a buffer's address can be there: AMD's packages declare addresses as numbers of 64 bits.
fn holds_address(argument: &Argument) -> bool {
    argument.is_buffer() || argument.size_bytes == 8
}

/// Checks the arguments of a kernel on an NPU.
pub(super) fn check(kernel: &Kernel, found: &mut Findings) {
    let place = super::place(kernel);
    check_table(kernel, &place, found);
    match Layout::of(kernel) {
        Layout::Other => {
            let first: Vec<String> = kernel.arguments.iter().take(3).map(shown).collect();
            found.add(&ABI, place, first.join(", "), "opcode at 0, instructions at 8, their count at 0x10");
        }
        Layout::Stream => {
            let count = slots(kernel).filter(|argument| holds_address(argument)).count();
            if count < 5 {
                found.add(&TOO_FEW, &place, format_args!("{count} buffers"), "at least 5");
            }
            if count > 16 {
                found.add(&TOO_MANY, &place, format_args!("{count} buffers"), "at most 16");
            }
        }
        Layout::Older | Layout::PrePost => {}
    }
}

fn check_table(kernel: &Kernel, place: &str, found: &mut Findings) {
    let (mut names, mut ids) = (HashSet::new(), HashSet::new());
    for argument in &kernel.arguments {
        if !names.insert(&argument.name) || !ids.insert(argument.id) {
            found.add(&TWICE, place, shown(argument), format_args!("id {} or the name stands before", argument.id));
        }
        if argument.is_buffer() && argument.size_bytes != 8 {
            found.add(&SIZE, place, format_args!("{}, {} bytes", shown(argument), argument.size_bytes), "8 bytes");
        }
    }
    let mut by_offset: Vec<&Argument> = kernel.arguments.iter().collect();
    by_offset.sort_by_key(|argument| argument.offset);
    for pair in by_offset.windows(2) {
        let [before, after] = pair else { continue };
        let end = before.offset.saturating_add(before.size_bytes);
        if after.offset < end {
            found.add(&OVERLAP, place, shown(after), format_args!("{} ends at {end:#x}", before.name));
        }
    }
}

fn shown(argument: &Argument) -> String {
    format!("{} at {:#x}", argument.name, argument.offset)
}
