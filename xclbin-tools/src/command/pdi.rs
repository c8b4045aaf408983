//! `xclbin pdi`: PDIs of CDOs, and what is in a PDI.

use std::{borrow::Cow, fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use xclbin_tools::{
    cdo::{self, Cdo, Checksum},
    pdi::{self, ImageHeader, ImageHeaderTable, Partition, PartitionHeader, Pdi, Release},
    verify::Kind,
};

use super::{
    exit::{Outcome, usage},
    files, kind, output,
};

/// Read and write PDIs: the images that configure the array
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Make a PDI of CDOs
    ///
    /// Several CDOs become one, in the order given, with the padding that `bootgen` puts in front of blocks of
    /// data. Without options the PDI is that of a current bootgen and the BIF of mlir-aie's compiler.
    Pack(Pack),
    /// Write the CDOs of a PDI, or show its headers
    ///
    /// Without an output the headers are shown: every word by its name, and whether checksums are right. The
    /// result of aie-pdi-transform becomes a plain CDO with the same commands.
    Unpack(Unpack),
}

#[derive(Args)]
struct Pack {
    /// CDOs; `-` is standard input
    #[arg(required = true, value_name = "CDO")]
    cdos: Vec<PathBuf>,
    /// Where the PDI goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite a file that exists
    #[arg(long)]
    force: bool,
    /// The image's name, at most 16 bytes
    #[arg(long, value_name = "NAME", default_value = "aie_image", value_parser = image_name)]
    name: String,
    /// The image's id
    #[arg(long, value_name = "ID", default_value = "0x1c000000", value_parser = number, allow_hyphen_values = true)]
    image_id: u32,
    /// The device's JTAG id
    #[arg(long, value_name = "ID", default_value = "0x14ca8093", value_parser = number, allow_hyphen_values = true)]
    id_code: u32,
    /// The second part of the device's id
    #[arg(long, value_name = "ID", default_value = "1", value_parser = number, allow_hyphen_values = true)]
    extended_id_code: u32,
    /// Write word 14 of the image header as bootgen did up to 2022.2: 0 instead of 0xffffffff
    #[arg(long)]
    older: bool,
}

#[derive(Args)]
struct Unpack {
    /// A PDI; `-` is standard input
    file: PathBuf,
    /// Write the CDO of each partition into this folder, as partition-N.cdo
    #[arg(short, long, value_name = "FOLDER", conflicts_with = "output")]
    directory: Option<PathBuf>,
    /// Write the CDO of the only partition; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite files that exist
    #[arg(long)]
    force: bool,
    /// Show the headers as JSON
    #[arg(long)]
    json: bool,
}

/// A name that fits the image header.
fn image_name(text: &str) -> Result<String, String> {
    (text.len() <= 16).then(|| text.to_owned()).ok_or_else(|| format!("{} bytes: at most 16 bytes fit", text.len()))
}

/// A number as 0x1f or 31.
fn number(text: &str) -> Result<u32, String> {
    let value = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    value.map_err(|_| "a number of 32 bits is expected, as 0x1f or 31".to_owned())
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    match &options.action {
        Action::Pack(options) => pack(options)?,
        Action::Unpack(options) => unpack(options)?,
    }
    Ok(Outcome::Done)
}

fn pack(options: &Pack) -> anyhow::Result<()> {
    let cdos = options.cdos.iter().map(|path| files::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    for (path, bytes) in options.cdos.iter().zip(&cdos) {
        kind::parse(path, bytes, Kind::Cdo, Cdo::parse)?;
    }
    let cdos: Vec<&[u8]> = cdos.iter().map(Vec::as_slice).collect();
    let release = if options.older { Release::Older } else { Release::Current };
    let made = pdi::build(
        &cdos,
        &pdi::Options {
            id_code: options.id_code,
            extended_id_code: options.extended_id_code,
            image_name: options.name.clone(),
            image_id: options.image_id,
            release,
        },
    )?;
    files::write(&options.output, &made, options.force)
}

fn unpack(options: &Unpack) -> anyhow::Result<()> {
    let bytes = files::read(&options.file)?;
    let pdi = kind::parse(&options.file, &bytes, Kind::Pdi, Pdi::parse)?;
    if let Some(path) = &options.output {
        let [partition] = pdi.partitions.as_slice() else {
            let n = pdi.partitions.len();
            return Err(usage(format!("the PDI has {n} partitions: name a folder with --directory")));
        };
        files::write(path, &cdo_of(partition)?, options.force)?;
    }
    if let Some(folder) = &options.directory {
        let path = |index| folder.join(format!("partition-{index}.cdo"));
        let cdos = pdi.partitions.iter().map(cdo_of).enumerate();
        let cdos = cdos.map(|(index, cdo)| Ok((path(index), Cow::Owned(cdo?)))).collect::<anyhow::Result<Vec<_>>>()?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        files::write_all(&cdos, options.force)?;
    }
    match (&options.output, &options.directory) {
        _ if options.json => output::print_json(&json(&pdi)),
        (None, None) => output::print(&text(&pdi)),
        _ => Ok(()),
    }
}

/// A partition's CDO without the padding behind it.
fn cdo_of(partition: &Partition<'_>) -> anyhow::Result<Vec<u8>> {
    let cdo = partition.cdo()?;
    if cdo.is_transformed() {
        output::note("note: a transformed CDO: written as a plain one with the same commands");
        if cdo.missing_bytes() > 0 {
            let missing = cdo.missing_bytes();
            output::note(format_args!("note: the last {missing} bytes of the last data are missing in the PDI"));
        }
        return Ok(cdo::plain(&cdo));
    }
    let size_bytes = partition.data.len().saturating_sub(cdo.trailing.len());
    Ok(partition.data.get(..size_bytes).unwrap_or(partition.data).to_vec())
}

pub(super) fn json(pdi: &Pdi<'_>) -> Value {
    let images = pdi.images.iter().map(|header| {
        let mut image = words(header.words(), ImageHeader::FIELDS, header.checksum());
        image.insert("name".to_owned(), header.name().into());
        Value::Object(image)
    });
    let partitions = pdi.partitions.iter().map(|partition| {
        let header = &partition.header;
        let mut value = words(header.words(), PartitionHeader::FIELDS, header.checksum());
        value.insert("data_bytes".to_owned(), partition.data.len().into());
        value.insert("transformed".to_owned(), header.transform().is_some().into());
        Value::Object(value)
    });
    json!({
        "version": output::JSON_VERSION,
        "image_header_table": words(pdi.table.words(), ImageHeaderTable::FIELDS, pdi.table.checksum()),
        "images": images.collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

/// All words by their names; several under one name as a list.
fn words(words: &[u32], fields: &[(&str, usize)], checksum: Checksum) -> Map<String, Value> {
    let ends = fields.iter().skip(1).map(|(_, start)| *start).chain([words.len()]);
    let mut members = Map::new();
    for ((name, start), end) in fields.iter().zip(ends) {
        let value = match words.get(*start..end) {
            Some([word]) => json!(word),
            more => json!(more),
        };
        members.insert((*name).to_owned(), value);
    }
    members.insert("computed_checksum".to_owned(), checksum.computed.into());
    members
}

/// The headers as tables; words that are zero are left out.
fn text(pdi: &Pdi<'_>) -> String {
    let mut text = String::new();
    let mut put = |title: String, words: &[u32], fields: &[(&str, usize)], checksum: Checksum| {
        text.push_str(&format!("{title}\n"));
        let mut rows = Vec::new();
        for (index, word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
            let name = fields.iter().rev().find(|(_, start)| *start <= index).map_or("", |(name, _)| *name);
            let value = match name {
                "stored_checksum" if !checksum.is_right() => {
                    format!("{word:#010x}  wrong: {:#010x} is right", checksum.computed)
                }
                _ => format!("{word:#010x}"),
            };
            rows.push(vec![format!("  {index:2}"), name.to_owned(), value]);
        }
        text.push_str(&output::table(&rows));
    };
    put("image header table".to_owned(), pdi.table.words(), ImageHeaderTable::FIELDS, pdi.table.checksum());
    for (index, header) in pdi.images.iter().enumerate() {
        let title = format!("image {index}: {}", output::word(&header.name()));
        put(title, header.words(), ImageHeader::FIELDS, header.checksum());
    }
    for (index, partition) in pdi.partitions.iter().enumerate() {
        let kind = match partition.header.transform() {
            Some(_) => ", rewritten by aie-pdi-transform: lengths and checksum are those of the original",
            None => "",
        };
        let title = format!("partition {index}: {} bytes{kind}", partition.data.len());
        put(title, partition.header.words(), PartitionHeader::FIELDS, partition.header.checksum());
    }
    text
}
