//! The text form, written. [`super::assemble`] reads it.

use crate::words::Words;
use std::fmt::{self, Write as _};

use super::{
    Header, Operation, Stream, Version,
    op::{Op, Reserved, Sync},
};
use crate::array::{Address, Device};

/// Words of a payload on a line.
const WORDS_PER_LINE: usize = 8;

/// Where a comment starts, if what is before it is shorter.
const COMMENT_COLUMN: usize = 64;

impl Stream<'_> {
    /// The stream as text: a line for the header, a line an operation, payloads below it, and what is known of its
    /// registers as comments. [`super::assemble`] makes the same bytes of it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // A `String` takes everything.
        let _ = write_stream(&mut text, self);
        text
    }
}

fn write_stream(text: &mut String, stream: &Stream<'_>) -> fmt::Result {
    let header = stream.header();
    let device = Device::by_generation(header.generation).map_or("an unknown device", |device| device.name);
    let plural = if stream.n_operations() == 1 { "" } else { "s" };
    writeln!(text, "; For {device}: {} operation{plural}, {} bytes.", stream.n_operations(), stream.bytes().len())?;
    writeln!(text, "{}", header_line(&header)?)?;
    for placed in stream.operations() {
        let line = line(&placed.operation, header.version)?;
        match comment(&placed.operation.op) {
            Some(comment) => writeln!(text, "{line:<COMMENT_COLUMN$} ; {comment}")?,
            None => writeln!(text, "{line}")?,
        }
        if let Op::BlockWrite { data: words, .. } | Op::Custom { payload: words, .. } = placed.operation.op {
            write_words(text, words)?;
        }
    }
    Ok(())
}

fn header_line(header: &Header) -> Result<String, fmt::Error> {
    let (major, minor) = header.version.numbers();
    let Header { generation, rows, columns, memory_tile_rows, reserved, .. } = header;
    let mut line = format!(
        "stream version={major}.{minor} generation={generation} rows={rows} columns={columns} \
         memory_tile_rows={memory_tile_rows}"
    );
    if *reserved != 0 {
        write!(line, " reserved={reserved:#x}")?;
    }
    Ok(line)
}

fn write_words(text: &mut String, words: Words<'_>) -> fmt::Result {
    for (index, word) in words.iter().enumerate() {
        let is_first = index.is_multiple_of(WORDS_PER_LINE);
        if is_first && index > 0 {
            text.push('\n');
        }
        write!(text, "{}{word:#010x}", if is_first { "    " } else { " " })?;
    }
    if !words.is_empty() {
        text.push('\n');
    }
    Ok(())
}

/// An operation's line, without comment and payload.
fn line(operation: &Operation<'_>, version: Version) -> Result<String, fmt::Error> {
    let mut line = match operation.op {
        Op::Write { address, value } => format!("write {} value={value:#x}", Tile(address)),
        Op::BlockWrite { address, .. } => format!("block_write {}", Tile(address)),
        Op::MaskWrite { address, value, mask } => masked("mask_write", address, value, mask),
        Op::MaskPoll { address, value, mask } => masked("mask_poll", address, value, mask),
        Op::MaskPollBusy { address, value, mask } => masked("mask_poll_busy", address, value, mask),
        Op::Noop => "noop".to_owned(),
        Op::Preempt { level } => format!("preempt level={level}"),
        Op::LoadPdi { id, size_bytes, address } => {
            format!("load_pdi id={id} size={size_bytes:#x} address={address:#x}")
        }
        Op::LoadPm { id, n_operations } => format!("load_pm id={id} operations={n_operations}"),
        Op::CreateScratchpad { usage, size_bytes, offset } => {
            format!("create_scratchpad usage={usage} size={size_bytes:#x} offset={offset:#x}")
        }
        Op::UpdateState { index, function, argument } => {
            format!("update_state index={index} function={function} argument={argument:#x}")
        }
        Op::UpdateRegister { address, index, function, argument } => {
            let address = Tile(address);
            format!("update_register {address} index={index} function={function} argument={argument:#x}")
        }
        Op::UpdateScratch => "update_scratch".to_owned(),
        Op::Sync(sync) => sync_line(&sync),
        Op::Patch { address, argument, offset_bytes } => {
            format!("patch {} argument={argument} offset={offset_bytes:#x}", Tile(address))
        }
        Op::Timer { id } => format!("timer id={id}"),
        Op::MergeSync { n_tokens, n_columns } => format!("merge_sync tokens={n_tokens} columns={n_columns}"),
        Op::Custom { code, .. } => format!("custom code={code:#x}"),
    };
    write_reserved(&mut line, operation, version)?;
    Ok(line)
}

fn masked(name: &str, address: Address, value: u32, mask: u32) -> String {
    format!("{name} {} value={value:#x} mask={mask:#x}", Tile(address))
}

fn sync_line(sync: &Sync) -> String {
    let Sync { column, row, direction, channel, n_columns, n_rows } = sync;
    let direction = match direction {
        0 => "s2mm".to_owned(),
        1 => "mm2s".to_owned(),
        other => other.to_string(),
    };
    format!("sync tile({column},{row}) direction={direction} channel={channel} columns={n_columns} rows={n_rows}")
}

/// Padding that is not as usual.
fn write_reserved(line: &mut String, operation: &Operation<'_>, version: Version) -> fmt::Result {
    let usual = Reserved::usual(version, &operation.op);
    let padding = &operation.reserved.padding;
    if operation.reserved.old_layout {
        line.push_str(" layout=0.1");
    }
    if let Some(last) = padding.iter().rposition(|padding| *padding != 0) {
        write_group(line, "reserved", padding.iter().copied().take(last.saturating_add(1)))?;
    }
    if operation.reserved.tail != usual.tail {
        write_group(line, "tail", operation.reserved.tail.iter())?;
    }
    Ok(())
}

fn write_group(line: &mut String, name: &str, words: impl Iterator<Item = u32>) -> fmt::Result {
    write!(line, " {name}(")?;
    for (index, word) in words.enumerate() {
        write!(line, "{}{word:#x}", if index > 0 { ", " } else { "" })?;
    }
    line.push(')');
    Ok(())
}

/// What is known beyond the operation itself.
fn comment(op: &Op<'_>) -> Option<String> {
    match op {
        Op::Write { address, .. }
        | Op::BlockWrite { address, .. }
        | Op::MaskWrite { address, .. }
        | Op::MaskPoll { address, .. }
        | Op::MaskPollBusy { address, .. }
        | Op::UpdateRegister { address, .. } => address.register().map(|register| register.to_string()),
        Op::Patch { argument, address, .. } => {
            let register = address.register().map_or(String::new(), |register| format!(" to {register}"));
            Some(format!("bo{argument}{register}"))
        }
        _ => None,
    }
}

/// An address as the text form has it.
struct Tile(Address);

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { column, row, offset } = self.0;
        write!(f, "tile({column},{row})+{offset:#07x}")
    }
}
