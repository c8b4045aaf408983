//! `xclbin elf`: the ELF files that hold instruction streams.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};
use xclbin_tools::{
    Error,
    elf::{self, Config, Elf, Note, Partial, section_kind},
    txn::Stream,
    verify::Kind,
};

use super::{
    exit::Outcome,
    files, kind,
    output::{self, Listed, word},
};

/// Build and read ELF files with instruction streams, as aiebu makes them
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Build(Build),
    Dump(Dump),
}

/// Build an ELF file: from a stream, to go with an XCLBIN, or from a configuration, with PDIs
///
/// The same bytes as Debian's aiebu-asm 1.0.0 makes with `-t aie2txn` of a stream and with `-t aie2_config` of a
/// configuration. Arguments 5 and up must not have 0x80000000 in their offsets, which streams for instruction buffers
/// have: see `xclbin txn patch --unfold`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["stream", "config"])))]
struct Build {
    /// The instruction stream (insts.bin)
    #[arg(long, value_name = "FILE")]
    stream: Option<PathBuf>,
    /// Control packets that the stream sends
    #[arg(long, value_name = "FILE", requires = "stream")]
    control_packets: Option<PathBuf>,
    /// JSON (`external_buffers` or `ctrl_pkt_patch_info`) that says which argument the control packets are, and which
    /// arguments' addresses they hold
    #[arg(long, value_name = "FILE", requires = "stream")]
    patch_info: Option<PathBuf>,
    /// JSON with `xrt-kernels`: kernels, their PDIs and streams; files it names are looked for beside it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the ELF file goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

/// Print sections, symbols, patches and notes of an ELF file, and its streams as text
#[derive(clap::Args)]
struct Dump {
    /// The ELF file; `-` is standard input
    input: PathBuf,
    /// Write JSON instead
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    match &options.action {
        Action::Build(build) => {
            let bytes = match &build.config {
                Some(config) => from_config(config)?,
                None => from_stream(build)?,
            };
            files::write(&build.output, &bytes, build.force)?;
        }
        Action::Dump(dump) => {
            let bytes = files::read(&dump.input)?;
            let elf = kind::parse(&dump.input, &bytes, Kind::Elf, Elf::parse)?;
            if dump.json {
                print_json(&elf)?;
            } else {
                output::print(&to_text(&elf)?)?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn from_stream(build: &Build) -> anyhow::Result<Vec<u8>> {
    let stream_path = build.stream.as_deref().unwrap_or(Path::new(""));
    let stream = files::read(stream_path)?;
    kind::parse(stream_path, &stream, Kind::Stream, Stream::parse)?;
    let control_packets = build.control_packets.as_deref().map(files::read).transpose()?;
    if let (Some(path), Some(bytes)) = (&build.control_packets, &control_packets) {
        kind::refuse_known(path, bytes, "control packets")?;
    }
    let patch_info = build.patch_info.as_deref().map(files::read_text).transpose()?;
    let partial =
        Partial { stream: &stream, control_packets: control_packets.as_deref(), patch_info: patch_info.as_deref() };
    // Its stream is whole by now: what is left to refuse is about the patches, and where there are none, about it.
    files::about(build.patch_info.as_deref().unwrap_or(stream_path), elf::partial(&partial))
}

fn from_config(path: &Path) -> anyhow::Result<Vec<u8>> {
    let config = files::about(path, Config::parse(&files::read_text(path)?))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut unreadable = None;
    let built = elf::full(&config, &mut |name| {
        files::read(&folder.join(name)).map_err(|error| {
            let bound = format!("{error:#}");
            unreadable = Some(error);
            Error::Value { path: "configuration".to_owned(), value: name.to_owned(), bound }
        })
    });
    // The error of the file itself says more.
    unreadable.map_or(Ok(built?), Err)
}

fn form(elf: &Elf<'_>) -> &'static str {
    if elf.is_full() { "full" } else { "partial" }
}

fn section_kind_name(kind: u32) -> String {
    let name = match kind {
        0 => "empty",
        section_kind::DATA => "data",
        section_kind::SYMBOLS => "symbols",
        section_kind::STRINGS => "strings",
        section_kind::RELOCATIONS => "relocations",
        section_kind::DYNAMIC => "dynamic",
        section_kind::NOTE => "notes",
        section_kind::DYNAMIC_SYMBOLS => "dynamic symbols",
        section_kind::GROUP => "group",
        _ => return format!("{kind:#x}"),
    };
    name.to_owned()
}

/// What a note says, in words.
fn description(note: &Note<'_>) -> String {
    let hex = || note.description.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match (note.kind, note.description) {
        (Note::UID, _) => format!("UID {}", hex()),
        (Note::COLUMNS, &[a, b, c, d]) => format!("{} columns", u32::from_le_bytes([a, b, c, d])),
        _ => hex(),
    }
}

fn row(cells: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    cells.into_iter().map(|cell| cell.to_string()).collect()
}

fn to_text(elf: &Elf<'_>) -> anyhow::Result<String> {
    let mut text = tables(elf, output::table)?;
    for (name, stream) in elf.streams() {
        text.push_str(&format!("\n{}:\n{}", word(name), stream?.to_text()));
    }
    Ok(text)
}

/// Sections, symbols, notes and patches.
pub(super) fn tables(elf: &Elf<'_>, table: fn(&[Vec<String>]) -> String) -> xclbin_tools::Result<String> {
    let mut text = format!("{} file, ABI version {:#x}\n", form(elf), elf.abi_version);
    let mut put = |title: &str, rows: &[Vec<String>]| text.push_str(&format!("\n{title}\n{}", table(rows)));
    let mut sections = vec![row(["section", "name", "kind", "offset", "size", "address", "link", "info"])];
    for (index, section) in elf.sections.iter().enumerate() {
        sections.push(vec![
            index.to_string(),
            section.name.to_owned(),
            section_kind_name(section.kind),
            format!("{:#x}", section.offset),
            format!("{:#x}", section.data.len()),
            format!("{:#x}", section.address),
            section.link.to_string(),
            section.info.to_string(),
        ]);
    }
    put("Sections", &sections);
    for section in &elf.sections {
        match section.kind {
            section_kind::SYMBOLS | section_kind::DYNAMIC_SYMBOLS => {
                let mut rows = vec![row(["symbol", "name", "size", "info", "section"])];
                for (index, symbol) in elf.symbols(section)?.iter().enumerate() {
                    let (size, info) = (format!("{:#x}", symbol.size), format!("{:#x}", symbol.info));
                    rows.push(row([&index.to_string(), symbol.name, &size, &info, &symbol.section.to_string()]));
                }
                put(&format!("Symbols of {}", word(section.name)), &rows);
            }
            section_kind::NOTE => {
                let rows: Vec<_> =
                    elf.notes(section)?.iter().map(|note| row([note.name, &description(note)])).collect();
                put(&format!("Notes of {}", word(section.name)), &rows);
            }
            _ => {}
        }
    }
    let mut patches = vec![row(["section", "offset", "patched in", "schema", "addend", "size or mask"])];
    for (section, symbol, relocation) in elf.patches()? {
        let (offset, addend) = (format!("{:#x}", relocation.offset), format!("{:#x}", relocation.addend));
        let size = format!("{:#x}", symbol.size);
        patches.push(row([section.name, &offset, symbol.name, relocation.schema.name(), &addend, &size]));
    }
    put("Patches", &patches);
    Ok(text)
}

/// All that may be wrong is read before the first byte is written; then lists go out element by element.
fn print_json(elf: &Elf<'_>) -> anyhow::Result<()> {
    let sections = elf.sections.iter().enumerate().map(|(index, section)| Section::of(elf, index, section));
    let patches = elf.patches()?;
    let patch = |(section, symbol, relocation): &(elf::Section<'_>, elf::Symbol<'_>, elf::Relocation)| {
        json!({
            "section": section.name,
            "offset": relocation.offset,
            "name": symbol.name,
            "schema": relocation.schema.name(),
            "addend": relocation.addend,
            "size": symbol.size,
        })
    };
    output::print_json(&Document {
        version: output::JSON_VERSION,
        kind: form(elf),
        abi_version: elf.abi_version,
        sections: sections.collect::<anyhow::Result<_>>()?,
        patches: Listed(|| patches.iter().map(patch)),
        streams: elf.streams().map(|(name, stream)| Ok((name, stream?))).collect::<anyhow::Result<_>>()?,
    })
}

/// What `elf dump --json` prints.
#[derive(Serialize)]
struct Document<'a, P> {
    version: u32,
    kind: &'static str,
    abi_version: u8,
    sections: Vec<Section<'a>>,
    patches: P,
    streams: BTreeMap<&'a str, Stream<'a>>,
}

#[derive(Serialize)]
struct Section<'a> {
    #[serde(flatten)]
    header: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbols: Option<Vec<Symbol<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<Vec<Value>>,
}

#[derive(Serialize)]
struct Symbol<'a> {
    name: &'a str,
    size: u32,
    info: u8,
    section: u16,
}

impl<'a> Section<'a> {
    fn of(elf: &Elf<'a>, index: usize, section: &elf::Section<'a>) -> anyhow::Result<Section<'a>> {
        let header = json!({
            "index": index,
            "name": section.name,
            "kind": section_kind_name(section.kind),
            "flags": section.flags,
            "offset": section.offset,
            "size_bytes": section.data.len(),
            "address": section.address,
            "link": section.link,
            "info": section.info,
        });
        let symbol = |symbol: elf::Symbol<'a>| Symbol {
            name: symbol.name,
            size: symbol.size,
            info: symbol.info,
            section: symbol.section,
        };
        let note = |note: Note<'_>| json!({ "kind": note.kind, "description": description(&note) });
        let is_symbols = matches!(section.kind, section_kind::SYMBOLS | section_kind::DYNAMIC_SYMBOLS);
        let symbols =
            is_symbols.then(|| elf.symbols(section)).transpose()?.map(|all| all.into_iter().map(symbol).collect());
        let notes = (section.kind == section_kind::NOTE).then(|| elf.notes(section)).transpose()?;
        Ok(Section { header, symbols, notes: notes.map(|all| all.into_iter().map(note).collect()) })
    }
}
