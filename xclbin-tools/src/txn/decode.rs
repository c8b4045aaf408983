//! From bytes to a header and to operations.

use super::{
    Header, PART, Version,
    op::{MAX_PADDING, Op, Operation, Reserved, Sync, code},
};
use crate::words::Words;
use crate::{array::Address, bytes::Reader, error::Result};

/// The first eight bytes of a stream.
pub(super) fn header(reader: &mut Reader<'_>) -> Result<Header> {
    let (major, minor) = (reader.u8("major version")?, reader.u8("minor version")?);
    let version = Version::of(major, minor).ok_or_else(|| {
        reader.malformed(0, "version", format!("{major}.{minor}"), "0.1 and 1.0 are known: is this a stream?")
    })?;
    Ok(Header {
        version,
        generation: reader.u8("generation")?,
        rows: reader.u8("rows")?,
        columns: reader.u8("columns")?,
        memory_tile_rows: reader.u8("memory tile rows")?,
        reserved: reader.u16("padding")?,
    })
}

/// The next operation.
pub(super) fn operation<'a>(reader: &mut Reader<'a>, version: Version) -> Result<Operation<'a>> {
    let start = reader.offset();
    let mut fields = Fields { reader, start, padding: [0; MAX_PADDING], n_padding: 0, old_layout: false };
    let word = fields.word()?;
    let code = word.to_le_bytes()[0];
    let (op, tail) = match (code, version) {
        (code::WRITE..=code::MASK_POLL_BUSY, Version::V0_1) if !is_short(code) => fields.register_v0_1(code, word)?,
        (code::WRITE..=code::MASK_POLL_BUSY, Version::V1_0) if !is_short(code) => {
            (fields.register_v1_0(code, word)?, Words::default())
        }
        (code::CUSTOM.., _) => fields.custom(code, word, version)?,
        _ => (fields.plain(code, word)?, Words::default()),
    };
    Ok(Operation { op, reserved: Reserved { padding: fields.padding, tail, old_layout: fields.old_layout } })
}

/// Kinds among the low numbers that both versions write alike.
fn is_short(code: u8) -> bool {
    matches!(code, code::NOOP | code::PREEMPT)
}

/// The fields of one operation.
struct Fields<'r, 'a> {
    reader: &'r mut Reader<'a>,
    start: u64,
    padding: [u32; MAX_PADDING],
    n_padding: usize,
    old_layout: bool,
}

impl<'a> Fields<'_, 'a> {
    fn word(&mut self) -> Result<u32> {
        self.reader.u32("operation")
    }

    fn address(&mut self) -> Result<Address> {
        self.word().map(Address::from)
    }

    fn long(&mut self) -> Result<u64> {
        self.reader.u64("operation")
    }

    /// Keeps what the format says nothing of.
    fn pad(&mut self, value: u32) {
        if let Some(place) = self.padding.get_mut(self.n_padding) {
            *place = value;
        }
        self.n_padding = self.n_padding.saturating_add(1);
    }

    /// The words up to the end of an operation of `size_bytes`, of which some are read.
    fn rest(&mut self, size_bytes: u32) -> Result<Words<'a>> {
        let read = self.reader.offset().saturating_sub(self.start);
        let left = u64::from(size_bytes).checked_sub(read).and_then(|left| usize::try_from(left).ok());
        let words = match left {
            Some(left) if left.is_multiple_of(4) => Some(Words::new(self.reader.take(left, "operation")?)),
            _ => None,
        };
        words.ok_or_else(|| {
            let bound = format!("a multiple of 4, and at least the {read} of its fields");
            self.reader.malformed(self.start, "size of an operation", format!("{size_bytes} bytes"), bound)
        })
    }

    fn unknown(&self, code: u8) -> crate::Error {
        let bound = "no kind of operation whose size is known";
        self.reader.malformed(self.start, "kind of operation", format!("{code:#x}"), bound)
    }

    /// Writes and polls of version 0.1: 64-bit addresses and sizes.
    fn register_v0_1(&mut self, code: u8, word: u32) -> Result<(Op<'a>, Words<'a>)> {
        let padding = self.word()?;
        self.pad(word >> 8);
        self.pad(padding);
        if code == code::BLOCK_WRITE {
            let address = self.address()?;
            let size_bytes = self.word()?;
            return Ok((Op::BlockWrite { address, data: self.rest(size_bytes)? }, Words::default()));
        }
        let address = self.address()?;
        let high = self.word()?;
        self.pad(high);
        let value = self.word()?;
        let mask = if code == code::WRITE { 0 } else { self.word()? };
        let op = register(code, address, value, mask).ok_or_else(|| self.unknown(code))?;
        let size_bytes = self.word()?;
        Ok((op, self.rest(size_bytes)?))
    }

    /// Writes and polls of version 1.0: 32-bit addresses, and a size for block writes alone.
    fn register_v1_0(&mut self, code: u8, word: u32) -> Result<Op<'a>> {
        self.pad(word >> 8);
        let address = self.address()?;
        let value = self.word()?;
        if code == code::BLOCK_WRITE {
            return Ok(Op::BlockWrite { address, data: self.rest(value)? });
        }
        let mask = if code == code::WRITE { 0 } else { self.word()? };
        register(code, address, value, mask).ok_or_else(|| self.unknown(code))
    }

    /// Kinds of one size that both versions write alike.
    fn plain(&mut self, code: u8, word: u32) -> Result<Op<'a>> {
        let [_, first, second, third] = word.to_le_bytes();
        Ok(match code {
            code::NOOP => {
                self.pad(word >> 8);
                Op::Noop
            }
            code::UPDATE_SCRATCH => {
                self.pad(word >> 8);
                Op::UpdateScratch
            }
            code::PREEMPT => {
                self.pad(word >> 16);
                Op::Preempt { level: first }
            }
            code::LOAD_PDI => {
                self.pad(first.into());
                Op::LoadPdi { id: u16::from_le_bytes([second, third]), size_bytes: self.word()?, address: self.long()? }
            }
            code::LOAD_PM => Op::LoadPm { n_operations: word >> 8, id: self.word()? },
            code::CREATE_SCRATCHPAD => {
                self.pad(word >> 16);
                Op::CreateScratchpad { usage: first, size_bytes: self.word()?, offset: self.long()? }
            }
            code::UPDATE_STATE => {
                self.pad(third.into());
                Op::UpdateState { index: first, function: second, argument: self.word()? }
            }
            code::UPDATE_REGISTER => {
                self.pad(third.into());
                let argument = self.word()?;
                Op::UpdateRegister { index: first, function: second, argument, address: self.address()? }
            }
            _ => return Err(self.unknown(code)),
        })
    }

    /// Kinds whose second word is their size.
    fn custom(&mut self, code: u8, word: u32, version: Version) -> Result<(Op<'a>, Words<'a>)> {
        self.pad(word >> 8);
        let size_bytes = self.word()?;
        let payload = self.rest(size_bytes)?;
        let mut words = Reader::new(payload.as_bytes(), PART);
        let op = match (code, version, payload.len()) {
            (code::SYNC, _, 2..) => self.sync(words.u32("sync")?, words.u32("sync")?),
            (code::PATCH, _, 10..) => {
                self.old_layout = version == Version::V1_0;
                for _ in 0..4 {
                    self.pad(words.u32("patch")?);
                }
                let address = Address::from(words.u32("patch")?);
                self.pad(words.u32("patch")?);
                Op::Patch { address, argument: words.u64("patch")?, offset_bytes: words.u64("patch")? }
            }
            (code::PATCH, Version::V1_0, 4) => {
                let address = Address::from(words.u32("patch")?);
                let argument = words.u32("patch")?;
                self.pad(argument >> 8);
                Op::Patch { address, argument: u64::from(argument & 0xff), offset_bytes: words.u64("patch")? }
            }
            (code::TIMER, _, 1..) => Op::Timer { id: words.u32("timer")? },
            (code::MERGE_SYNC, _, 1..) => {
                let word = words.u32("merge sync")?;
                self.pad(word >> 16);
                let [n_tokens, n_columns, ..] = word.to_le_bytes();
                Op::MergeSync { n_tokens, n_columns }
            }
            _ => return Ok((Op::Custom { code, payload }, Words::default())),
        };
        let tail = words.take(words.remaining(), "operation")?;
        Ok((op, Words::new(tail)))
    }

    fn sync(&mut self, word: u32, config: u32) -> Op<'a> {
        let [direction, row, column, high] = word.to_le_bytes();
        let [low, n_rows, n_columns, channel] = config.to_le_bytes();
        self.pad(high.into());
        self.pad(low.into());
        Op::Sync(Sync { column, row, direction, channel, n_columns, n_rows })
    }
}

fn register<'a>(code: u8, address: Address, value: u32, mask: u32) -> Option<Op<'a>> {
    Some(match code {
        code::WRITE => Op::Write { address, value },
        code::MASK_WRITE => Op::MaskWrite { address, value, mask },
        code::MASK_POLL => Op::MaskPoll { address, value, mask },
        code::MASK_POLL_BUSY => Op::MaskPollBusy { address, value, mask },
        _ => return None,
    })
}
