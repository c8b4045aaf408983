//! `xclbin cdo`: the commands of a PDI as text, and text as a CDO.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use xclbin_tools::{
    axlf::{self, Axlf},
    cdo::{self, Cdo},
    pdi::{MAGIC, Pdi},
    section::AiePartition,
    verify::Kind,
};

use super::{
    exit::{Outcome, input, usage},
    files, kind,
};

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
    #[command(after_long_help = grammar())]
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
    #[arg(long, value_name = "N", value_parser = index)]
    pdi: Option<usize>,
    /// Which partition of a PDI, from 0
    #[arg(long, value_name = "N", default_value = "0", value_parser = index)]
    partition: usize,
    /// Where the text goes; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,
}

/// The commands of the text form; a paragraph is a line, which clap breaks where the terminal ends.
fn grammar() -> String {
    let named = cdo::known().filter(|(_, operands)| *operands != "WORD...");
    let named: String = named.map(|(name, operands)| format!("  {name} {operands}\n")).collect();
    let plain: Vec<_> = cdo::known().filter(|(_, operands)| *operands == "WORD...").map(|(name, _)| name).collect();
    format!(
        "Commands and their operands, in this order:\n\n{named}\nWith words alone: {}. `command ID WORD...` is any other.\n\n\
         A name may go on: `.long` puts the length into a word of its own, `.reserved=0x12` sets bits 24 to 31 of the \
         command word. Lines beside commands: `.version 0x132` where it is not 0x200, `.checksum N` where it is wrong, \
         `.padding WORD...` behind the commands, `.bytes BYTE...` where those are no whole word. For example:\n\n  \
         write tile(0,2)+0x1f000 value=0x1  ; lock 0\n  dma_write tile(0,1)+0xa0000\n      0x00000100 0x00000000",
        plain.join(", ")
    )
}

/// A number of a list's element.
fn index(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "a number is expected, 0 for the first".to_owned())
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    match &options.action {
        Action::Asm(options) => {
            let text = files::read_text(&options.text)?;
            let made = files::about(&options.text, cdo::assemble(&text))?;
            files::write(&options.output, &made, options.force)?;
        }
        Action::Dump(options) => dump(options)?,
    }
    Ok(Outcome::Done)
}

fn dump(options: &Dump) -> anyhow::Result<()> {
    let bytes = files::read(&options.file)?;
    let is_xclbin = Kind::of(&bytes) == Some(Kind::Xclbin);
    if options.pdi.is_some() && !is_xclbin {
        return Err(usage("--pdi is for an XCLBIN; this file is none"));
    }
    let text = if is_xclbin {
        dump_xclbin(&bytes, options)?
    } else if bytes.starts_with(&MAGIC) {
        text_of(&options.file, &bytes, options.partition)?
    } else {
        cdo::dump(&kind::parse(&options.file, &bytes, Kind::Cdo, Cdo::parse)?)
    };
    files::write(&options.output, text.as_bytes(), options.force)
}

fn dump_xclbin(bytes: &[u8], options: &Dump) -> anyhow::Result<String> {
    let axlf = files::about(&options.file, Axlf::parse(bytes))?;
    let section = axlf.section(axlf::Kind::AIE_PARTITION);
    let section = section.ok_or_else(|| input("the XCLBIN has no AIE_PARTITION section, which holds PDIs"))?;
    let partition = AiePartition::parse(&section.bytes).map_err(|error| error.within("AIE_PARTITION"));
    let partition = files::about(&options.file, partition)?;
    let n_pdis = partition.pdis.len();
    let index = match options.pdi {
        None if n_pdis > 1 => {
            return Err(usage(format!("the XCLBIN has {n_pdis} PDIs: choose one with --pdi, from 0")));
        }
        chosen => chosen.unwrap_or(0),
    };
    let pdi = partition.pdis.get(index);
    let pdi = pdi.ok_or_else(|| usage(format!("there is no PDI {index}: the XCLBIN has {n_pdis}, from 0")))?;
    text_of(&options.file, &pdi.image, options.partition).with_context(|| format!("PDI {index}"))
}

/// The CDO of a partition of a PDI.
fn text_of(path: &Path, pdi: &[u8], partition: usize) -> anyhow::Result<String> {
    let pdi = files::about(path, Pdi::parse(pdi))?;
    let n_partitions = pdi.partitions.len();
    if partition >= n_partitions {
        return Err(usage(format!("there is no partition {partition}: the PDI has {n_partitions}, from 0")));
    }
    Ok(cdo::dump(&files::about(path, pdi.cdo(partition))?))
}
