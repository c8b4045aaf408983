//! The command line of `xclbinutil`, so that `xclbin` can stand in for it (`AIE_XCLBINUTIL=xclbin`): the same steps
//! in the same order, whatever the order of the options.
//!
//! Where it differs from xclbinutil 2.25, on purpose: a kernel id that another kernel has is refused; a unit of a
//! kernel on the host's processor keeps its properties when another is added; a dump of all sections keeps those
//! before EMBEDDED_METADATA; images that share a uuid are dumped under different names. Banks of one argument that
//! begin at one address are grouped in the order of the argument, where xclbinutil has none (an unstable sort).
//!
//! Source of the order: `Xilinx/XRT:src/runtime_src/tools/xclbinutil/XclBinUtilMain.cxx`.

mod args;
mod keys;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use args::Args;
pub(crate) use args::is_option;
use xclbin_tools::{
    axlf::{Axlf, Format, Header, Kind, Section},
    package::{edit, kernels_from_json, metadata_json},
    section::{self, AiePartition, IpLayout, Name, json::Tree},
};

use super::{
    exit::{Outcome, input, usage},
    files, info,
    output::{self, note},
    sections::{self, SectionFile},
    stamp,
};

const HELP: &str = "\
xclbin with the options of xclbinutil 2.25. `xclbin --help` shows its own commands, which do the same and more.

  -i, --input FILE                         the package to begin with; an empty one without it
  -o, --output FILE                        where the package goes
      --remove-section KIND ...            steps, in this order
      --add-replace-section KIND:FORMAT:FILE ...
      --replace-section KIND:FORMAT:FILE ...
      --add-section KIND:FORMAT:FILE ...   `:JSON:FILE` adds all sections of a file
      --append-section :JSON:FILE ...      adds units to IP_LAYOUT
      --add-kernel JSON ...
      --reset-bank-grouping                makes GROUP_TOPOLOGY and GROUP_CONNECTIVITY anew
      --skip-bank-grouping                 does not make them
      --remove-key KEY ...
      --key-value SYS:KEY:VALUE | USER:KEY:VALUE ...
      --dump-section KIND:FORMAT:FILE ...  `:JSON:FILE` dumps all that have JSON
      --skip-uuid-insertion                keeps the uuid
      --info [FILE]                        says what is in the package
      --force                              overwrites files
  -q, --quiet, -v, --verbose               have no effect
      --list-sections, --version, -h, --help

FORMAT is RAW or JSON. SOURCE_DATE_EPOCH gives a new package its time, --key-value SYS:XclbinUUID:UUID its uuid.
";

/// Runs a command line without the program's name.
///
/// # Errors
/// Options that are unknown or not supported, files, and what the steps refuse.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<Outcome> {
    let args = Args::parse(arguments)?;
    if args.help || arguments.is_empty() {
        output::print(HELP)?;
    } else if args.version {
        output::print(&format!("xclbin {}, with the options of xclbinutil 2.25\n", env!("CARGO_PKG_VERSION")))?;
    } else if args.list_sections {
        let names: Vec<&str> = Kind::all().filter_map(Kind::name).collect();
        output::print(&format!("{}\n", names.join("\n")))?;
    } else {
        check_files(&args)?;
        let bytes = args.input.as_deref().map(files::read).transpose()?;
        let mut package = match (&bytes, &args.input) {
            (Some(bytes), Some(path)) => {
                Axlf::parse(bytes).map_err(|error| input(format!("{}: {error}", path.display())))?
            }
            _ => {
                let mut header = Header::default();
                header.set_time(stamp::seconds()?);
                Axlf::new(header, Vec::new())
            }
        };
        change(&args, &mut package)?;
        write(&args, &mut package)?;
    }
    Ok(Outcome::Done)
}

/// Nothing is written over what is read, nor unasked over anything; all before the first step.
fn check_files(args: &Args) -> anyhow::Result<()> {
    let sections = [&args.add_replace, &args.replace, &args.add, &args.append].into_iter().flatten();
    let inputs = args.input.iter().chain(&args.kernels).chain(sections.map(|section| &section.file));
    let inputs: BTreeSet<PathBuf> = inputs.filter_map(|path| fs::canonicalize(path).ok()).collect();
    let info = args.info.iter().flatten();
    for path in args.output.iter().chain(info).chain(args.dump.iter().map(|section| &section.file)) {
        let Ok(target) = fs::canonicalize(path) else { continue };
        if inputs.contains(&target) {
            return Err(usage(format!("{} is read and written: name another file", path.display())));
        }
        if !args.force && target.is_file() {
            anyhow::bail!("{} exists: --force overwrites it", path.display());
        }
    }
    Ok(())
}

/// All steps that change the package, in `xclbinutil`'s order.
fn change(args: &Args, package: &mut Axlf<'_>) -> anyhow::Result<()> {
    for name in &args.remove {
        let (name, index) = sections::split_index(name).ok_or_else(|| usage(format!("{name:?}: unclosed index")))?;
        edit::remove(package, sections::kind(name, index)?, index)?;
    }
    for file in &args.add_replace {
        edit::add_or_replace(package, sections::read(one(file)?)?)?;
    }
    for file in &args.replace {
        edit::replace(package, sections::read(one(file)?)?)?;
    }
    for file in &args.add {
        if file.kind.is_empty() { add_all(package, &file.file)? } else { edit::add(package, sections::read(file)?)? }
    }
    for file in &args.append {
        append(package, file)?;
    }
    for path in &args.kernels {
        let kernels = kernels_from_json(&sections::json(path)?);
        edit::add_kernels(package, &kernels.map_err(|error| input(format!("{}: {error}", path.display())))?)?;
    }
    if args.reset_bank_grouping || (!args.kernels.is_empty() && !args.skip_bank_grouping) {
        edit::remove_groups(package);
    }
    let adds_partition = |file: &SectionFile| file.kind == "AIE_PARTITION";
    if [&args.add_replace, &args.replace, &args.add].into_iter().flatten().any(adds_partition) {
        edit::check_kernel_ids(package)?;
    }
    if !args.skip_bank_grouping {
        edit::add_groups(package)?;
    }
    args.remove_keys.iter().try_for_each(|key| keys::remove(package, key))?;
    args.key_values.iter().try_for_each(|text| keys::set(package, text))
}

/// Dumps, package and report.
fn write(args: &Args, package: &mut Axlf<'_>) -> anyhow::Result<()> {
    let mut files = Files::new();
    for file in &args.dump {
        files.extend(dump(package, file)?);
    }
    if let Some(path) = &args.output {
        let header = package.header_mut();
        if !args.skip_uuid_insertion && !args.key_values.iter().any(|text| keys::is_uuid(text)) {
            header.uuid = stamp::random();
        }
        files.push((path.clone(), Cow::Owned(package.to_bytes()?)));
    } else if args.dump.is_empty() && args.info.is_none() && !args.quiet {
        note("xclbin: nothing is written: --output names a file");
    }
    let info = args.info.as_ref().map(|_| info::text(&package.to_bytes()?)).transpose()?;
    if let (Some(Some(path)), Some(text)) = (&args.info, &info) {
        files.push((path.clone(), Cow::Owned(text.clone().into_bytes())));
    }
    files::write_all(&files, args.force)?;
    match (&args.info, info) {
        (Some(None), Some(text)) => output::print(&text),
        _ => Ok(()),
    }
}

/// Refuses files of several sections where one is meant.
fn one(file: &SectionFile) -> anyhow::Result<&SectionFile> {
    match file.kind.as_str() {
        "" => Err(usage(format!(":JSON:{}: a section's kind is missing before it", file.file.display()))),
        _ => Ok(file),
    }
}

/// Adds each section of a JSON file by the names of its members.
fn add_all(package: &mut Axlf<'_>, path: &Path) -> anyhow::Result<()> {
    for (kind, _, json) in members(path)? {
        let bytes = section::from_json(kind, &json).map_err(|error| input(format!("{}: {error}", path.display())))?;
        let bytes = bytes.ok_or_else(|| usage(format!("{kind} is added by name: --add-section {kind}:JSON:FILE")))?;
        edit::add(package, Section { kind, name: Name::default(), bytes: Cow::Owned(bytes) })?;
    }
    Ok(())
}

/// The members of a JSON file that are sections, each as a whole file of its own.
fn members(path: &Path) -> anyhow::Result<Vec<(Kind, String, Tree)>> {
    let mut members = Vec::new();
    for (node, tree) in sections::json(path)?.children {
        if node == "schema_version" {
            continue;
        }
        let no_kind = || input(format!("{}: no section has JSON with the member {node:?}", path.display()));
        let kind = Kind::from_node(&node).ok_or_else(no_kind)?;
        members.push((kind, node.clone(), Tree::default().with(&node, tree)));
    }
    Ok(members)
}

/// Adds units to IP_LAYOUT, the one section of NPU packages that can be appended to.
fn append(package: &mut Axlf<'_>, file: &SectionFile) -> anyhow::Result<()> {
    if !file.kind.is_empty() {
        return Err(usage("--append-section takes `:JSON:FILE`: the JSON's members name the sections"));
    }
    for (kind, node, json) in members(&file.file)? {
        if kind != Kind::IP_LAYOUT {
            return Err(usage(format!("--append-section: nothing is appended to {node:?}: use --add-replace-section")));
        }
        let mut whole = package.section(kind).map_or(Ok(IpLayout::default()), |old| IpLayout::parse(&old.bytes))?;
        whole.ips.extend(IpLayout::from_json(&json)?.ips);
        edit::put(package, kind, whole.to_bytes()?);
    }
    Ok(())
}

/// Files to write, as [`files::write_all`] takes them.
type Files = Vec<(PathBuf, Cow<'static, [u8]>)>;

/// The file of a section, or of all that have JSON; the images of AIE_PARTITION in files beside it.
fn dump(package: &Axlf<'_>, file: &SectionFile) -> anyhow::Result<Files> {
    let one = |bytes: Vec<u8>| Ok(vec![(file.file.clone(), Cow::Owned(bytes))]);
    if file.kind.is_empty() {
        let mut all = Tree::default();
        for section in package.sections() {
            let json = match section.kind {
                Kind::EMBEDDED_METADATA => Some(metadata_json(&section.bytes)?),
                kind => section::to_json(kind, &section.bytes)?,
            };
            all.children.extend(json.unwrap_or_default().children);
        }
        return one(all.to_json().into_bytes());
    }
    let kind = file.kind()?;
    let index = edit::position(package, kind, &file.index).ok_or_else(|| edit::missing(kind))?;
    let Some(section) = package.sections().get(index) else { return Ok(Vec::new()) };
    let refused = || usage(format!("{kind} is not dumped as {:?}", file.format));
    if !kind.gives().contains(&file.format) {
        return Err(refused());
    }
    if file.format == Format::Raw {
        return one(section.bytes.to_vec());
    }
    if kind != Kind::AIE_PARTITION {
        let json = section::to_json(kind, &section.bytes)?.ok_or_else(refused)?;
        return one(json.to_json().into_bytes());
    }
    if file.file == Path::new("-") {
        return Err(usage("AIE_PARTITION:JSON:-: the JSON names images in files beside it: name a file"));
    }
    let partition = AiePartition::parse(&section.bytes)?;
    let names = partition.file_names();
    let images = partition.pdis.iter().zip(&names);
    let mut files: Vec<_> =
        images.map(|(pdi, name)| (file.file.with_file_name(name), Cow::Owned(pdi.image.to_vec()))).collect();
    let json = Tree::default().with("aie_partition", partition.to_json(&names));
    files.push((file.file.clone(), Cow::Owned(json.to_json().into_bytes())));
    Ok(files)
}
