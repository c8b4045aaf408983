//! From operations to bytes.

use super::{
    Header, Version,
    op::{Op, Operation, Reserved, Sync, code},
    too_large,
};
use crate::{
    array::Address,
    bytes::Writer,
    error::{Error, Result},
};

/// The first eight bytes of a stream.
pub(super) fn header(writer: &mut Writer, header: &Header) {
    let (major, minor) = header.version.numbers();
    writer.put(&[major, minor, header.generation, header.rows, header.columns, header.memory_tile_rows]);
    writer.u16(header.reserved);
}

/// Appends an operation.
pub(super) fn operation(writer: &mut Writer, version: Version, operation: &Operation<'_>) -> Result<()> {
    let reserved = &operation.reserved;
    let mut fields = Fields { writer, version, reserved, n_padding: 0 };
    match operation.op {
        Op::Write { address, value } => fields.register(code::WRITE, address, value, None)?,
        Op::MaskWrite { address, value, mask } => fields.register(code::MASK_WRITE, address, value, Some(mask))?,
        Op::MaskPoll { address, value, mask } => fields.register(code::MASK_POLL, address, value, Some(mask))?,
        Op::MaskPollBusy { address, value, mask } => {
            fields.register(code::MASK_POLL_BUSY, address, value, Some(mask))?;
        }
        Op::BlockWrite { address, data } => fields.block_write(address, data.as_bytes())?,
        Op::Sync(sync) => fields.sync(&sync)?,
        Op::Patch { address, argument, offset_bytes } => fields.patch(address, argument, offset_bytes)?,
        Op::Timer { id } => fields.custom(code::TIMER, |_, payload| {
            payload.u32(id);
            Ok(())
        })?,
        Op::MergeSync { n_tokens, n_columns } => fields.custom(code::MERGE_SYNC, |fields, payload| {
            let high = fields.pad(16)?;
            payload.put(&[n_tokens, n_columns]);
            payload.u16(high as u16);
            Ok(())
        })?,
        Op::Custom { code, .. } if code < code::CUSTOM => {
            return Err(Error::refused("custom operation", format!("{code:#x}"), "kinds from 0x80 on are custom"));
        }
        Op::Custom { code, payload } => fields.custom(code, |_, bytes| {
            bytes.put(payload.as_bytes());
            Ok(())
        })?,
        op => fields.plain(&op)?,
    }
    fields.end()
}

/// The fields of one operation.
struct Fields<'w, 'a> {
    writer: &'w mut Writer,
    version: Version,
    reserved: &'w Reserved<'a>,
    n_padding: usize,
}

impl Fields<'_, '_> {
    /// The next padding, which has `bits`.
    fn pad(&mut self, bits: u32) -> Result<u32> {
        let value = self.reserved.padding.get(self.n_padding).copied().unwrap_or(0);
        self.n_padding = self.n_padding.saturating_add(1);
        let most = u32::MAX.checked_shr(u32::BITS.saturating_sub(bits)).unwrap_or(0);
        if value > most {
            return Err(too_large("reserved", value.into(), most.into()));
        }
        Ok(value)
    }

    /// The word of the kind, whose upper 24 bits are padding.
    fn kind(&mut self, code: u8) -> Result<()> {
        let padding = self.pad(24)?;
        self.writer.u32((padding << 8) | u32::from(code));
        Ok(())
    }

    fn register(&mut self, code: u8, address: Address, value: u32, mask: Option<u32>) -> Result<()> {
        self.kind(code)?;
        if self.version == Version::V1_0 {
            self.writer.u32(address.into());
        } else {
            let (padding, high) = (self.pad(32)?, self.pad(32)?);
            self.writer.u32(padding);
            self.writer.u32(address.into());
            self.writer.u32(high);
        }
        self.writer.u32(value);
        if let Some(mask) = mask {
            self.writer.u32(mask);
        }
        if self.version == Version::V1_0 {
            return self.no_tail();
        }
        let fields_bytes = if mask.is_some() { 28 } else { 24 };
        self.writer.u32(sum_bytes(fields_bytes, self.reserved.tail.as_bytes().len())?);
        self.writer.put(self.reserved.tail.as_bytes());
        Ok(())
    }

    fn block_write(&mut self, address: Address, data: &[u8]) -> Result<()> {
        self.kind(code::BLOCK_WRITE)?;
        let mut header_bytes = 12;
        if self.version == Version::V0_1 {
            let padding = self.pad(32)?;
            self.writer.u32(padding);
            header_bytes = 16;
        }
        self.writer.u32(address.into());
        self.writer.u32(sum_bytes(header_bytes, data.len())?);
        self.writer.put(data);
        self.no_tail()
    }

    fn sync(&mut self, sync: &Sync) -> Result<()> {
        self.custom(code::SYNC, |fields, payload| {
            payload.put(&[sync.direction, sync.row, sync.column]);
            payload.u8(fields.pad(8)? as u8);
            payload.u8(fields.pad(8)? as u8);
            payload.put(&[sync.n_rows, sync.n_columns, sync.channel]);
            Ok(())
        })
    }

    fn patch(&mut self, address: Address, argument: u64, offset_bytes: u64) -> Result<()> {
        self.custom(code::PATCH, |fields, payload| {
            if fields.version == Version::V1_0 && !fields.reserved.old_layout {
                payload.u32(address.into());
                payload.u8(u8::try_from(argument).map_err(|_| too_large("argument", argument, 0xff))?);
                payload.put(fields.pad(24)?.to_le_bytes().get(..3).unwrap_or_default());
                payload.u64(offset_bytes);
                return fields.no_tail();
            }
            for _ in 0..4 {
                payload.u32(fields.pad(32)?);
            }
            payload.u32(address.into());
            payload.u32(fields.pad(32)?);
            payload.u64(argument);
            payload.u64(offset_bytes);
            Ok(())
        })
    }

    /// A kind whose second word is its size; the tail follows the payload.
    fn custom(&mut self, code: u8, payload: impl FnOnce(&mut Self, &mut Writer) -> Result<()>) -> Result<()> {
        self.kind(code)?;
        let mut bytes = Writer::new();
        payload(self, &mut bytes)?;
        bytes.put(self.reserved.tail.as_bytes());
        self.writer.u32(sum_bytes(8, bytes.bytes.len())?);
        self.writer.put(&bytes.bytes);
        Ok(())
    }

    /// Kinds of one size that both versions write alike.
    fn plain(&mut self, op: &Op<'_>) -> Result<()> {
        match *op {
            Op::Preempt { level } => {
                let high = self.pad(16)?;
                self.writer.put(&[code::PREEMPT, level]);
                self.writer.u16(high as u16);
            }
            Op::LoadPdi { id, size_bytes, address } => {
                let padding = self.pad(8)?;
                self.writer.put(&[code::LOAD_PDI, padding as u8]);
                self.writer.u16(id);
                self.writer.u32(size_bytes);
                self.writer.u64(address);
            }
            Op::LoadPm { id, n_operations } => {
                if n_operations > 0xff_ffff {
                    return Err(too_large("number of operations", n_operations.into(), 0xff_ffff));
                }
                self.writer.u32((n_operations << 8) | u32::from(code::LOAD_PM));
                self.writer.u32(id);
            }
            Op::CreateScratchpad { usage, size_bytes, offset } => {
                let high = self.pad(16)?;
                self.writer.put(&[code::CREATE_SCRATCHPAD, usage]);
                self.writer.u16(high as u16);
                self.writer.u32(size_bytes);
                self.writer.u64(offset);
            }
            Op::UpdateState { index, function, argument } => {
                self.state(code::UPDATE_STATE, index, function, argument)?;
            }
            Op::UpdateRegister { address, index, function, argument } => {
                self.state(code::UPDATE_REGISTER, index, function, argument)?;
                self.writer.u32(address.into());
            }
            Op::UpdateScratch => self.kind(code::UPDATE_SCRATCH)?,
            _ => self.kind(code::NOOP)?,
        }
        self.no_tail()
    }

    fn state(&mut self, code: u8, index: u8, function: u8, argument: u32) -> Result<()> {
        let padding = self.pad(8)?;
        self.writer.put(&[code, index, function, padding as u8]);
        self.writer.u32(argument);
        Ok(())
    }

    fn no_tail(&self) -> Result<()> {
        if self.reserved.tail.is_empty() {
            return Ok(());
        }
        let value = format!("{} words long", self.reserved.tail.len());
        Err(Error::refused("tail", value, "an operation of this kind and version ends with its last field"))
    }

    /// Checks that no padding is left over.
    fn end(&self) -> Result<()> {
        match self.reserved.padding.get(self.n_padding..).unwrap_or_default().iter().find(|value| **value != 0) {
            None => Ok(()),
            Some(value) => {
                let bound = format!("an operation of this kind and version has {} paddings", self.n_padding);
                Err(Error::refused("reserved", format!("{value:#x}"), bound))
            }
        }
    }
}

fn sum_bytes(fields_bytes: u32, rest_bytes: usize) -> Result<u32> {
    let sum = u32::try_from(rest_bytes).ok().and_then(|rest| rest.checked_add(fields_bytes));
    sum.ok_or_else(|| too_large("size of an operation", rest_bytes as u64, u32::MAX.into()))
}
