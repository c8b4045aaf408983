//! `xclbin extract`: sections and PDIs into files of their own.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde_json::json;
use xclbin_tools::{
    axlf::{Axlf, Format, Kind, Section},
    section::{self, AiePartition, json::Tree},
    verify,
};

use super::{
    dump::kind_in,
    exit::{Outcome, usage},
    files, kind, output,
};

/// Get sections or PDIs of a package as files
#[derive(clap::Args)]
#[command(
    override_usage = "xclbin extract [OPTIONS] <INPUT> <SECTION> --output <FILE>\n       xclbin extract [OPTIONS] <INPUT> --all --directory <DIR>"
)]
pub(crate) struct Options {
    /// The package (XCLBIN); `-` is standard input
    input: PathBuf,
    /// A section by its kind, such as EMBEDDED_METADATA, or a PDI of AIE_PARTITION: `pdi` for the only one, `pdi:N`
    /// for number N as `xclbin info` counts, from 0
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    section: Option<String>,
    /// The file; `-` is standard output
    #[arg(short, long, value_name = "FILE", required_unless_present = "all", conflicts_with = "all")]
    output: Option<PathBuf>,
    /// Every section as it is (KIND.bin, .xml), those with a JSON form as KIND.json too, and every PDI under the name
    /// that AIE_PARTITION.json has for it
    #[arg(long, requires = "directory")]
    all: bool,
    /// The folder for --all; it is made where it does not exist
    #[arg(short, long, value_name = "DIR", requires = "all")]
    directory: Option<PathBuf>,
    /// Overwrite files
    #[arg(long)]
    force: bool,
    /// List what was written as JSON
    #[arg(long)]
    json: bool,
}

/// A file to be.
struct Part {
    name: String,
    bytes: Vec<u8>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let bytes = files::read(&options.input)?;
    let axlf = kind::parse(&options.input, &bytes, verify::Kind::Xclbin, Axlf::parse)?;
    let mut written = Vec::new();
    if let Some(folder) = &options.directory {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let parts: Vec<_> =
            all(&axlf).into_iter().map(|part| (folder.join(&part.name), Cow::Owned(part.bytes))).collect();
        files::write_all(&parts, options.force)?;
        written.extend(parts.into_iter().map(|(path, bytes)| (path, bytes.len())));
    } else if let (Some(section), Some(path)) = (&options.section, &options.output) {
        let bytes = one(&axlf, section)?;
        files::write(path, &bytes, options.force)?;
        if path == Path::new("-") {
            return Ok(Outcome::Done);
        }
        written.push((path.clone(), bytes.len()));
    }
    report(&written, options.json)?;
    Ok(Outcome::Done)
}

fn report(written: &[(PathBuf, usize)], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let file = |(path, size): &(PathBuf, usize)| json!({"path": path.to_string_lossy(), "size_bytes": size});
        let list: Vec<_> = written.iter().map(file).collect();
        return output::print_json(&json!({"version": output::JSON_VERSION, "files": list}));
    }
    let mut rows = vec![vec!["FILE".to_owned(), "BYTES".to_owned()]];
    rows.extend(written.iter().map(|(path, size)| vec![path.display().to_string(), size.to_string()]));
    output::print(&output::table(&rows))
}

/// A section or PDI by its name.
fn one(axlf: &Axlf<'_>, name: &str) -> anyhow::Result<Vec<u8>> {
    // In lower case only: PDI is the name of a kind of section, too.
    let index = match name.strip_prefix("pdi") {
        Some("") => None,
        Some(rest) if rest.starts_with(':') => {
            let number = rest.trim_start_matches(':').parse::<usize>();
            Some(number.map_err(|_| usage(format!("{name}: pdi:N takes a number, the first is pdi:0")))?)
        }
        _ => {
            let kind = kind_in(axlf, name)?;
            let section = axlf.section(kind).with_context(|| format!("no section {kind}"))?;
            return Ok(section.bytes.to_vec());
        }
    };
    let section = axlf.section(kind_in(axlf, "AIE_PARTITION")?).context("no section AIE_PARTITION")?;
    let partition = AiePartition::parse(&section.bytes)?;
    let n_pdis = partition.pdis.len();
    if index.is_none() && n_pdis > 1 {
        return Err(usage(format!("the file has {n_pdis} PDIs: pdi:N names one, from 0")));
    }
    let pdi = partition.pdis.get(index.unwrap_or(0));
    let pdi = pdi.ok_or_else(|| usage(format!("no {name}: the file has {n_pdis} PDIs, counted from 0")))?;
    Ok(pdi.image.to_vec())
}

/// Every section and PDI. Sections that cannot be read are there as they are.
fn all(axlf: &Axlf<'_>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut seen = BTreeMap::new();
    for section in axlf.sections() {
        let count = seen.entry(section.kind).and_modify(|count| *count += 1).or_insert(1);
        let stem = if *count > 1 { format!("{}-{count}", section.kind) } else { section.kind.to_string() };
        let extension = if section.kind == Kind::EMBEDDED_METADATA { "xml" } else { "bin" };
        parts.push(Part { name: format!("{stem}.{extension}"), bytes: section.bytes.to_vec() });
        match typed(section, &stem) {
            Ok(more) => parts.extend(more),
            Err(error) => output::note(format_args!("xclbin: {stem}.json is not written: {error}")),
        }
    }
    parts
}

/// The JSON of a section, and what it names.
fn typed(section: &Section<'_>, stem: &str) -> xclbin_tools::Result<Vec<Part>> {
    let file = |json: &Tree| Part { name: format!("{stem}.json"), bytes: json.to_json().into_bytes() };
    if section.kind == Kind::AIE_PARTITION {
        let partition = AiePartition::parse(&section.bytes)?;
        // A second partition's images may have the uuids of the first's.
        let prefix = if stem == "AIE_PARTITION" { String::new() } else { format!("{stem}-") };
        let names: Vec<_> = partition.file_names().iter().map(|name| format!("{prefix}{name}")).collect();
        let json = Tree::default().with("aie_partition", partition.to_json(&names));
        let images = names.into_iter().zip(&partition.pdis);
        let images = images.map(|(name, pdi)| Part { name, bytes: pdi.image.to_vec() });
        return Ok(std::iter::once(file(&json)).chain(images).collect());
    }
    if !section.kind.takes().contains(&Format::Json) {
        return Ok(Vec::new());
    }
    Ok(section::to_json(section.kind, &section.bytes)?.iter().map(file).collect())
}
