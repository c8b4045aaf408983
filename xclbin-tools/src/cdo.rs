//! Configuration data objects (CDO), version 2: the commands inside a PDI. A header of five words, then commands. Drawn
//! in `docs/src/formats/pdi-cdo.md`.
//!
//! Behind the commands may stand more bytes: a PDI pads its partitions to 16 bytes.
//!
//! `aie-pdi-transform` (<https://github.com/Xilinx/XRT>) rewrites the commands of a PDI into another layout under
//! the same header; [`Cdo::parse_transformed`] reads that, and [`Cdo::commands`] gives the same commands.
//!
//! Sources: `Xilinx/bootgen:cdo-binary.c` (ids, payloads),
//! `Xilinx/XRT:src/runtime_src/tools/xclbinutil/aie-pdi-transform` (what NPU firmware loads, transformed layout).

mod command;

mod stream;

mod transformed;

mod build;

mod merge;

mod scan;

mod assemble;
mod dump;

use crate::{bytes::Reader, error::Result};

pub use assemble::assemble;
pub use build::Builder;
pub use command::{Command, known, name_of};
pub use dump::dump;
pub use merge::merge;
pub use stream::{Commands, Entry, Form};

/// Bytes of the header.
pub const HEADER_BYTES: u64 = 20;

/// The version that bootgen writes.
pub const VERSION: u32 = 0x200;

/// The oldest version of this layout, 1.50.
const VERSION_MIN: u32 = 0x132;

/// The first version that would be another layout.
const VERSION_END: u32 = 0x300;

const IDENTIFICATION: u32 = u32::from_le_bytes(*b"CDO\0");

/// A checksum as it stands and as it should: the inverted sum of the words before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// What the file says.
    pub stored: u32,
    /// What its words give.
    pub computed: u32,
}

impl Checksum {
    /// The inverted sum of words.
    #[must_use]
    pub fn of(words: &[u32]) -> u32 {
        !words.iter().fold(0, |sum: u32, word| sum.wrapping_add(*word))
    }

    /// True if both are the same.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.stored == self.computed
    }
}

/// A view of a CDO. Its commands were walked once: none leaves its bounds.
#[derive(Clone, Copy, Debug)]
pub struct Cdo<'a> {
    /// [`VERSION`] in every NPU file.
    pub version: u32,
    /// Words of commands that the header states. A transformed CDO keeps that of the original.
    pub length_words: u32,
    /// The header's.
    pub checksum: Checksum,
    /// What stands behind the commands: padding, mostly.
    pub trailing: &'a [u8],
    commands: Commands<'a>,
}

impl<'a> Cdo<'a> {
    /// Reads a CDO. A wrong checksum is no error: see [`Cdo::checksum`].
    ///
    /// # Errors
    /// If the bytes are too few, identification or version is of another format, or a command is longer than
    /// what the header leaves.
    pub fn parse(bytes: &'a [u8]) -> Result<Cdo<'a>> {
        let mut reader = Reader::new(bytes, "CDO");
        let mut cdo = Cdo::header(&mut reader)?;
        let size_bytes = usize::try_from(u64::from(cdo.length_words).saturating_mul(4)).unwrap_or(usize::MAX);
        let at = reader.offset();
        let body = reader.take(size_bytes, "length")?;
        cdo.trailing = reader.take(reader.remaining(), "trailing bytes")?;
        cdo.commands = Commands::of_stream(body, at)?;
        Ok(cdo)
    }

    /// Reads a CDO that `aie-pdi-transform` rewrote. `command_zone_bytes` stands in the partition header
    /// ([`crate::pdi::PartitionHeader::transform`]).
    ///
    /// # Errors
    /// As [`Cdo::parse`]; if a group has an unknown id, or a block's data lie outside of the data zone.
    pub fn parse_transformed(bytes: &'a [u8], command_zone_bytes: u32) -> Result<Cdo<'a>> {
        let mut reader = Reader::new(bytes, "transformed CDO");
        let mut cdo = Cdo::header(&mut reader)?;
        let size_bytes = usize::try_from(command_zone_bytes).unwrap_or(usize::MAX);
        let at = reader.offset();
        let zone = reader.take(size_bytes, "command zone")?;
        let data = reader.take(reader.remaining(), "data zone")?;
        cdo.commands = Commands::of_zones(zone, data, at)?;
        Ok(cdo)
    }

    /// The header alone, with no commands yet.
    fn header(reader: &mut Reader<'a>) -> Result<Cdo<'a>> {
        let words = [
            reader.u32("header length")?,
            reader.u32("identification")?,
            reader.u32("version")?,
            reader.u32("length")?,
        ];
        let [header_words, identification, version, length_words] = words;
        if header_words != 4 {
            return Err(reader.malformed(0, "header length", header_words, "a CDO of version 2 has 4 words"));
        }
        if identification != IDENTIFICATION {
            let value = format!("{identification:#010x}");
            return Err(reader.malformed(4, "identification", value, "a CDO of version 2 has 0x004f4443 (\"CDO\")"));
        }
        if !(VERSION_MIN..VERSION_END).contains(&version) {
            let value = format!("{version:#x}");
            return Err(reader.malformed(8, "version", value, "0x132 to 0x2ff have the layout that is read"));
        }
        let checksum = Checksum { stored: reader.u32("checksum")?, computed: Checksum::of(&words) };
        Ok(Cdo { version, length_words, checksum, trailing: &[], commands: Commands::none() })
    }

    /// The commands in their order.
    #[must_use]
    pub fn commands(&self) -> Commands<'a> {
        self.commands
    }

    /// True for what [`Cdo::parse_transformed`] read: no NOPs, and no [`Form`] to keep.
    #[must_use]
    pub fn is_transformed(&self) -> bool {
        self.commands.is_transformed()
    }

    /// Bytes of the last `dma_write`'s data that a transformed CDO lacks: up to 20, the fault of older releases of
    /// `aie-pdi-transform`. The command has the words that are there.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.commands.missing_bytes()
    }
}

/// A plain CDO with the same commands, each in its usual form: what a transformed one was made of,
/// without its NOPs.
#[must_use]
pub fn plain(cdo: &Cdo<'_>) -> Vec<u8> {
    let mut builder = Builder::new();
    builder.set_version(cdo.version);
    cdo.commands().for_each(|entry| builder.push(&entry.command));
    builder.finish()
}

#[cfg(test)]
pub(crate) mod tests;
