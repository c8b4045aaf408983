//! A CDO as text, which [`fn@super::assemble`] turns back into the same bytes.
//!
//! ```text
//! ; a comment ends with its line
//! write tile(0,1)+0xc0000 value=0x1        ; name, address, operands in the order of the file
//! mask_write 0x232000 mask=0x2 value=0x0   ; an address is a number, or a tile's column, row and offset
//! mask_poll tile(0,2)+0x32004 mask=0x1 value=0x0 timeout_us=0x64 flags=0x0 error_code=0x0  ; the last two maybe
//! delay delay_us=0x64
//! dma_write tile(0,1)+0xa0000
//!     0x00000100 0x00000000                ; a line that starts with a number goes on with the words above
//! dma_xfer 0x10 tile(0,1)+0x0 words=0x4 flags=0x0
//! set tile(0,1)+0x0 words=0x4 value=0x0
//! dma_write_keyhole tile(0,1)+0x0 bytes=0x10 0x00000001
//! nop 0x00000000                           ; its padding
//! marker value=0x2 0x00006968              ; its text, as words
//! log_string 0x00006968                    ; a command of which only the name is known: its words
//! command 0xf01 0x00000001                 ; and one of which not even that is, or with another number of words
//! nop.long.reserved=0x12                   ; length in a word of its own; bits 24 to 31 of the command word
//! .version 0x132                           ; where it is not 0x200
//! .checksum 0x00000000                     ; where it is wrong
//! .padding 0x00000000                      ; words behind the commands
//! .bytes 0x00                              ; and bytes, where they are no whole word
//! ```
//!
//! Names are those of [`super::name_of`]. The commands with `64` in their name are those whose address is two
//! words. `#` starts a comment too.

use crate::words::Words;
use std::fmt::Write;

use super::{
    Cdo, VERSION,
    command::{Command, addresses_of_id, fields_of_id, is_typed, name_of},
    stream::{Entry, Form},
};
use crate::array::{Address, Register};

/// Words in a line.
const N_WORDS_IN_LINE: usize = 8;

/// Where a comment starts, if what is before it is shorter.
const COMMENT_COLUMN: usize = 64;

/// Words that stand behind the command itself.
const N_WORDS_BESIDE: usize = 4;

/// The text of a CDO: a comment that counts, then a command a line, with comments that name the registers.
///
/// Of a transformed CDO it is the text of a plain one with the same commands.
#[must_use]
pub fn dump(cdo: &Cdo<'_>) -> String {
    let mut text = String::new();
    let plural = if cdo.commands().nth(1).is_some() { "s" } else { "" };
    let _ = writeln!(text, "; CDO, {} command{plural}", cdo.commands().count());
    if cdo.is_transformed() {
        text.push_str("; of a transformed PDI: NOPs and padding are gone");
        match cdo.missing_bytes() {
            0 => text.push('\n'),
            missing => _ = writeln!(text, ", and the last {missing} bytes of the last data are missing"),
        }
    }
    if cdo.version != VERSION {
        let _ = writeln!(text, ".version {:#x}", cdo.version);
    }
    // A transformed CDO's is over the header of another layout.
    if !cdo.checksum.is_right() && !cdo.is_transformed() {
        let _ = writeln!(text, ".checksum {:#010x}", cdo.checksum.stored);
    }
    for entry in cdo.commands() {
        put_entry(&mut text, &entry);
    }
    put_trailing(&mut text, cdo.trailing);
    text
}

fn put_entry(text: &mut String, entry: &Entry<'_>) {
    let start = text.len();
    put_name(text, &entry.command, entry.form);
    let id = entry.command.id();
    let (operands, data) = entry.command.payload();
    let mut operands = operands.iter().copied();
    if !matches!(entry.command, Command::Other { .. }) {
        for is_wide in addresses_of_id(id) {
            let high = if *is_wide { operands.next().unwrap_or(0) } else { 0 };
            put_address(text, high, operands.next().unwrap_or(0));
        }
    }
    for (name, operand) in fields_of_id(id).iter().zip(operands) {
        let _ = write!(text, " {name}={operand:#x}");
    }
    let is_beside = data.len() <= N_WORDS_BESIDE && !matches!(entry.command, Command::DmaWrite { .. });
    if is_beside {
        data.iter().for_each(|word| _ = write!(text, " {word:#010x}"));
    }
    if let Some(register) = register_of(&entry.command) {
        let n_missing = COMMENT_COLUMN.saturating_sub(text.len().saturating_sub(start));
        let _ = write!(text, "{:n_missing$} ; {register}", "");
    }
    text.push('\n');
    if !is_beside {
        put_words(text, data);
    }
}

fn put_name(text: &mut String, command: &Command<'_>, form: Form) {
    let id = command.id();
    let name = name_of(id).filter(|_| !(matches!(command, Command::Other { .. }) && is_typed(id)));
    match name {
        Some(name) => text.push_str(name),
        None => text.push_str("command"),
    }
    if form.long {
        text.push_str(".long");
    }
    if form.reserved != 0 {
        let _ = write!(text, ".reserved={:#x}", form.reserved);
    }
    if name.is_none() {
        let _ = write!(text, " {id:#x}");
    }
}

fn put_address(text: &mut String, high: u32, low: u32) {
    let _ = match high {
        0 => {
            let Address { column, row, offset } = low.into();
            write!(text, " tile({column},{row})+{offset:#x}")
        }
        _ => write!(text, " {:#x}", u64::from(high) << 32 | u64::from(low)),
    };
}

/// What stands at the address of a command.
fn register_of(command: &Command<'_>) -> Option<Register> {
    let address = match command {
        Command::MaskPoll { address, .. } => *address,
        _ => command.written()?.0,
    };
    Address::from(u32::try_from(address).ok()?).register()
}

fn put_words(text: &mut String, words: Words<'_>) {
    for (index, word) in words.iter().enumerate() {
        let is_first = index % N_WORDS_IN_LINE == 0;
        let before = match index {
            0 => "    ",
            _ if is_first => "\n    ",
            _ => " ",
        };
        let _ = write!(text, "{before}{word:#010x}");
    }
    if !words.is_empty() {
        text.push('\n');
    }
}

fn put_trailing(text: &mut String, trailing: &[u8]) {
    let words = Words::new(trailing);
    if !words.is_empty() {
        text.push_str(".padding\n");
        put_words(text, words);
    }
    let (_, rest) = trailing.as_chunks::<4>();
    if !rest.is_empty() {
        text.push_str(".bytes");
        rest.iter().for_each(|byte| _ = write!(text, " {byte:#04x}"));
        text.push('\n');
    }
}
