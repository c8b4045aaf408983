//! `xclbin dump`: sections as JSON.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Map, Value, json};
use xclbin_tools::{
    Result,
    axlf::{Axlf, Kind, Section},
    section::{
        self, AiePartition, EmbeddedMetadata,
        embedded_metadata::{Argument, Kernel},
    },
    verify,
};

use super::{
    exit::{Outcome, usage},
    files, kind, output,
};

/// Bytes of the start of a raw section that are shown.
const SHOWN_BYTES: usize = 64;

/// Print sections of a package as JSON
///
/// One object with a member per section. Sections that have a JSON form stand there as `xclbinutil --dump-section`
/// writes them, so that the output serves as input of `--add-section KIND:JSON:FILE`. AIE_PARTITION names the
/// files that `xclbin extract --all` makes of its PDIs. EMBEDDED_METADATA shows its kernels; of other sections size
/// and first bytes are shown, and `xclbin extract` gets them whole. A section that cannot be read has a member
/// `error`, and the exit code is 1. The second of a kind is KIND#2.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The package (XCLBIN); `-` is standard input
    input: PathBuf,
    /// Sections to print, such as AIE_PARTITION; all if none is named
    sections: Vec<String>,
    /// Has no effect: the output is JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let bytes = files::read(&options.input)?;
    let axlf = kind::parse(&options.input, &bytes, verify::Kind::Xclbin, Axlf::parse)?;
    let kinds = options.sections.iter().map(|name| kind_in(&axlf, name)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut dump = Map::from_iter([("version".to_owned(), output::JSON_VERSION.into())]);
    let mut outcome = Outcome::Done;
    let mut seen = BTreeMap::new();
    for section in axlf.sections().iter().filter(|section| kinds.is_empty() || kinds.contains(&section.kind)) {
        let (name, value) = content(section).unwrap_or_else(|error| {
            outcome = Outcome::Found;
            let mut value = summary(section);
            value["error"] = error.to_string().into();
            (section.kind.to_string().to_lowercase(), value)
        });
        let count = seen.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        let name = if *count > 1 { format!("{name}#{count}") } else { name };
        dump.insert(name, value);
    }
    output::print_json(&Value::Object(dump))?;
    Ok(outcome)
}

/// The kind of that name, if the container has such a section.
pub(super) fn kind_in(axlf: &Axlf<'_>, name: &str) -> anyhow::Result<Kind> {
    let present = || axlf.sections().iter().map(|section| section.kind.to_string()).collect::<Vec<_>>().join(", ");
    let kind =
        axlf.sections().iter().map(|section| section.kind).find(|kind| kind.to_string().eq_ignore_ascii_case(name));
    kind.ok_or_else(|| usage(format!("no section {name}: the file has {}", present())))
}

/// The member's name and value.
pub(super) fn content(section: &Section<'_>) -> Result<(String, Value)> {
    let name = || section.kind.node().map_or_else(|| section.kind.to_string().to_lowercase(), str::to_owned);
    match section.kind {
        Kind::AIE_PARTITION => {
            let partition = AiePartition::parse(&section.bytes)?;
            Ok((name(), Value::from(&partition.to_json(&partition.file_names()))))
        }
        Kind::EMBEDDED_METADATA => Ok((name(), kernels(&EmbeddedMetadata::parse(&section.bytes)?))),
        kind => match section::to_json(kind, &section.bytes)? {
            Some(json) => {
                let member = json.children.first().map(|(name, value)| (name.clone(), Value::from(value)));
                Ok(member.unwrap_or_else(|| (name(), Value::Null)))
            }
            None => Ok((name(), summary(section))),
        },
    }
}

/// Of a section without JSON.
fn summary(section: &Section<'_>) -> Value {
    let first: String = section.bytes.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect();
    json!({"name": section.name.text(), "size_bytes": section.bytes.len(), "first_bytes": first})
}

pub(super) fn kernels(metadata: &EmbeddedMetadata) -> Value {
    let argument = |argument: &Argument| {
        json!({
            "name": argument.name, "id": argument.id, "address_qualifier": argument.qualifier,
            "size_bytes": argument.size_bytes, "offset": argument.offset, "type": argument.kind,
        })
    };
    let kernel = |kernel: &Kernel| {
        let mut value = json!({"name": kernel.name, "language": kernel.language, "type": kernel.kind});
        if let Some(data) = kernel.extended_data {
            let subtype = data.subtype;
            value["extended_data"] =
                json!({"dpu_kernel_id": data.kernel_id, "functional": data.functional, "subtype": subtype});
        }
        value["arguments"] = kernel.arguments.iter().map(argument).collect();
        value["instances"] = json!(kernel.instances);
        value
    };
    json!({"kernels": metadata.kernels.iter().map(kernel).collect::<Vec<_>>()})
}
