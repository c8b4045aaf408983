//! `xclbin cdo`: the commands of a PDI as text, and text as a CDO.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use xclbin_tools::{
    cdo::{self, Cdo},
    pdi::{MAGIC, Pdi},
};

use super::{exit::Outcome, files, output};

/// Read and write CDOs: the commands inside a PDI
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a CDO of its text
    ///
    /// A line is a command: a name, an address, operands; a line that starts with a number goes on with the words
    /// of the one above. `;` starts a comment. An address is a number or `tile(COLUMN,ROW)+OFFSET`, its column
    /// counted from the first of the partition. `xclbin cdo dump` writes such texts; every CDO has one that gives
    /// the same bytes.
    Asm(Asm),
    /// Write a CDO as text
    ///
    /// The text names the register of each address in a comment. `xclbin cdo asm` makes the same bytes of it. The
    /// result of aie-pdi-transform becomes the text of a plain CDO with the same commands.
    Dump(Dump),
}

#[derive(Args)]
struct Asm {
    /// The text; `-` is standard input
    text: PathBuf,
    /// Where the CDO goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct Dump {
    /// A CDO, a PDI or an XCLBIN; `-` is standard input
    file: PathBuf,
    /// Which PDI of an XCLBIN, from 0; needed if it has several
    #[arg(long, value_name = "N")]
    pdi: Option<usize>,
    /// Which partition of a PDI, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    partition: usize,
    /// Where the text goes; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    match &options.action {
        Action::Asm(options) => {
            let text = files::read_text(&options.text)?;
            files::write(&options.output, &cdo::assemble(&text)?, options.force)?;
        }
        Action::Dump(options) => dump(options)?,
    }
    Ok(Outcome::Done)
}

fn dump(options: &Dump) -> anyhow::Result<()> {
    let bytes = files::read(&options.file)?;
    let text = if bytes.starts_with(&MAGIC) {
        cdo::dump(&Pdi::parse(&bytes)?.cdo(options.partition)?)
    } else {
        cdo::dump(&Cdo::parse(&bytes)?)
    };
    files::write(&options.output, text.as_bytes(), options.force)
}
