//! `xclbin draw`: a picture of what the array is made.

use std::path::{Path, PathBuf};

use xclbin_tools::{
    array::{Device, Event, Place, Program},
    axlf::{Axlf, Kind as SectionKind},
    cdo::Cdo,
    draw::Picture,
    elf::Elf,
    pdi::Pdi,
    section::AiePartition,
    txn::Stream,
    verify::Kind,
};

use super::{
    exit::{Outcome, input, usage},
    files, kind,
    output::note,
};

/// Draw the array: tiles, buffers, DMA channels and the flows between them
///
/// Writes SVG. Buffers stand to scale in the memories of their tiles, in the colours of the flows that fill and drain
/// them; every wire is a port of a stream switch. Small print is in tooltips: point at a tile, a buffer or a wire.
/// Packages (.xclbin), PDIs, CDOs, instruction streams (insts.bin) and aiebu's ELF files (a PDI if there is one, and the
/// first stream) are told apart by their first bytes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to draw; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which of the PDIs of a package or an ELF file, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pdi: usize,
    /// An instruction stream that is launched on it: shows what it writes on top, as the buffers in host memory
    #[arg(long, value_name = "FILE")]
    insts: Option<PathBuf>,
    /// One tile alone, with a list of its locks, buffer descriptors and streams
    #[arg(long, value_name = "COLUMN,ROW", value_parser = place, allow_hyphen_values = true)]
    tile: Option<Place>,
    /// Where the picture goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

fn place(text: &str) -> Result<Place, String> {
    let place = text.split_once(',').and_then(|(column, row)| {
        let (column, row) = (column.trim().parse().ok()?, row.trim().parse().ok()?);
        (column < Device::N_COLUMNS_MAX && row < Device::N_ROWS).then_some(Place { column, row })
    });
    place.ok_or_else(|| "a column from 0 to 7 and a row from 0 to 5 are expected, as 0,2".to_owned())
}

/// What a file writes, to how many columns, and what it is called.
struct Drawn<'a> {
    title: String,
    /// As the file says.
    n_columns: Option<u8>,
    events: Vec<Event<'a>>,
}

/// Draws the file.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let bytes = files::read(&options.file)?;
    let name = name(&options.file);
    let kind = Kind::of(&bytes);
    if options.pdi != 0 && !matches!(kind, Some(Kind::Xclbin | Kind::Elf)) {
        return Err(usage("--pdi is for packages (.xclbin) and ELF files: others have one image"));
    }
    if options.insts.is_some() && kind == Some(Kind::Stream) {
        return Err(usage(format!("{name} is an instruction stream itself: --insts is for what it is launched on")));
    }
    let drawn = drawn(&bytes, kind::of(&options.file, &bytes)?, options.pdi, name);
    let Drawn { title, n_columns, mut events } = named(&options.file, drawn)?;
    let insts = options.insts.as_deref().map(files::read).transpose()?;
    if let (Some(path), Some(insts)) = (&options.insts, &insts) {
        kind::expect(path, insts, Kind::Stream)?;
        events.extend(named(path, of_stream(insts, String::new()))?.events);
    }
    let n_columns = n_columns.unwrap_or_else(|| width(&events));
    if let Some(place) = options.tile.filter(|place| place.column >= n_columns) {
        return Err(usage(format!(
            "tile {place}: the partition has no such column, its last is {}",
            n_columns.saturating_sub(1)
        )));
    }
    let mut program = Program::new(n_columns);
    program.extend(events);
    if program.n_outside() > 0 {
        note(format_args!(
            "xclbin: {} words are written where the partition has nothing: `xclbin verify` says where",
            program.n_outside()
        ));
    }
    let svg = Picture { title: &title, program: &program, tile: options.tile }.svg();
    files::write(&options.output, svg.as_bytes(), options.force)?;
    Ok(Outcome::Done)
}

fn drawn(bytes: &[u8], kind: Kind, pdi: usize, name: String) -> anyhow::Result<Drawn<'_>> {
    match kind {
        Kind::Xclbin => of_package(bytes, pdi, &name),
        Kind::Pdi => of_pdi(bytes, None, name),
        Kind::Cdo => Ok(Drawn { title: name, n_columns: None, events: events(&Cdo::parse(bytes)?) }),
        Kind::Elf => of_elf(bytes, pdi, name),
        Kind::Stream => of_stream(bytes, name),
    }
}

/// An error of the library under the file's name; ours have it.
fn named<T>(path: &Path, made: anyhow::Result<T>) -> anyhow::Result<T> {
    made.map_err(|error| match error.is::<xclbin_tools::Error>() {
        true => error.context(path.display().to_string()),
        false => error,
    })
}

fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| "-".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn of_package<'a>(bytes: &'a [u8], index: usize, name: &str) -> anyhow::Result<Drawn<'a>> {
    let axlf = Axlf::parse(bytes)?;
    // The section borrows from the file unless a section was changed.
    let section = axlf.sections().iter().find(|section| section.kind == SectionKind::AIE_PARTITION);
    let section = section.ok_or_else(|| input(format!("{name} has no AIE_PARTITION, which has the PDIs")))?;
    let std::borrow::Cow::Borrowed(section) = section.bytes else {
        return Err(input(format!("{name}: AIE_PARTITION was changed")));
    };
    let partition = AiePartition::parse(section).map_err(|error| error.within("AIE_PARTITION"))?;
    let n_pdis = partition.pdis.len();
    let image = partition.pdis.get(index).map(|pdi| pdi.image.clone());
    let Some(std::borrow::Cow::Borrowed(image)) = image else {
        return Err(usage(format!("--pdi {index}: {name} has {n_pdis} of them, counted from 0")));
    };
    let n_columns = u8::try_from(partition.column_width).unwrap_or(u8::MAX).clamp(1, Device::N_COLUMNS_MAX);
    let title = if n_pdis > 1 { format!("{name}, PDI {index} of {n_pdis}") } else { name.to_owned() };
    of_pdi(image, Some(n_columns), title)
}

fn of_pdi(bytes: &[u8], n_columns: Option<u8>, title: String) -> anyhow::Result<Drawn<'_>> {
    let pdi = Pdi::parse(bytes)?;
    let mut all = Vec::new();
    for index in 0..pdi.partitions.len() {
        all.extend(events(&pdi.cdo(index)?));
    }
    Ok(Drawn { title, n_columns, events: all })
}

/// A PDI, if there is one, and the first stream on top of it.
fn of_elf(bytes: &[u8], index: usize, name: String) -> anyhow::Result<Drawn<'_>> {
    let elf = Elf::parse(bytes)?;
    let image = elf.sections.iter().filter(|section| section.name.starts_with(".pdi")).nth(index);
    if image.is_none() && index > 0 {
        return Err(usage(format!("--pdi {index}: {name} has no such .pdi section, counted from 0")));
    }
    let mut drawn = match image {
        Some(image) => of_pdi(image.data, None, format!("{name}, {}", image.name))?,
        None => Drawn { title: name, n_columns: None, events: Vec::new() },
    };
    if let Some(code) = elf.sections.iter().find(|section| section.name.starts_with(".ctrltext")) {
        let stream = of_stream(code.data, String::new())?;
        drawn.events.extend(stream.events);
        drawn.n_columns = stream.n_columns.max(Some(width(&drawn.events)));
    }
    Ok(drawn)
}

fn of_stream(bytes: &[u8], title: String) -> anyhow::Result<Drawn<'_>> {
    let stream = Stream::parse(bytes)?;
    let events = stream.operations().filter_map(|placed| Event::of_operation(&placed.operation.op)).collect();
    let n_columns = Some(stream.header().columns).filter(|n_columns| *n_columns > 0);
    Ok(Drawn { title, n_columns: n_columns.map(|n_columns| n_columns.min(Device::N_COLUMNS_MAX)), events })
}

fn events<'a>(cdo: &Cdo<'a>) -> Vec<Event<'a>> {
    cdo.commands().filter_map(|entry| Event::of_command(&entry.command)).collect()
}

/// The columns up to the last one that is written to.
fn width(events: &[Event]) -> u8 {
    let last = events.iter().map(|event| event.address().column).filter(|column| *column < Device::N_COLUMNS_MAX).max();
    last.unwrap_or(0).saturating_add(1)
}
