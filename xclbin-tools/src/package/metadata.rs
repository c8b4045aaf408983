//! The kernels in EMBEDDED_METADATA: what a runtime knows of their names, ids and arguments.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    few,
    xml::{Document, Element, Node},
};
use crate::{
    error::{Error, Result},
    section::{
        embedded_metadata,
        json::{Tree, parse_number},
    },
};

/// Where the kernels stand.
const CORE: [&str; 4] = ["project", "platform", "device", "core"];

/// The XML of the section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    document: Document,
    /// The kernels' names; adding many kernels would compare each with all otherwise.
    names: BTreeSet<String>,
}

/// EMBEDDED_METADATA as JSON, as `xclbinutil --dump-section :JSON:FILE` has it.
///
/// # Errors
/// What is no XML; an element with text and something else.
pub fn metadata_json(bytes: &[u8]) -> Result<Tree> {
    Metadata::parse(bytes)?.document.to_json()
}

impl Metadata {
    /// Reads the section; an empty one has no kernel.
    ///
    /// # Errors
    /// What is no XML in UTF-8, too long or too deep.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Metadata> {
        if bytes.is_empty() {
            return Ok(Metadata::default());
        }
        let document = Document::parse(embedded_metadata::text(bytes)?)?;
        let mut metadata = Metadata { document, names: BTreeSet::new() };
        metadata.names = metadata.kernels().map(name).collect();
        Ok(metadata)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.document.to_text().into_bytes()
    }

    /// The elements of all kernels.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = &Element> {
        self.document.element(&CORE).into_iter().flat_map(|core| core.elements("kernel"))
    }

    /// Adds a kernel behind the others.
    ///
    /// # Errors
    /// A name that is taken.
    pub(crate) fn add(&mut self, kernel: Element) -> Result<()> {
        let name = name(&kernel);
        if !self.names.insert(name.clone()) {
            return Err(Error::refused("kernel", format!("{name:?}"), "the package has one of that name"));
        }
        if let Some(core) = self.document.element_mut(&CORE) {
            core.push(kernel);
        }
        Ok(())
    }

    /// Gives a kernel another name; the answer is the new name of each of its units by the old one.
    ///
    /// # Errors
    /// No kernel of the old name, or one of the new.
    pub(crate) fn rename(&mut self, old: &str, new: &str) -> Result<BTreeMap<String, String>> {
        if self.names.contains(new) {
            return Err(Error::refused("kernel", format!("{new:?}"), "the package has one of that name"));
        }
        let known = few(self.names.iter().map(|name| format!("{name:?}")));
        let kernel = self.kernels_mut().find(|kernel| name(kernel) == old);
        let none = || Error::refused("kernel", format!("{old:?}"), format!("the package has {known}"));
        let kernel = kernel.ok_or_else(none)?;
        let before: Vec<String> = unit_names(kernel).collect();
        kernel.set("name", new.to_owned());
        let units = before.into_iter().zip(unit_names(kernel)).collect();
        self.names = self.kernels().map(name).collect();
        Ok(units)
    }

    /// The elements of all kernels, to change.
    pub(crate) fn kernels_mut(&mut self) -> impl Iterator<Item = &mut Element> {
        let nodes = self.document.element_mut(&CORE).map(|core| core.nodes.iter_mut());
        nodes.into_iter().flatten().filter_map(|node| match node {
            Node::Element(element) if element.name == "kernel" => Some(element),
            _ => None,
        })
    }

    /// Keeps the kernels for which `keep` holds, and all that are no kernels.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Element) -> bool) {
        if let Some(core) = self.document.element_mut(&CORE) {
            core.nodes.retain(|node| match node {
                Node::Element(element) => element.name != "kernel" || keep(element),
                Node::Comment(_) => true,
            });
        }
        self.names = self.kernels().map(name).collect();
    }
}

fn name(kernel: &Element) -> String {
    kernel.attribute("name").unwrap_or_default().to_owned()
}

/// The id by which a launch picks the PDI, as the XML's `extended-data` has it.
pub(crate) fn kernel_id(kernel: &Element) -> Option<u64> {
    parse_number(kernel.elements("extended-data").next()?.attribute("dpu_kernel_id")?)
}

/// The names that a kernel's units have in IP_LAYOUT.
pub(crate) fn unit_names(kernel: &Element) -> impl Iterator<Item = String> {
    let instances = kernel.elements("instance").filter_map(|instance| instance.attribute("name"));
    instances.map(|instance| format!("{}:{instance}", name(kernel)))
}

/// Gives a kernel another id.
pub(crate) fn set_kernel_id(kernel: &mut Element, id: u64) {
    for node in &mut kernel.nodes {
        if let Node::Element(element) = node
            && element.name == "extended-data"
        {
            element.set("dpu_kernel_id", format!("{id:#x}"));
        }
    }
}
