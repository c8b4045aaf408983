//! What one tile holds.

use std::collections::BTreeMap;

use super::{BufferDescriptor, Connection, Spans, descriptor, route};
use crate::array::{Direction, Register, TileKind, contiguous_bytes};

/// A tile that was written to.
#[derive(Clone, Debug)]
pub struct Tile {
    kind: TileKind,
    /// By offset; memories apart.
    registers: BTreeMap<u32, u32>,
    data: Spans,
    program: Spans,
    starts: Vec<Start>,
    /// The kernel argument whose address a buffer descriptor takes.
    arguments: BTreeMap<u8, u64>,
}

/// A buffer descriptor that was put into the queue of a DMA channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The channel's direction.
    pub direction: Direction,
    /// The channel.
    pub channel: u8,
    /// The first descriptor.
    pub descriptor: u8,
    /// How often, at least 1.
    pub n_times: u32,
    /// Whether a token reports the end.
    pub has_token: bool,
    /// Bytes of the descriptor when it was started.
    pub length_bytes: u64,
    /// The kernel's buffer that it reaches, counted from 0 (`bo0`).
    pub argument: Option<u64>,
}

impl Tile {
    pub(super) fn new(kind: TileKind) -> Tile {
        let (registers, arguments) = Default::default();
        Tile { kind, registers, data: Spans::default(), program: Spans::default(), starts: Vec::new(), arguments }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// The bytes of data memory that were written.
    #[must_use]
    pub fn data(&self) -> &Spans {
        &self.data
    }

    /// The bytes of program memory that were written.
    #[must_use]
    pub fn program(&self) -> &Spans {
        &self.program
    }

    /// What was put into the queues of its DMA channels, in order.
    #[must_use]
    pub fn starts(&self) -> &[Start] {
        &self.starts
    }

    /// Whether its core runs: enabled and not held in reset.
    #[must_use]
    pub fn is_core_enabled(&self) -> bool {
        self.kind == TileKind::Core && self.registers.get(&0x3_2000).is_some_and(|control| control & 3 == 1)
    }

    /// The locks that were given a value, and the value.
    pub fn locks(&self) -> impl Iterator<Item = (u8, u8)> {
        self.registers.iter().filter_map(|(offset, value)| match Register::at(self.kind, *offset)? {
            // Six bits.
            Register::Lock(index) => Some((index, u8::try_from(value & 0x3f).ok()?)),
            _ => None,
        })
    }

    /// The buffer descriptors that were written.
    pub fn descriptors(&self) -> impl Iterator<Item = BufferDescriptor> {
        (0..self.kind.n_buffer_descriptors()).filter_map(|index| self.descriptor(index))
    }

    /// A buffer descriptor, if it was written.
    #[must_use]
    pub fn descriptor(&self, index: u8) -> Option<BufferDescriptor> {
        if index >= self.kind.n_buffer_descriptors() {
            return None;
        }
        let first = descriptor::offset(self.kind).saturating_add(u32::from(index).saturating_mul(32));
        let end = first.saturating_add(32);
        self.registers.range(first..end).next()?;
        let mut words = [0; 8];
        for (word, offset) in words.iter_mut().zip((first..end).step_by(4)) {
            *word = self.registers.get(&offset).copied().unwrap_or(0);
        }
        Some(BufferDescriptor::from_words(self.kind, index, &words))
    }

    /// The connections of its stream switch.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        route::connections(self.kind, &self.registers)
    }

    pub(super) fn n_switch_registers(&self) -> usize {
        self.registers.range(route::offsets(self.kind)).count()
    }

    pub(super) fn register(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    /// Returns whether something is there.
    pub(super) fn write(&mut self, offset: u32, mask: u32, value: u32) -> bool {
        let Some(register) = Register::at(self.kind, offset) else { return false };
        let old = self.register(offset);
        match register {
            Register::Data(_) => self.data.add(offset..offset.saturating_add(4)),
            Register::Program(at) => self.program.add(at..at.saturating_add(4)),
            Register::Queue(direction, channel) => self.start(direction, channel, value & mask),
            _ => {
                if let Register::BufferDescriptor { index, .. } = register {
                    // An argument's address goes with the descriptor that it was put into.
                    self.arguments.remove(&index);
                }
                self.registers.insert(offset, old & !mask | value & mask);
            }
        }
        true
    }

    /// Returns how many words of a block are somewhere.
    pub(super) fn write_block(&mut self, offset: u32, words: &[u8]) -> u64 {
        let (mut offset, mut rest, mut n_written) = (offset, words, 0_u64);
        while rest.len() >= 4 {
            let run = contiguous_bytes(self.kind, offset);
            let size = usize::try_from(run.max(4)).unwrap_or(usize::MAX).min(rest.len() & !3);
            let Some((now, later)) = rest.split_at_checked(size) else { break };
            let end = offset.saturating_add(u32::try_from(size).unwrap_or(u32::MAX));
            match Register::at(self.kind, offset) {
                None => {}
                Some(Register::Data(_)) => self.data.add(offset..end),
                Some(Register::Program(at)) => self.program.add(at..at.saturating_add(end.saturating_sub(offset))),
                Some(_) => {
                    for (word, at) in now.chunks_exact(4).zip((offset..end).step_by(4)) {
                        let value = word.try_into().map_or(0, u32::from_le_bytes);
                        self.write(at, u32::MAX, value);
                    }
                }
            }
            if run > 0 {
                n_written = n_written.saturating_add(size as u64 >> 2);
            }
            (offset, rest) = (end, later);
        }
        n_written
    }

    pub(super) fn patch(&mut self, offset: u32, argument: u64) {
        if let Some(Register::BufferDescriptor { index, .. }) = Register::at(self.kind, offset) {
            self.arguments.insert(index, argument);
        }
    }

    fn start(&mut self, direction: Direction, channel: u8, value: u32) {
        let number_bits = if self.kind == TileKind::Memory { 0x3f } else { 0xf };
        let descriptor = u8::try_from(value & number_bits).unwrap_or(u8::MAX);
        self.starts.push(Start {
            direction,
            channel,
            descriptor,
            n_times: (value >> 16 & 0xff).saturating_add(1),
            has_token: value >> 31 == 1,
            length_bytes: self.descriptor(descriptor).map_or(0, |descriptor| descriptor.length_bytes),
            argument: self.arguments.get(&descriptor).copied(),
        });
    }
}
