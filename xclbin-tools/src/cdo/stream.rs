//! The walk over the commands of a CDO, in both layouts.

use super::{command::Command, transformed::Zones};
use crate::words::Words;
use crate::{
    bytes::{Reader, Writer},
    error::Result,
};

/// A command and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Byte of its command word (of its operands in a transformed CDO), from the start of the CDO.
    pub offset: u64,
    /// How its command word is written.
    pub form: Form,
    /// What it says.
    pub command: Command<'a>,
}

/// What of a command word neither id nor length says. The default is what bootgen writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The length stands in a word of its own though it is below 255.
    pub long: bool,
    /// Bits 24 to 31.
    pub reserved: u8,
}

/// The commands of a CDO in their order.
#[derive(Clone, Copy, Debug)]
pub struct Commands<'a> {
    source: Source<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// Bytes from here on, and the first one's offset in the CDO.
    Stream(&'a [u8], u64),
    Zones(Zones<'a>),
}

impl<'a> Commands<'a> {
    pub(super) fn none() -> Commands<'a> {
        Commands { source: Source::Stream(&[], 0) }
    }

    /// Commands in `bytes`, which start at `offset` of the CDO; each length is checked here.
    pub(super) fn of_stream(bytes: &'a [u8], offset: u64) -> Result<Commands<'a>> {
        let mut reader = Reader::new(bytes, "CDO commands");
        while reader.remaining() > 0 {
            take_command(&mut reader)?;
        }
        Ok(Commands { source: Source::Stream(bytes, offset) })
    }

    /// Commands in a command zone, which starts at `offset` of the CDO, with their data.
    pub(super) fn of_zones(zone: &'a [u8], data: &'a [u8], offset: u64) -> Result<Commands<'a>> {
        Ok(Commands { source: Source::Zones(Zones::parse(zone, data, offset)?) })
    }

    pub(super) fn is_transformed(&self) -> bool {
        matches!(self.source, Source::Zones(_))
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        match &self.source {
            Source::Stream(..) => 0,
            Source::Zones(zones) => zones.missing_bytes(),
        }
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        match &mut self.source {
            Source::Zones(zones) => zones.next(),
            Source::Stream(bytes, offset) => {
                let mut reader = Reader::new(bytes, "CDO commands");
                // No more bytes are the end; a wrong length was refused before.
                let (form, command) = take_command(&mut reader).ok()?;
                let entry = Entry { offset: *offset, form, command };
                *offset = offset.saturating_add(reader.offset());
                *bytes = reader.take(reader.remaining(), "commands").ok()?;
                Some(entry)
            }
        }
    }
}

fn take_command<'a>(reader: &mut Reader<'a>) -> Result<(Form, Command<'a>)> {
    let at = reader.offset();
    let word = reader.u32("command")?;
    let [id_low, id_high, length, reserved] = word.to_le_bytes();
    let id = u16::from_le_bytes([id_low, id_high]);
    let (length_words, long) = match length {
        255 => {
            let length_words = reader.u32("command length")?;
            (length_words, length_words < 255)
        }
        length => (length.into(), false),
    };
    let size_bytes = u64::from(length_words).saturating_mul(4);
    if size_bytes > reader.remaining() as u64 {
        let bound = format!("command {id:#x}: only {} words are left of its CDO", reader.remaining() / 4);
        return Err(reader.malformed(at, "command length", format!("{length_words} words"), bound));
    }
    let payload = reader.take(usize::try_from(size_bytes).unwrap_or(usize::MAX), "payload")?;
    Ok((Form { long, reserved }, Command::new(id, Words::new(payload))))
}

/// Appends a command as it is.
pub(crate) fn put_command(writer: &mut Writer, form: Form, command: &Command<'_>) {
    let (operands, data) = command.payload();
    let length_words = operands.len().saturating_add(data.len());
    let [id_low, id_high] = command.id().to_le_bytes();
    let short = u8::try_from(length_words).ok().filter(|length| *length < 255 && !form.long);
    writer.put(&[id_low, id_high, short.unwrap_or(255), form.reserved]);
    if short.is_none() {
        writer.u32(u32::try_from(length_words).unwrap_or(u32::MAX));
    }
    for word in operands {
        writer.u32(word);
    }
    writer.put(data.as_bytes());
}
