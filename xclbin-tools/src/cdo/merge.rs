//! One CDO of several, as bootgen makes the data of a partition.
//!
//! bootgen decodes each file and encodes it anew, so that a command has one form only: the narrow one where an
//! address fits, no zero flags, a `dma_write` of one word as `write`. In front of a `dma_write` it puts a NOP
//! such that the data lie as their destination does: `byte / 4 % 4` in the file is `address / 4 % 4`. It counts
//! from the start of each file's own CDO, so that the data of a second file need not be aligned in the merged one.
//! What stands behind an end mark is dropped, and the mark.
//!
//! What NPU files do not hold and bootgen would change is left out here: its split of blocks for the NPI's
//! addresses (0xf6000000 to 0xf8000000), and the padding of texts.
//!
//! Source: `Xilinx/bootgen:cdo-binary.c`, `encode_v2_cmd`; `imageheadertable-versal.cpp`, `ParseCdos`.

use super::{Cdo, HEADER_BYTES, build::Builder, command::Command};
use crate::error::{Error, Result};
use crate::words::Words;

const END_MARK: u16 = 0x100;

/// Commands whose payload holds or counts other commands; padding between those would change its length.
const NESTED: [u16; 4] = [0x11a, 0x11b, 0x11c, 0x11f];

/// One CDO of version 2.0 with the commands of all, byte for byte what bootgen makes of them. Existing NOPs stay.
///
/// # Errors
/// If one is transformed, or has nested commands (`proc`, `block_begin`, `psm_sequence`), whose lengths padding
/// would make wrong.
pub fn merge(cdos: &[Cdo<'_>]) -> Result<Vec<u8>> {
    let mut builder = Builder::new();
    for (index, cdo) in cdos.iter().enumerate() {
        append(&mut builder, cdo).map_err(|error| error.within(format!("CDO {index}")))?;
    }
    Ok(builder.finish())
}

fn append(builder: &mut Builder, cdo: &Cdo<'_>) -> Result<()> {
    if cdo.is_transformed() {
        let advice = "the result of aie-pdi-transform is no input: dump it as text, and assemble that";
        return Err(Error::refused("CDO", "transformed", advice));
    }
    let start_words = builder.length_words();
    for entry in cdo.commands() {
        let command = usual(entry.command);
        let id = command.id();
        if id == END_MARK {
            break;
        }
        if NESTED.contains(&id) {
            let advice = "commands within commands are not merged; no NPU loads them";
            return Err(Error::refused("command", format!("{id:#x}"), advice));
        }
        let at = builder.length_words().saturating_sub(start_words).saturating_add(HEADER_BYTES / 4);
        pad(builder, at, &command);
        builder.push(&command);
    }
    Ok(())
}

/// The one form that bootgen writes.
fn usual(command: Command<'_>) -> Command<'_> {
    let is_high = |address: u64| address > u64::from(u32::MAX);
    match command {
        Command::DmaWrite { address, data } => match (data.len(), data.iter().next()) {
            (1, Some(value)) => Command::Write { address, value, wide: is_high(address) },
            _ => command,
        },
        Command::Write { address, value, .. } => Command::Write { address, value, wide: is_high(address) },
        Command::MaskWrite { address, mask, value, .. } => {
            Command::MaskWrite { address, mask, value, wide: is_high(address) }
        }
        Command::MaskPoll { address, mask, value, timeout_us, flags, error_code, .. } => {
            let error_code = error_code.filter(|code| *code != 0);
            let flags = flags.filter(|flags| *flags != 0 || error_code.is_some());
            Command::MaskPoll { address, mask, value, timeout_us, flags, error_code, wide: is_high(address) }
        }
        other => other,
    }
}

/// A NOP of as many words as bring the data of `command`, which is to start at word `at`, to their place.
fn pad(builder: &mut Builder, at: u64, command: &Command<'_>) {
    let (address, n_operands, n_data) = match command {
        Command::DmaWrite { address, data } => (*address, 2_u64, data.len() as u64),
        Command::DmaWriteKeyhole { address, data, .. } => (*address, 3, data.len() as u64),
        _ => return,
    };
    let n_words = if n_operands.saturating_add(n_data) < 255 { 1 } else { 2 };
    let data_at = at.wrapping_add(n_words).wrapping_add(n_operands);
    let n_missing = (address >> 2).wrapping_sub(data_at) & 3;
    const ZEROS: [u8; 8] = [0; 8];
    let padding = match n_missing {
        0 => return,
        1 => &ZEROS[..0],
        2 => &ZEROS[..4],
        _ => &ZEROS[..],
    };
    builder.push(&Command::Nop { padding: Words::new(padding) });
}

#[cfg(test)]
mod tests;
