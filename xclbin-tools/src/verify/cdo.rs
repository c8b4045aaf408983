//! Rules for CDOs: header, commands, and cores that start without a program.

use std::fmt;

use super::{
    Findings,
    address::{self, Access, Columns},
    rule::rules,
};
use crate::{
    array::Register,
    cdo::{Cdo, Command, name_of},
};

rules! {
    MALFORMED: Error "cdo-malformed" {
        asks: "a CDO's header and the lengths of its commands can be followed to the end",
        effect: "the firmware stops at the first command that it cannot read: the array is configured in part",
        mend: "make the CDO anew; a file that was cut or edited by hand cannot be repaired",
        source: "Xilinx/bootgen:cdo-binary.c",
    }
    CHECKSUM: Error "cdo-checksum" {
        asks: "the checksum of a CDO's header is the inverted sum of its words",
        effect: "a loader that checks it refuses the image: creating a context fails",
        mend: "write the checksum anew; if the header is damaged, make the CDO anew",
        source: "Xilinx/bootgen:cdo-binary.c",
    }
    COMMAND: Warning "cdo-command" {
        asks: "a CDO has commands that the loader in NPU firmware knows: mask_write, write, dma_write, NOP",
        effect: "the loader stops at the command: what follows is not configured",
        mend: "generate the CDO for an NPU, with writes alone",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/aie-pdi-transform/lib/cdo_cmd.c",
    }
    CUT: Warning "cdo-cut" {
        asks: "the data of a transformed CDO end with the image",
        effect: "the loader takes up to 20 bytes from behind the image for the end of the last block",
        mend: "transform the original PDI with a newer aie-pdi-transform, or leave it as it was",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/aie-pdi-transform/src/pdi-transform.c",
    }
    NO_PROGRAM: Warning "core-without-program" {
        asks: "a core that a PDI enables has its program from the same PDI",
        effect: "the core runs what an earlier kernel left in its program memory, or hangs",
        mend: "add the core's ELF to the PDI, or leave the core disabled if a launch loads the program",
        source: "https://docs.amd.com/r/en-US/am020-versal-aie-ml/AIE-ML-Tile-Architecture",
    }
}

/// What is known about the place of a CDO.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Where the CDO is.
    pub(super) place: &'a dyn fmt::Display,
    /// The columns that it may reach.
    pub(super) columns: Columns,
    /// Whether another image is loaded before this one, so that programs may be there already.
    pub(super) is_later: bool,
}

/// Checks a CDO that stands alone.
pub(super) fn check_bytes(bytes: &[u8], context: Context<'_>, found: &mut Findings) {
    match Cdo::parse(bytes) {
        Ok(cdo) => check(&cdo, context, found),
        Err(error) => found.add_error(&MALFORMED, context.place, &error),
    }
}

/// Checks what a parser of a PDI's partition returned.
pub(super) fn check_parsed(cdo: crate::Result<Cdo<'_>>, context: Context<'_>, found: &mut Findings) {
    match cdo {
        Ok(cdo) => check(&cdo, context, found),
        Err(error) => found.add_error(&MALFORMED, context.place, &error),
    }
}

fn check(cdo: &Cdo<'_>, context: Context<'_>, found: &mut Findings) {
    let place = context.place;
    if !cdo.checksum.is_right() {
        let value = format_args!("{:#010x}", cdo.checksum.stored);
        found.add(&CHECKSUM, place, value, format_args!("the words give {:#010x}", cdo.checksum.computed));
    }
    if cdo.missing_bytes() > 0 {
        let value = format_args!("{} bytes of the last block", cdo.missing_bytes());
        found.add(&CUT, place, value, "lie behind the image's end");
    }
    let mut cores = Cores::default();
    for (index, entry) in cdo.commands().enumerate() {
        let place = format_args!("{place}, command {index}");
        check_command(&entry.command, context.columns, &place, &mut cores, found);
    }
    if !context.is_later {
        cores.check(place, found);
    }
}

fn check_command(
    command: &Command<'_>,
    columns: Columns,
    place: &dyn fmt::Display,
    cores: &mut Cores,
    found: &mut Findings,
) {
    if !command.is_loadable() {
        let name = name_of(command.id()).unwrap_or("unknown");
        found.add(&COMMAND, place, format_args!("command {:#x} ({name})", command.id()), "writes and NOPs");
    }
    if let Command::MaskPoll { address, mask, value, .. } = *command {
        address::check(Access { address, size_bytes: 4 }, columns, place, found);
        address::check_poll(mask, value, place, found);
    }
    if let Some((address, n_words)) = command.written() {
        let access = Access { address, size_bytes: n_words.saturating_mul(4) };
        if let Some((to, register)) = address::check(access, columns, place, found) {
            cores.note(to.column, to.row, register, set_bits(command));
        }
    }
}

/// The bits that a command sets in the first word that it writes.
fn set_bits(command: &Command<'_>) -> u32 {
    match *command {
        Command::MaskWrite { mask, value, .. } => value & mask,
        Command::Write { value, .. } | Command::Set { value, .. } => value,
        Command::DmaWrite { data, .. } => data.iter().next().unwrap_or(0),
        _ => 0,
    }
}

/// Which cores were enabled, and which have a program.
struct Cores {
    /// Bits of rows by column.
    enabled: [u32; 128],
    programmed: [u32; 128],
}

impl Default for Cores {
    fn default() -> Cores {
        Cores { enabled: [0; 128], programmed: [0; 128] }
    }
}

impl Cores {
    fn note(&mut self, column: u8, row: u8, register: Register, set_bits: u32) {
        let rows = match register {
            Register::CoreControl if set_bits & 1 != 0 => &mut self.enabled,
            Register::Program(_) => &mut self.programmed,
            _ => return,
        };
        if let Some(rows) = rows.get_mut(usize::from(column)) {
            *rows |= 1_u32.checked_shl(row.into()).unwrap_or(0);
        }
    }

    fn check(&self, place: &dyn fmt::Display, found: &mut Findings) {
        for (column, (enabled, programmed)) in self.enabled.iter().zip(&self.programmed).enumerate() {
            let bare = enabled & !programmed;
            for row in (0..32_u32).filter(|&row| bare.checked_shr(row).unwrap_or(0) & 1 != 0) {
                let value = format_args!("core of column {column}, row {row} is enabled");
                found.add(&NO_PROGRAM, place, value, "nothing is written to its program memory");
            }
        }
    }
}
