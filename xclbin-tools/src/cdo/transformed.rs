//! The layout that `aie-pdi-transform` gives to the commands of a PDI.
//!
//! A command zone, then a data zone. The command zone is a row of groups: the low byte of an id, a count, and
//! the operands of as many commands. NOPs are gone. A `dma_write` has four operands: address (high, low), offset
//! of its data in the data zone in bytes, and words in the low half of the last; bit 16 there marks data memory
//! that is all zeros.
//!
//! Until 2026 the tool wrote 20 bytes too few, the size of the CDO header, and so cut off the end of the last
//! data. Such files are common; a loader that trusts them reads what lies behind the image. Here that
//! `dma_write` is short, and [`super::Cdo::missing_bytes`] says by how much.
//!
//! The tool replaces the words 28 to 30 of the partition header by {1, bytes of the command zone, a check of the
//! two} and leaves all lengths and the header's checksum as they were. They are wrong from then on.
//!
//! Source: `Xilinx/XRT:src/runtime_src/tools/xclbinutil/aie-pdi-transform`, `src/pdi-transform.c` and
//! `lib/pdi_transform.c`.

use super::{
    command::{Command, DMA_WRITE, MASK_WRITE, MASK_WRITE64, WRITE, WRITE64},
    stream::{Entry, Form},
};
use crate::words::Words;
use crate::{bytes::Reader, error::Result};

/// Bytes that older releases of the tool cut off: a CDO header's.
const MISSING_BYTES_MAX: u64 = super::HEADER_BYTES;

/// Both zones, and how far they were read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zones<'a> {
    zone: Reader<'a>,
    data: &'a [u8],
    /// Of the command zone in the CDO.
    offset: u64,
    /// Id of the group that is read, and its commands to come.
    group: (u16, u32),
    /// By how much data that were read end behind the file.
    missing_bytes: u64,
    /// Data that were read.
    data_bytes: u64,
}

impl<'a> Zones<'a> {
    /// Checks each command.
    pub(super) fn parse(zone: &'a [u8], data: &'a [u8], offset: u64) -> Result<Zones<'a>> {
        let zones = Zones {
            zone: Reader::new(zone, "command zone"),
            data,
            offset,
            group: (0, 0),
            missing_bytes: 0,
            data_bytes: 0,
        };
        let mut walk = zones;
        while walk.take()?.is_some() {}
        Ok(Zones { missing_bytes: walk.missing_bytes, ..zones })
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        self.missing_bytes
    }

    /// The next command; none at the end.
    pub(super) fn next(&mut self) -> Option<Entry<'a>> {
        self.take().ok().flatten()
    }

    fn take(&mut self) -> Result<Option<Entry<'a>>> {
        while self.group.1 == 0 {
            if self.zone.remaining() == 0 {
                return Ok(None);
            }
            self.group = self.take_group()?;
        }
        let (id, n_left) = self.group;
        self.group = (id, n_left.saturating_sub(1));
        let offset = self.offset.saturating_add(self.zone.offset());
        let command = if id == DMA_WRITE { self.take_dma_write()? } else { self.take_fixed(id)? };
        Ok(Some(Entry { offset, form: Form::default(), command }))
    }

    fn take_group(&mut self) -> Result<(u16, u32)> {
        let at = self.zone.offset();
        let short_id = self.zone.u32("group id")?;
        let n_commands = self.zone.u32("group length")?;
        let id = u16::try_from(short_id).ok().filter(|id| *id < 0x100).map(|id| id | 0x100);
        match id {
            Some(id @ (MASK_WRITE | WRITE | DMA_WRITE | MASK_WRITE64 | WRITE64)) => Ok((id, n_commands)),
            _ => Err(self.zone.malformed(at, "group id", format!("{short_id:#x}"), "2, 3, 5, 7 or 8 have a meaning")),
        }
    }

    fn take_fixed(&mut self, id: u16) -> Result<Command<'a>> {
        let size_bytes = match id {
            WRITE => 8,
            MASK_WRITE64 => 16,
            _ => 12,
        };
        Ok(Command::new(id, Words::new(self.zone.take(size_bytes, "operands")?)))
    }

    fn take_dma_write(&mut self) -> Result<Command<'a>> {
        let high = self.zone.u32("address")?;
        let low = self.zone.u32("address")?;
        let at = self.zone.offset();
        let start = self.zone.u32("data offset")?;
        let size_bytes = u64::from(self.zone.u32("data length")? & 0xffff).saturating_mul(4);
        let end = u64::from(start).saturating_add(size_bytes);
        let missing_bytes = end.saturating_sub(self.data.len() as u64);
        let kept_bytes = match missing_bytes {
            0..=MISSING_BYTES_MAX => size_bytes.saturating_sub(missing_bytes),
            _ => size_bytes,
        };
        let data = Reader::new(self.data, "data zone").slice(at, start.into(), kept_bytes, "dma_write's data")?;
        // The tool shares no data. Ranges that overlap would let a small file stand for any number of words.
        self.data_bytes = self.data_bytes.saturating_add(kept_bytes);
        if self.data_bytes > self.data.len() as u64 {
            let bound = format!("the data zone has {} bytes: ranges overlap", self.data.len());
            return Err(self.zone.malformed(at, "total of data", format!("{} bytes", self.data_bytes), bound));
        }
        self.missing_bytes = self.missing_bytes.max(missing_bytes);
        Ok(Command::DmaWrite { address: u64::from(high) << 32 | u64::from(low), data: Words::new(data) })
    }
}
