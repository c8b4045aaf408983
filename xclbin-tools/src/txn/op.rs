//! The kinds of operations.

use super::Version;
use crate::array::Address;
use crate::words::Words;

/// One operation, with what stands in its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// What it does.
    pub op: Op<'a>,
    /// What stands where the format says nothing.
    pub reserved: Reserved<'a>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Writes a register.
    Write {
        /// Which.
        address: Address,
        /// What.
        value: u32,
    },
    /// Writes consecutive words.
    BlockWrite {
        /// Of the first word.
        address: Address,
        /// The words.
        data: Words<'a>,
    },
    /// Writes the bits of a register that `mask` sets.
    MaskWrite {
        /// Which.
        address: Address,
        /// Their values.
        value: u32,
        /// The bits.
        mask: u32,
    },
    /// Waits until the bits of a register that `mask` sets have the values of `value`.
    MaskPoll {
        /// Which.
        address: Address,
        /// Their values.
        value: u32,
        /// The bits.
        mask: u32,
    },
    /// As [`Op::MaskPoll`], without giving the processor away meanwhile.
    MaskPollBusy {
        /// Which.
        address: Address,
        /// Their values.
        value: u32,
        /// The bits.
        mask: u32,
    },
    /// Nothing.
    Noop,
    /// The array may be given to another context here.
    Preempt {
        /// What is saved: 0 nothing, 1 memory tiles, 2 core tiles, 3 registers.
        level: u8,
    },
    /// Configures the array with a PDI.
    LoadPdi {
        /// Of the PDI.
        id: u16,
        /// Of the PDI.
        size_bytes: u32,
        /// In the device's view of memory; patched at launch.
        address: u64,
    },
    /// Loads program memories with a control packet by the operations that follow.
    LoadPm {
        /// Of the control packet.
        id: u32,
        /// How many operations follow that belong to it; 24 bits.
        n_operations: u32,
    },
    /// Makes a scratchpad in memory.
    CreateScratchpad {
        /// 0: a state table.
        usage: u8,
        /// Of the scratchpad.
        size_bytes: u32,
        /// Where in the buffer that is patched in at launch.
        offset: u64,
    },
    /// Changes an entry of the state table.
    UpdateState {
        /// Of the entry.
        index: u8,
        /// 0 multiply, 1 add, 2 subtract.
        function: u8,
        /// The function's operand.
        argument: u32,
    },
    /// Writes a register with a function of an entry of the state table.
    UpdateRegister {
        /// Which register.
        address: Address,
        /// Of the entry.
        index: u8,
        /// 0 multiply, 1 add, 2 subtract.
        function: u8,
        /// The function's operand.
        argument: u32,
    },
    /// Writes the state table back to its scratchpad.
    UpdateScratch,
    /// Waits for task completion tokens.
    Sync(Sync),
    /// Adds the address of a buffer to a DMA buffer descriptor.
    Patch {
        /// The register of the descriptor that holds the address's low bits.
        address: Address,
        /// The buffer, counted from 0 (`bo0`); 8 bits in version 1.0.
        argument: u64,
        /// Added to the buffer's address.
        offset_bytes: u64,
    },
    /// Records the time.
    Timer {
        /// Of the record.
        id: u32,
    },
    /// Waits for tokens of several columns.
    MergeSync {
        /// How many tokens.
        n_tokens: u8,
        /// How many columns.
        n_columns: u8,
    },
    /// An operation of the custom range (128 to 255) whose payload has no form known here.
    Custom {
        /// Its kind.
        code: u8,
        /// What follows its size.
        payload: Words<'a>,
    },
}

/// A wait for task completion tokens (TCT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Of the first tile.
    pub column: u8,
    /// Of the first tile.
    pub row: u8,
    /// Of the DMA channel: 0 to memory (S2MM), 1 from memory (MM2S).
    pub direction: u8,
    /// The DMA channel.
    pub channel: u8,
    /// How many columns from the first tile on.
    pub n_columns: u8,
    /// How many rows from the first tile on.
    pub n_rows: u8,
}

/// What stands where the format says nothing: padding, and bytes between the last field and the operation's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved<'a> {
    /// Padding in the order of the file, shifted to bit 0: the first is what the word of the operation's kind has
    /// beside it. As many as the kind has, the rest zero. The upper halves of version 0.1's 64-bit addresses count as
    /// padding: the array has 32 bits of them.
    pub padding: [u32; MAX_PADDING],
    /// Words after the last field.
    pub tail: Words<'a>,
    /// Whether an [`Op::Patch`] of version 1.0 has the fields of version 0.1, as those of older releases of aie-rt have.
    pub old_layout: bool,
}

/// The most paddings that a kind of operation has.
pub const MAX_PADDING: usize = 6;

impl Reserved<'_> {
    /// As the usual writer of this kind leaves it: zeros, and a tail where aie-rt, the one writer of polls, has the
    /// padding of its structure (`Xilinx/aie-rt:driver/src/common/xaie_txn.h`, `XAie_MaskPoll32Hdr`).
    #[must_use]
    pub fn usual(version: Version, op: &Op<'_>) -> Reserved<'static> {
        let polls = matches!(op, Op::MaskPoll { .. } | Op::MaskPollBusy { .. });
        let tail = if polls && version == Version::V0_1 { Words::new(&[0; 4]) } else { Words::default() };
        Reserved { tail, ..Reserved::default() }
    }
}

/// The byte that says an operation's kind.
pub(crate) mod code {
    pub(crate) const WRITE: u8 = 0;
    pub(crate) const BLOCK_WRITE: u8 = 1;
    pub(crate) const MASK_WRITE: u8 = 3;
    pub(crate) const MASK_POLL: u8 = 4;
    pub(crate) const NOOP: u8 = 5;
    pub(crate) const PREEMPT: u8 = 6;
    pub(crate) const MASK_POLL_BUSY: u8 = 7;
    pub(crate) const LOAD_PDI: u8 = 8;
    pub(crate) const LOAD_PM: u8 = 9;
    pub(crate) const CREATE_SCRATCHPAD: u8 = 10;
    pub(crate) const UPDATE_STATE: u8 = 11;
    pub(crate) const UPDATE_REGISTER: u8 = 12;
    pub(crate) const UPDATE_SCRATCH: u8 = 13;
    pub(crate) const CUSTOM: u8 = 128;
    pub(crate) const SYNC: u8 = 128;
    pub(crate) const PATCH: u8 = 129;
    pub(crate) const TIMER: u8 = 131;
    pub(crate) const MERGE_SYNC: u8 = 132;
}
