//! `xclbin build`: a package from a compiler's JSON files or from a manifest.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use clap::ArgGroup;
use xclbin_tools::{
    axlf::{Axlf, Kind, Uuid},
    package::{Inputs, kernels_from_json, manifest},
    pdi::Pdi,
    section::{AiePartition, MemTopology, json::Tree},
};

use super::{
    exit::{Outcome, input, usage},
    files,
    output::note,
    sections::{self, SectionFile},
    stamp::{parse_uuid, stamp},
};

/// Build a package from a compiler's JSON files, or from a manifest written by hand
///
/// mlir-aie's compiler writes three files for a device `main`, of which the last names the PDI:
///
///     xclbin build --kernels kernels_main.json --mem-topology memTopology_main.json
///         --partition partition_main.json -o final.xclbin
///
/// With --input, kernels and PDIs are added to those of a package; ids of PDIs that are taken are given anew.
/// The same input, --uuid and SOURCE_DATE_EPOCH give the same bytes. Input is the names of the JSON files too: the
/// sections are named after them.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_long_help = MANIFEST)]
#[command(group(ArgGroup::new("from").required(true).multiple(true).args(FROM)))]
pub(crate) struct Options {
    /// Kernels, as for `xclbinutil --add-kernel`; may be given several times
    #[arg(long, value_name = "JSON", conflicts_with = "manifest")]
    kernels: Vec<PathBuf>,
    /// Memories that arguments lie in
    #[arg(long, value_name = "JSON", conflicts_with = "manifest")]
    mem_topology: Option<PathBuf>,
    /// Columns and PDIs; the PDIs' files are sought from the JSON's folder
    #[arg(long, value_name = "JSON", conflicts_with = "manifest")]
    partition: Option<PathBuf>,
    /// All of these in one file written by hand, as shown below
    #[arg(long, value_name = "JSON")]
    manifest: Option<PathBuf>,
    /// A section from a file; FORMAT is RAW or JSON; may be given several times
    #[arg(long, value_name = "KIND:FORMAT:FILE", value_parser = SectionFile::parse)]
    section: Vec<SectionFile>,
    /// A package to add to
    #[arg(long, value_name = "XCLBIN")]
    input: Option<PathBuf>,
    /// Where the package goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    /// The package's uuid; a random one without it
    #[arg(long, value_parser = parse_uuid)]
    uuid: Option<Uuid>,
}

/// Options of which one at least says what goes into the package.
const FROM: [&str; 5] = ["kernels", "mem_topology", "partition", "manifest", "section"];

const MANIFEST: &str = "\
A manifest:

    {
      \"version\": 1,
      \"device\": \"npu4\",             npu1 or npu4
      \"columns\": 2,                 columns that the PDIs configure
      \"pdis\": [
        {\"file\": \"add.pdi\",         from the manifest's folder
         \"kernels\": [
           {\"name\": \"add\", \"arguments\": [\"a\", \"b\", \"sum\"]},
           {\"name\": \"scale\",
            \"arguments\": [\"x\", {\"name\": \"y\", \"type\": \"float*\", \"memory\": \"HOST\"}]}]}]
    }

What may be added: start_columns, operations_per_cycle and memory (a list of name, size_kib,
address); id, uuid and type (PRIMARY, LITE, PRE_POST) of a PDI; id and instance of a kernel.
Arguments are buffers of type void* in HOST where nothing else is said. Every kernel begins with
opcode, instr and ninstr, and has at least five more arguments, which command lists need: unused
buffers are added. Ids that are not given are the lowest free ones.";

/// Builds.
///
/// # Errors
/// Files that cannot be read or written, and what [`Inputs::add_to`] refuses.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut inputs = match &options.manifest {
        Some(path) => {
            let read = manifest::read(&sections::json(path)?, |file| pdi(path, file));
            read.map_err(|error| about(path, error))?
        }
        None => from_json(options)?,
    };
    for file in &options.section {
        if file.kind.is_empty() {
            return Err(usage("--section: the kind is missing: KIND:FORMAT:FILE is expected"));
        }
        inputs.sections.push(sections::read(file)?);
    }
    let stamp = stamp(options.uuid)?;
    let bytes = match &options.input {
        None => {
            let package = inputs.build(stamp)?;
            if package.section(Kind::AIE_PARTITION).is_none() {
                note("xclbin: the package has no AIE_PARTITION: nothing can run from it: give --partition");
            }
            package.to_bytes()?
        }
        Some(path) => {
            let old = files::read(path)?;
            add_to(&old, inputs, stamp.uuid).map_err(|error| error.context(path.display().to_string()))?
        }
    };
    files::write(&options.output, &bytes, options.force)?;
    Ok(Outcome::Done)
}

fn add_to(old: &[u8], inputs: Inputs<'_>, uuid: Uuid) -> anyhow::Result<Vec<u8>> {
    let mut package = Axlf::parse(old)?;
    package.header_mut().uuid = uuid;
    for id in inputs.add_to(&mut package)? {
        note(format_args!("xclbin: {} id {:#x} is taken: it becomes {:#x}", id.what, id.from, id.to));
    }
    Ok(package.to_bytes()?)
}

fn from_json(options: &Options) -> anyhow::Result<Inputs<'static>> {
    let mut inputs = Inputs::default();
    if let Some(path) = &options.mem_topology {
        let json = sections::json(path)?;
        inputs.memory = Some(within(path, MemTopology::from_json(&json, Kind::MEM_TOPOLOGY))?);
        inputs.memory_name = sections::name(path);
    }
    if let Some(path) = &options.partition {
        let json: Tree = sections::json(path)?;
        let partition = AiePartition::from_json(&json, "", |file| pdi(path, file));
        inputs.partition = Some(partition.map_err(|error| about(path, error))?);
        inputs.partition_name = sections::name(path);
    }
    for path in &options.kernels {
        inputs.kernels.extend(within(path, kernels_from_json(&sections::json(path)?))?);
    }
    Ok(inputs)
}

/// A PDI that a JSON file names: what is none would be found by the hardware alone.
fn pdi(json: &Path, file: &str) -> anyhow::Result<Cow<'static, [u8]>> {
    let bytes = sections::image(json, file)?;
    match Pdi::parse(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(input(format!("{}: {file:?} is no PDI: {error}", json.display()))),
    }
}

/// The library's errors under the file's name; one about another file has that one's.
fn about(path: &Path, error: anyhow::Error) -> anyhow::Error {
    if error.is::<xclbin_tools::Error>() { error.context(path.display().to_string()) } else { error }
}

fn within<T>(path: &Path, result: xclbin_tools::Result<T>) -> anyhow::Result<T> {
    result.map_err(|error| input(format!("{}: {error}", path.display())))
}
