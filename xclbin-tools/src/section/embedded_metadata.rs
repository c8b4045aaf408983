//! EMBEDDED_METADATA: XML that names the kernels, their arguments and where each stands in a command.
//! What of it the runtime reads: `amd/xdna-driver:src/shim/hwctx.cpp`,
//! `Xilinx/XRT:src/runtime_src/core/common/xclbin_parser.cpp`. Path: `project/platform/device/core/kernel`.

use roxmltree::{Document, Node, ParsingOptions};

use super::json::parse_number;
use crate::error::{Error, Result};

const PART: &str = "EMBEDDED_METADATA";
/// The largest of 110 foreign files has 44 KB.
const MAX_BYTES: usize = 1 << 20;
/// Elements and the texts between them, which take up to a hundred times their bytes in memory.
const MAX_NODES: u32 = 1 << 14;
/// Between two `<`. The XML reader compares each attribute of an element with all before it.
const MAX_ELEMENT_BYTES: usize = 1 << 14;
const MAX_DEPTH: u32 = 32;

/// The kernels of the XML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbeddedMetadata {
    /// In their order; those of programmable logic included, which have no [`ExtendedData`].
    pub kernels: Vec<Kernel>,
}

/// One kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// `c`.
    pub language: String,
    /// `dpu`, or empty.
    pub kind: String,
    /// What a kernel on an NPU has.
    pub extended_data: Option<ExtendedData>,
    /// Its arguments.
    pub arguments: Vec<Argument>,
    /// Its instances: IP_LAYOUT holds `KERNEL:INSTANCE` of each.
    pub instances: Vec<String>,
}

/// How a kernel is found in AIE_PARTITION.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedData {
    /// The id that a group of a PDI holds.
    pub kernel_id: u64,
    /// 0 DPU, 1 pre- and postprocessing.
    pub functional: u64,
    /// 1 DPU.
    pub subtype: Option<u64>,
}

/// One argument of a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its index, from 0.
    pub id: u64,
    /// 0 scalar, 1 global memory, 2 constant, 3 local memory, 4 stream.
    pub qualifier: u64,
    /// Bytes in a command.
    pub size_bytes: u64,
    /// Where it stands in a command, from its arguments' start.
    pub offset: u64,
    /// Its type in C.
    pub kind: String,
}

impl Argument {
    /// Whether it is a buffer: its address is an argument.
    pub fn is_buffer(&self) -> bool {
        self.qualifier == 1
    }
}

impl EmbeddedMetadata {
    /// Reads a section.
    ///
    /// # Errors
    /// [`Error::Value`] where it is no such XML, has namespaces, or a number is none; [`Error::TooLarge`] where it is
    /// longer than 1 MiB, nests deeper than 32 or has more than 16384 nodes.
    pub fn parse(bytes: &[u8]) -> Result<EmbeddedMetadata> {
        let text = text(bytes)?;
        let document = document(text)?;
        let cores = at_path(document.root(), &["project", "platform", "device", "core"]);
        let kernels = cores.into_iter().flat_map(|core| elements(core, "kernel"));
        Ok(EmbeddedMetadata { kernels: kernels.map(kernel).collect::<Result<_>>()? })
    }
}

/// The section's text; NULs at its end, which some writers leave, are no part of it.
pub(crate) fn text(bytes: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(bytes).map_err(|error| Error::Malformed {
        part: PART,
        offset: error.valid_up_to() as u64,
        what: "text",
        value: "no UTF-8".to_owned(),
        bound: "XML in UTF-8 is expected".to_owned(),
    })?;
    Ok(text.trim_end_matches('\0'))
}

/// The XML tree, after checks that keep the reader's time and memory in proportion to the text.
pub(crate) fn document(text: &str) -> Result<Document<'_>> {
    let refuse = |value: String, bound: String| Error::value("/", value, bound);
    let too_large = |value: String, bound: String| Error::TooLarge { what: PART, value, bound };
    if text.len() > MAX_BYTES {
        return Err(too_large(format!("{} bytes of XML", text.len()), format!("at most {MAX_BYTES} are read")));
    }
    if let Some(long) = text.split('<').map(str::len).find(|size| *size > MAX_ELEMENT_BYTES) {
        return Err(too_large(format!("an element of {long} bytes"), format!("at most {MAX_ELEMENT_BYTES} are read")));
    }
    // The XML reader copies the namespaces that are in scope to each element that declares another.
    if text.contains("xmlns") {
        return Err(refuse("xmlns".to_owned(), "the format has no namespaces".to_owned()));
    }
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| match error {
        roxmltree::Error::NodesLimitReached => {
            too_large("more elements and texts".to_owned(), format!("at most {MAX_NODES} are read"))
        }
        error => refuse(error.to_string(), "well-formed XML without DTD is expected".to_owned()),
    })?;
    if !is_shallow(document.root(), MAX_DEPTH) {
        return Err(too_large("nested elements".to_owned(), format!("at most {MAX_DEPTH} deep is read")));
    }
    Ok(document)
}

/// Whether nothing is deeper than that below a node.
fn is_shallow(node: Node<'_, '_>, levels: u32) -> bool {
    levels > 0 && node.children().all(|child| is_shallow(child, levels.saturating_sub(1)))
}

fn elements<'a, 'i: 'a>(node: Node<'a, 'i>, name: &'a str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |child| child.is_element() && child.tag_name().name() == name)
}

/// All elements at a path of names.
fn at_path<'a, 'i>(root: Node<'a, 'i>, path: &[&'a str]) -> Vec<Node<'a, 'i>> {
    path.iter().fold(vec![root], |nodes, name| nodes.into_iter().flat_map(|node| elements(node, name)).collect())
}

fn kernel(node: Node<'_, '_>) -> Result<Kernel> {
    let name = text_of(node, "name");
    let within = |error: Error| error.within(format!("kernel {name:?}"));
    let extended = elements(node, "extended-data").next().map(extended_data).transpose().map_err(within)?;
    let arguments = elements(node, "arg").map(argument).collect::<Result<_>>().map_err(within)?;
    Ok(Kernel {
        language: text_of(node, "language"),
        kind: text_of(node, "type"),
        extended_data: extended,
        arguments,
        instances: elements(node, "instance").map(|instance| text_of(instance, "name")).collect(),
        name,
    })
}

fn extended_data(node: Node<'_, '_>) -> Result<ExtendedData> {
    Ok(ExtendedData {
        kernel_id: number_of(node, "dpu_kernel_id")?.unwrap_or_default(),
        functional: number_of(node, "functional")?.unwrap_or_default(),
        subtype: number_of(node, "subtype")?,
    })
}

fn argument(node: Node<'_, '_>) -> Result<Argument> {
    Ok(Argument {
        name: text_of(node, "name"),
        id: number_of(node, "id")?.unwrap_or_default(),
        qualifier: number_of(node, "addressQualifier")?.unwrap_or_default(),
        size_bytes: number_of(node, "size")?.unwrap_or_default(),
        offset: number_of(node, "offset")?.unwrap_or_default(),
        kind: text_of(node, "type"),
    })
}

fn text_of(node: Node<'_, '_>, attribute: &str) -> String {
    node.attribute(attribute).unwrap_or_default().to_owned()
}

/// The attribute's number; zero where it is empty, as for arguments of streams.
fn number_of(node: Node<'_, '_>, attribute: &str) -> Result<Option<u64>> {
    let bad = |text: &str| {
        Error::value(format!("{}/@{attribute}", node.tag_name().name()), format!("{text:?}"), "a number is expected")
    };
    match node.attribute(attribute) {
        None | Some("") => Ok(None),
        Some(text) => parse_number(text).map(Some).ok_or_else(|| bad(text)),
    }
}
