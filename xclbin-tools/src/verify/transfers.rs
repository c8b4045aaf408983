//! Rules for the transfers of an instruction stream between host memory and the array: every started descriptor was
//! written and has its address, every wait can end, and every result is waited for.
//!
//! A write to a shim channel's queue starts the descriptor of its bits 3..0 and, by bit 31, asks for a token when the
//! transfer is done (AM025, `DMA_S2MM_0_Task_Queue`); a sync takes one token of its channel. Channels of memory and
//! core tiles are left alone: images start those.

use std::{collections::BTreeMap, fmt};

use super::{Findings, rule::rules};
use crate::{
    array::{Address, Direction, Register, TileKind},
    txn::Sync,
    words::Words,
};

rules! {
    NEVER: Error "sync-without-token" {
        asks: "a sync for a shim tile's channel follows a start of that channel which asks for a token",
        effect: "the token never comes: the launch is killed after a timeout",
        mend: "wait for a channel that the stream starts, once for each start, and set bit 31 in what starts it",
        source: "Xilinx/mlir-aie:lib/Dialect/AIEX/Transforms/AIEDmaToNpu.cpp",
    }
    NO_WAIT: Warning "stream-no-wait" {
        asks: "a stream waits for its transfers to host memory after it has started them",
        effect: "the launch is reported as done before results are in memory: buffers hold old or partial data",
        mend: "end with a sync for each channel that writes host memory",
        source: "Xilinx/mlir-aie:lib/Dialect/AIEX/IR/AIEXDialect.cpp",
    }
    UNWRITTEN: Warning "descriptor-unwritten" {
        asks: "a shim tile's descriptor that a stream patches or starts is written by the stream before",
        effect: "the DMA takes the descriptor that an image or an earlier launch left: other bytes than meant, or none",
        mend: "write the descriptor in front of its patch; check its number and column",
        source: "https://docs.amd.com/r/en-US/am025-versal-aie-ml-register-reference",
    }
    UNPATCHED: Error "descriptor-unpatched" {
        asks: "a shim tile's descriptor has its buffer's address patched in between its write and its start",
        effect: "the DMA takes what the stream has for an address: it faults, or moves memory of somebody else",
        mend: "patch word 1 of the descriptor after the write that sets it and before the write that starts it",
        source: "Xilinx/mlir-aie:lib/Dialect/AIEX/Transforms/AIEDmaToNpu.cpp",
    }
}

/// Bit of a queue's word that asks for a token.
const TOKEN: u32 = 1 << 31;

/// What the operations so far amount to.
#[derive(Default)]
pub(super) struct Transfers {
    channels: BTreeMap<Channel, Started>,
    descriptors: BTreeMap<(u8, u8), Descriptor>,
    /// Whether a wait came that does not say which tokens it takes.
    is_merged: bool,
}

/// A DMA channel of a shim tile.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Channel {
    column: u8,
    direction: Direction,
    index: u8,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of column {}", self.direction, self.index, self.column)
    }
}

/// What a channel was given.
#[derive(Default)]
struct Started {
    /// Tokens that were asked for, in all and not waited for yet.
    asked: u32,
    tokens: u32,
    /// The last start that nobody waited for.
    unfinished: Option<u32>,
    /// Whether that one asked for a token.
    is_token: bool,
}

/// What a descriptor of a shim tile holds.
#[derive(Clone, Copy, Default)]
struct Descriptor {
    is_written: bool,
    /// Since its address was written last.
    is_patched: bool,
    /// Whether it was reported.
    is_known: bool,
    /// The first patch.
    patch: Option<u32>,
    /// Of word 7: bit 26 says that bits 30..27 name the descriptor that follows.
    last_word: u32,
}

impl Descriptor {
    fn write(&mut self, word: u8, value: Option<u32>) {
        self.is_written = true;
        match (word, value) {
            // What firmware computes or sets in part counts as an address.
            (1, value) => self.is_patched = value.is_none(),
            (7, Some(value)) => self.last_word = value,
            _ => {}
        }
    }

    fn next(&self) -> Option<u8> {
        let index = u8::try_from(self.last_word >> 27 & 0xf).ok()?;
        (self.last_word >> 26 & 1 == 1).then_some(index)
    }
}

/// Where an operation stands.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) index: u32,
    pub(super) place: &'a dyn fmt::Display,
}

impl Transfers {
    /// A write to a register; without `value` firmware computes it, or only some bits are written.
    pub(super) fn write(&mut self, to: (Address, Register), value: Option<u32>, at: At<'_>, found: &mut Findings) {
        let (Address { column, .. }, register) = to;
        if to.0.tile_kind() != Some(TileKind::Shim) {
            return;
        }
        match register {
            Register::BufferDescriptor { index, word } => {
                self.descriptors.entry((column, index)).or_default().write(word, value);
            }
            Register::Queue(direction, index) => {
                self.start(Channel { column, direction, index }, value, at, found);
            }
            _ => {}
        }
    }

    /// A block from a register on.
    pub(super) fn block(&mut self, to: (Address, Register), data: Words<'_>, at: At<'_>, found: &mut Findings) {
        if to.0.tile_kind() != Some(TileKind::Shim) {
            return;
        }
        let mut to = to;
        for value in data.iter() {
            self.write(to, Some(value), at, found);
            let offset = to.0.offset.saturating_add(4);
            let address = Address { offset, ..to.0 };
            let register = match to.1 {
                Register::BufferDescriptor { index, word } if word < 7 => {
                    Some(Register::BufferDescriptor { index, word: word.saturating_add(1) })
                }
                _ => address.register(),
            };
            let Some(register) = register else { return };
            to = (address, register);
        }
    }

    /// A patch of a descriptor's address.
    pub(super) fn patch(&mut self, (address, register): (Address, Register), at: At<'_>) {
        if let (Some(TileKind::Shim), Register::BufferDescriptor { index, .. }) = (address.tile_kind(), register) {
            let descriptor = self.descriptors.entry((address.column, index)).or_default();
            descriptor.is_patched = true;
            descriptor.patch.get_or_insert(at.index);
        }
    }

    fn start(&mut self, channel: Channel, value: Option<u32>, at: At<'_>, found: &mut Findings) {
        let started = self.channels.entry(channel).or_default();
        started.is_token = value.is_none_or(|value| value & TOKEN != 0);
        started.unfinished = Some(at.index);
        if started.is_token {
            started.asked = started.asked.saturating_add(1);
            started.tokens = started.tokens.saturating_add(1);
        }
        let mut next = value.and_then(|value| u8::try_from(value & 0xf).ok());
        // A chain of descriptors is as long as there are any; it may be a ring.
        for _ in 0..TileKind::Shim.n_buffer_descriptors() {
            let Some(index) = next else { return };
            next = self.check_descriptor(channel, index, at, found);
        }
    }

    /// Checks a descriptor that is started; returns the one that follows.
    fn check_descriptor(&mut self, channel: Channel, index: u8, at: At<'_>, found: &mut Findings) -> Option<u8> {
        let descriptor = self.descriptors.entry((channel.column, index)).or_default();
        let value = format_args!("{channel} starts descriptor {index}");
        if !descriptor.is_written && !descriptor.is_known {
            found.add(&UNWRITTEN, at.place, value, "no operation before writes it");
        } else if descriptor.is_written && !descriptor.is_patched && !descriptor.is_known {
            found.add(&UNPATCHED, at.place, value, "no operation since its write patches its address");
        }
        descriptor.is_known |= !descriptor.is_written || !descriptor.is_patched;
        descriptor.next().filter(|_| descriptor.is_written)
    }

    /// A wait for a token of each tile; those of other rows than the shim tiles' are not known.
    pub(super) fn sync(&mut self, sync: Sync, at: At<'_>, found: &mut Findings) {
        let direction = if sync.direction == 0 { Direction::S2mm } else { Direction::Mm2s };
        if sync.row != 0 {
            return self.poll();
        }
        for column in sync.column..sync.column.saturating_add(sync.n_columns) {
            let channel = Channel { column, direction, index: sync.channel };
            let started = self.channels.get_mut(&channel);
            if let Some(started) = started {
                let had_token = started.tokens > 0;
                started.tokens = started.tokens.saturating_sub(1);
                if started.tokens == 0 {
                    started.unfinished = None;
                }
                if had_token {
                    continue;
                }
            }
            let bound = match self.channels.get(&channel) {
                None => "no operation before starts the channel",
                Some(Started { asked: 0, .. }) => "what starts the channel asks for no token: bit 31 is clear",
                Some(_) => "syncs before wait for all tokens that were asked for",
            };
            if !self.is_merged {
                found.add(&NEVER, at.place, format_args!("a token of {channel}"), bound);
            }
        }
        // What asks for no token, as trace does, is taken to be done when results are.
        self.channels.values_mut().filter(|started| !started.is_token).for_each(|started| started.unfinished = None);
    }

    /// A wait for something else, which may stand for any transfer.
    pub(super) fn poll(&mut self) {
        self.channels.values_mut().for_each(|started| started.unfinished = None);
    }

    /// A wait for some tokens.
    pub(super) fn merge(&mut self) {
        self.is_merged = true;
        self.poll();
    }

    /// What is left at the stream's end.
    pub(super) fn finish(&self, stream: &dyn fmt::Display, found: &mut Findings) {
        for (channel, started) in self.channels.iter().filter(|(channel, _)| channel.direction == Direction::S2mm) {
            if let Some(index) = started.unfinished {
                let place = format_args!("{stream}, operation {index}");
                found.add(&NO_WAIT, place, format_args!("starts {channel}"), "no operation behind it waits for it");
            }
        }
        let unwritten = self.descriptors.iter().filter(|(_, it)| !it.is_written && !it.is_known);
        for ((column, index), descriptor) in unwritten {
            let Some(patch) = descriptor.patch else { continue };
            let place = format_args!("{stream}, operation {patch}");
            let value = format_args!("patches descriptor {index} of column {column}");
            found.add(&UNWRITTEN, place, value, "no operation writes it");
        }
    }
}
