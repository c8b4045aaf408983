//! `xclbin txn`: instruction streams as text, and changed.

use std::{
    collections::BTreeSet,
    num::IntErrorKind,
    path::{Path, PathBuf},
};

use xclbin_tools::{
    array::Device,
    txn::{self, Edit, Place, Stream},
    verify::Kind,
};

use super::{
    exit::{Outcome, usage},
    files, kind, output,
};

/// Read, write and change instruction streams (insts.bin)
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Dump(Dump),
    Asm(Asm),
    Patch(Patch),
}

/// Print a stream as text that `xclbin txn asm` makes the same bytes of
#[derive(clap::Args)]
struct Dump {
    /// The stream; `-` is standard input
    input: PathBuf,
    /// Where the text goes
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Write JSON instead; padding is left out of it
    #[arg(long)]
    json: bool,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

/// A paragraph is a line: clap breaks it where the terminal ends.
const ASM: &str = "\
Make a stream of its text form

A line an operation, as `xclbin txn dump` prints them:

  stream version=0.1 generation=3 rows=6 columns=4 memory_tile_rows=1
  block_write tile(0,0)+0x1d000
      0x00000400 0x00000000 0x00000000 0x00000000
      0x80000000 0x00000000 0x00000000 0x02000000
  patch tile(0,0)+0x1d004 argument=0 offset=0x0
  write tile(0,0)+0x1d204 value=0x80000000
  sync tile(0,0) direction=s2mm channel=0 columns=1 rows=1

Also mask_write, mask_poll, mask_poll_busy (value= mask=), noop, preempt (level=), load_pdi (id= size= address=), load_pm (id= operations=), create_scratchpad (usage= size= offset=), update_state (index= function= argument=), update_register (a register, and the same), update_scratch, timer (id=), merge_sync (tokens= columns=) and custom (code=, then words). `;` starts a comment. Generation 3 is npu1, 4 is npu2 and npu4. Arguments count from bo0, which is the kernel's argument 3.";

#[derive(clap::Args)]
#[command(about = "Make a stream of its text form", long_about = ASM)]
struct Asm {
    /// The text; `-` is standard input
    input: PathBuf,
    /// Where the stream goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

/// Change a stream: arguments, registers, columns, device
///
/// What is asked for must occur in the stream. Changes are made in the order in which they are listed here.
/// An ADDRESS is `tile(COLUMN,ROW)+OFFSET` or 32 bits as a number; INDEX is the place of an operation, from 0, and
/// only needed where several operations have the register. An ARGUMENT counts from bo0, the kernel's argument 3.
#[derive(clap::Args)]
struct Patch {
    /// The stream; `-` is standard input
    input: PathBuf,
    /// Where the stream goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    /// Take 0x80000000 away from the offsets of arguments 5 and up: from the form for instruction buffers, where the
    /// firmware translates the first five alone, to that for ELF files
    #[arg(long, conflicts_with = "fold")]
    unfold: bool,
    /// Give an argument's patches another argument; several at once, so that arguments can be swapped
    #[arg(long, value_name = "FROM=TO", value_parser = pair::<u64>)]
    argument: Vec<(u64, u64)>,
    /// Patch a register with an argument's address, right behind the operation that writes it
    #[arg(long, value_name = "[INDEX:]ADDRESS=ARGUMENT", value_parser = at_place::<u64>)]
    add_patch: Vec<(Place, u64)>,
    /// Set the byte offset in an argument's patches
    #[arg(long, value_name = "ARGUMENT=BYTES", value_parser = pair::<u64>)]
    offset: Vec<(u64, u64)>,
    /// Add to the byte offset in an argument's patches
    #[arg(long, value_name = "ARGUMENT=BYTES", value_parser = pair::<i64>)]
    add_offset: Vec<(u64, i64)>,
    /// Set the value that a register is written with or polled for
    #[arg(long, value_name = "[INDEX:]ADDRESS=VALUE", value_parser = at_place::<u32>)]
    word: Vec<(Place, u32)>,
    /// Set the mask that a register is written or polled with
    #[arg(long, value_name = "[INDEX:]ADDRESS=MASK", value_parser = at_place::<u32>)]
    mask: Vec<(Place, u32)>,
    /// Set the number of columns in the header
    #[arg(long, value_name = "COUNT")]
    columns: Option<u8>,
    /// Move everything to other columns, to the right or, below 0, to the left
    #[arg(long, value_name = "COLUMNS", allow_negative_numbers = true)]
    shift_columns: Option<i8>,
    /// Set the device: npu1, npu2, npu4, or the number of a generation
    #[arg(long, value_name = "DEVICE", value_parser = generation)]
    device: Option<u8>,
    /// Add 0x80000000 to the offsets of arguments 5 and up: the reverse of --unfold
    #[arg(long)]
    fold: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    match &options.action {
        Action::Dump(dump) => {
            let bytes = files::read(&dump.input)?;
            let stream = parse(&dump.input, &bytes)?;
            if dump.json {
                write_json(dump, &Json { version: output::JSON_VERSION, stream })?;
            } else {
                files::write(&dump.output, stream.to_text().as_bytes(), dump.force)?;
            }
        }
        Action::Asm(asm) => {
            let bytes = files::about(&asm.input, txn::assemble(&files::read_text(&asm.input)?))?;
            files::write(&asm.output, &bytes, asm.force)?;
        }
        Action::Patch(patch) => {
            let mut bytes = files::read(&patch.input)?;
            let mut seen = BTreeSet::new();
            if let Some((from, _)) = patch.argument.iter().find(|(from, _)| !seen.insert(from)) {
                return Err(usage(format!("--argument {from}=... is given twice: an argument becomes one other")));
            }
            let edits = edits(patch);
            if edits.is_empty() {
                return Err(usage("no change is asked for: `xclbin txn patch --help` lists them"));
            }
            for edit in edits {
                bytes = files::about(&patch.input, parse(&patch.input, &bytes)?.edited(&edit))?;
            }
            files::write(&patch.output, &bytes, patch.force)?;
        }
    }
    Ok(Outcome::Done)
}

/// The document of `--json`.
#[derive(serde::Serialize)]
struct Json<'b> {
    version: u32,
    stream: Stream<'b>,
}

fn write_json(dump: &Dump, json: &Json<'_>) -> anyhow::Result<()> {
    if dump.output == Path::new("-") {
        return output::print_json(json);
    }
    let mut text = serde_json::to_string_pretty(json)?;
    text.push('\n');
    files::write(&dump.output, text.as_bytes(), dump.force)
}

fn parse<'b>(path: &Path, bytes: &'b [u8]) -> anyhow::Result<Stream<'b>> {
    kind::parse(path, bytes, Kind::Stream, Stream::parse)
}

fn edits(patch: &Patch) -> Vec<Edit> {
    let mut edits = Vec::new();
    edits.extend(patch.unfold.then_some(Edit::Unfold));
    edits.extend((!patch.argument.is_empty()).then(|| Edit::Renumber(patch.argument.clone())));
    let add_patch = |&(place, argument)| Edit::AddPatch { place, argument, offset_bytes: 0 };
    edits.extend(patch.add_patch.iter().map(add_patch));
    edits.extend(patch.offset.iter().map(|&(argument, offset_bytes)| Edit::SetOffset { argument, offset_bytes }));
    edits.extend(patch.add_offset.iter().map(|&(argument, by_bytes)| Edit::AddOffset { argument, by_bytes }));
    edits.extend(patch.word.iter().map(|&(place, value)| Edit::SetWord { place, value }));
    edits.extend(patch.mask.iter().map(|&(place, mask)| Edit::SetMask { place, mask }));
    edits.extend(patch.columns.map(Edit::SetColumns));
    edits.extend(patch.shift_columns.map(Edit::ShiftColumns));
    edits.extend(patch.device.map(Edit::SetGeneration));
    edits.extend(patch.fold.then_some(Edit::Fold));
    edits
}

/// `KEY=VALUE` of numbers.
fn pair<T: TryFrom<i128>>(text: &str) -> Result<(u64, T), String> {
    let (key, value) = text.split_once('=').ok_or("two numbers with `=` between them are expected")?;
    Ok((number(key)?, number(value)?))
}

/// `PLACE=VALUE`.
fn at_place<T: TryFrom<i128>>(text: &str) -> Result<(Place, T), String> {
    let (place, value) = text.rsplit_once('=').ok_or("a place and a number with `=` between them are expected")?;
    Ok((place.parse().map_err(|error: xclbin_tools::Error| error.to_string())?, number(value)?))
}

/// A number, decimal or `0x`, perhaps with a sign.
fn number<T: TryFrom<i128>>(text: &str) -> Result<T, String> {
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let value = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    let value = value.map(i128::from).map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow => format!("{text} is too large: a number of at most 64 bits is expected"),
        _ => format!("{text:?} is no number, decimal or 0x..."),
    })?;
    let value = if is_negative { value.saturating_neg() } else { value };
    T::try_from(value).map_err(|_| format!("{text} is too large or too small"))
}

fn generation(text: &str) -> Result<u8, String> {
    match Device::by_name(text) {
        Some(device) => Ok(device.generation),
        None => number(text).map_err(|_| "npu1, npu2, npu4, or the number of a generation".to_owned()),
    }
}
