//! A file as the parts that are compared: sections, PDIs, streams, each with what it says.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use xclbin_tools::{
    Result,
    axlf::{Axlf, HEADER_BYTES, Kind as SectionKind},
    cdo::{self, Cdo},
    elf::Elf,
    pdi::Pdi,
    section::AiePartition,
    txn::Stream,
    verify::Kind,
};

use super::super::{dump, elf::tables, files, info, kind, pdi::json as pdi_json};

/// One part.
pub(super) struct Part<'a> {
    /// What reports call it, and by which it is found in the other file.
    pub(super) name: String,
    pub(super) meaning: Meaning,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// What a part says.
pub(super) enum Meaning {
    Tree(Value),
    /// Line by line.
    Text(String),
    /// Nothing that is known.
    Bytes,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// The kind of a file and its parts.
///
/// # Errors
/// A file of no known kind, or one that cannot be read. Parts of a package that cannot be read are parts all the same.
pub(super) fn of<'a>(bytes: &'a [u8], path: &Path, meaning_alone: bool) -> anyhow::Result<(Kind, Vec<Part<'a>>)> {
    let kind = kind::of(path, bytes)?;
    let lone = |name: &str, text: String| vec![part(name, Ok(Meaning::Text(text)), Cow::Borrowed(bytes))];
    let parts = match kind {
        Kind::Xclbin => of_package(bytes, &files::about(path, Axlf::parse(bytes))?, meaning_alone),
        Kind::Pdi => {
            files::about(path, Pdi::parse(bytes))?;
            of_pdi("", Cow::Borrowed(bytes))
        }
        Kind::Cdo => lone("commands", cdo::dump(&files::about(path, Cdo::parse(bytes))?)),
        Kind::Stream => lone("operations", files::about(path, Stream::parse(bytes))?.to_text()),
        Kind::Elf => of_elf(&files::about(path, Elf::parse(bytes))?),
    };
    Ok((kind, parts))
}

/// The tables of the whole, then each section that holds a stream, a PDI or what no table shows.
fn of_elf<'a>(elf: &Elf<'a>) -> Vec<Part<'a>> {
    // Without padding, so that a longer name elsewhere makes no difference.
    let table = |rows: &[Vec<String>]| rows.iter().map(|row| row.join(" ") + "\n").collect();
    let mut parts = vec![part("tables", tables(elf, table).map(Meaning::Text), Cow::Borrowed(&[]))];
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for section in &elf.sections {
        let count = *seen.entry(section.name).and_modify(|count| *count += 1).or_insert(1);
        let name = if count > 1 { format!("{}#{count}", section.name) } else { section.name.to_owned() };
        if section.name.starts_with(".pdi") {
            parts.extend(of_pdi(&format!("{name} "), Cow::Borrowed(section.data)));
            continue;
        }
        let is_code = section.name.starts_with(".ctrltext") || section.name.starts_with(".preempt_");
        let meaning = match Stream::parse(section.data) {
            Ok(stream) if is_code => Ok(Meaning::Text(stream.to_text())),
            Err(error) if is_code => Err(error),
            _ => Ok(Meaning::Bytes),
        };
        parts.push(part(&name, meaning, Cow::Borrowed(section.data)));
    }
    parts
}

fn part<'a>(name: &str, meaning: Result<Meaning>, bytes: Cow<'a, [u8]>) -> Part<'a> {
    let meaning = meaning.unwrap_or_else(|error| Meaning::Unreadable(error.to_string()));
    Part { name: name.to_owned(), meaning, bytes }
}

fn of_package<'a>(bytes: &'a [u8], package: &Axlf<'a>, meaning_alone: bool) -> Vec<Part<'a>> {
    let mut header = info::header(package);
    if let Some(members) = header.as_object_mut().filter(|_| meaning_alone) {
        for volatile in ["uuid", "timestamp", "unique_id"] {
            members.remove(volatile);
        }
    }
    let bytes = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    let mut parts = vec![part("header", Ok(Meaning::Tree(header)), Cow::Borrowed(bytes))];
    let mut seen: BTreeMap<SectionKind, usize> = BTreeMap::new();
    for section in package.sections() {
        let count = *seen.entry(section.kind).and_modify(|count| *count += 1).or_insert(1);
        let name = if count > 1 { format!("{}#{count}", section.kind) } else { section.kind.to_string() };
        if section.kind == SectionKind::AIE_PARTITION {
            of_partition(&name, &section.bytes, &mut parts);
            continue;
        }
        let meaning = dump::content(section).map(|(_, value)| match value.get("first_bytes") {
            Some(_) => Meaning::Bytes,
            None => Meaning::Tree(value),
        });
        parts.push(part(&name, meaning, section.bytes.clone()));
    }
    parts
}

/// The section without its images, then each image.
fn of_partition(name: &str, bytes: &[u8], parts: &mut Vec<Part<'_>>) {
    let partition = AiePartition::parse(bytes);
    let tree = partition.as_ref().map(|partition| Meaning::Tree(info::partition(partition))).map_err(Clone::clone);
    parts.push(part(name, tree, Cow::Owned(bytes.to_vec())));
    for (index, pdi) in partition.iter().flat_map(|partition| &partition.pdis).enumerate() {
        parts.extend(of_pdi(&format!("{name}, PDI {index} "), Cow::Owned(pdi.image.to_vec())));
    }
}

/// Headers, then commands of each of its partitions.
fn of_pdi<'a>(prefix: &str, bytes: Cow<'a, [u8]>) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let headers = match Pdi::parse(&bytes) {
        Ok(pdi) => {
            for (index, partition) in pdi.partitions.iter().enumerate() {
                let text = partition.cdo().map(|cdo| Meaning::Text(cdo::dump(&cdo)));
                parts.push(part(&format!("{prefix}commands {index}"), text, Cow::Owned(partition.data.to_vec())));
            }
            Ok(Meaning::Tree(json!(pdi_json(&pdi))))
        }
        Err(error) => Err(error),
    };
    parts.insert(0, part(&format!("{prefix}headers"), headers, bytes));
    parts
}
