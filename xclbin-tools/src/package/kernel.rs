//! A kernel as a launch sees it: name, id, arguments, instances; read from the JSON of `--add-kernel`.
//!
//! The schema is that of `Xilinx/XRT:src/runtime_src/tools/xclbinutil/KernelUtilities.cxx`:
//!
//! ```json
//! {"ps-kernels": {"kernels": [{
//!   "name": "MLIR_AIE", "type": "dpu",
//!   "extended-data": {"subtype": "DPU", "functional": "0", "dpu_kernel_id": "0x901"},
//!   "arguments": [{"name": "bo0", "memory-connection": "HOST", "address-qualifier": "GLOBAL",
//!                  "type": "void*", "offset": "0x14"}],
//!   "instances": [{"name": "MLIRAIE"}]}]}}
//! ```
//!
//! Texts are kept as they stand, because they become the attributes of the XML.

use super::xml::Element;
use crate::{
    error::{Error, Result},
    section::{
        Name,
        json::{At, Tree, parse_number},
        shown,
    },
};

/// IP_LAYOUT has 12 bits for the id (`xrt/detail/xclbin.h`, `ip_data.ps_kernel.m_kernel_id`).
pub const KERNEL_ID_MAX: u16 = 0xfff;

/// One kernel of the NPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Unique in a package.
    pub name: String,
    /// `extended-data`: at least `subtype`, `functional`, `dpu_kernel_id`; the order is that of the XML.
    pub extended_data: Vec<(String, String)>,
    /// In order; the position is the argument's index.
    pub arguments: Vec<Argument>,
    /// Names; `NAME:INSTANCE` is what a program opens.
    pub instances: Vec<String>,
}

/// One argument of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As in the program that launches.
    pub name: String,
    /// What is passed.
    pub qualifier: Qualifier,
    /// The C type: `uint64_t`, `char *`.
    pub c_type: String,
    /// Where it stands among the arguments in a command, in bytes: a number in C's notation.
    pub offset: String,
    /// The memory it lies in: a tag of MEM_TOPOLOGY, or indices with commas between; an empty text stands for
    /// the memory of kernels on the host's processor, which is added where it is missing.
    pub memory: Option<String>,
    /// Whether its index stands in the XML.
    pub has_id: bool,
}

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Qualifier {
    Scalar = 0,
    Global = 1,
    Constant = 2,
    Local = 3,
    Stream = 4,
}

/// The kernels of a JSON text for `--add-kernel`.
///
/// # Errors
/// No kernels; a kernel without name, an argument without name, type, offset or with an unknown type or
/// qualifier; an instance without name; an id above [`KERNEL_ID_MAX`].
pub fn kernels_from_json(json: &Tree) -> Result<Vec<Kernel>> {
    let root = At::root(json);
    let kernels = root.get("ps-kernels")?;
    let list = kernels.get("kernels")?;
    if list.tree.children.is_empty() {
        return Err(list.error("no kernels", "an array of kernels is expected"));
    }
    list.items().map(|kernel| Kernel::from_json(&kernel)).collect()
}

impl Kernel {
    fn from_json(json: &At<'_>) -> Result<Kernel> {
        let mut kernel = Kernel { name: required(json, "name")?, ..Kernel::default() };
        if let Some(data) = json.find("extended-data") {
            let keys = data.tree.children.iter().map(|(key, _)| key.clone());
            let texts = data.items().map(|item| item.text().map(str::to_owned));
            kernel.extended_data = keys.zip(texts).map(|(key, text)| Ok((key, text?))).collect::<Result<_>>()?;
        }
        if let Some(arguments) = json.find("arguments") {
            kernel.arguments =
                arguments.list()?.items().map(|item| Argument::from_json(&item)).collect::<Result<_>>()?;
        }
        if let Some(instances) = json.find("instances") {
            kernel.instances = instances.list()?.items().map(|item| required(&item, "name")).collect::<Result<_>>()?;
        }
        kernel.properties().map_err(|error| error.within(format!("kernel {}", shown(&kernel.name))))?;
        Ok(kernel)
    }

    /// The id by which a command picks a PDI, where it has one.
    ///
    /// # Errors
    /// What is no number, or does not fit IP_LAYOUT's 12 bits.
    pub fn id(&self) -> Result<Option<u16>> {
        let text = self.extended("dpu_kernel_id").unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let bound = "a number up to 0xfff is expected: IP_LAYOUT has 12 bits for it";
        let id = parse_number(text).filter(|id| *id <= u64::from(KERNEL_ID_MAX));
        let id = id.and_then(|id| u16::try_from(id).ok());
        id.map(Some).ok_or_else(|| Error::refused("kernel id", text, bound))
    }

    /// Whether it runs on the array (`DPU`), by its subtype.
    ///
    /// # Errors
    /// An unknown subtype.
    pub fn is_dpu(&self) -> Result<bool> {
        Ok(self.two_bits("subtype", &SUBTYPES)? == 1)
    }

    /// IP_LAYOUT's `properties`: subtype in bits 0 and 1, functional in 4 and 5, the id from bit 16.
    ///
    /// # Errors
    /// As [`Kernel::id`]; an unknown subtype or functional.
    pub fn properties(&self) -> Result<u32> {
        let subtype = self.two_bits("subtype", &SUBTYPES)?;
        let functional = self.two_bits("functional", &FUNCTIONALS)?;
        Ok(subtype | functional << 4 | u32::from(self.id()?.unwrap_or(0)) << 16)
    }

    fn two_bits(&self, key: &'static str, names: &[(&str, &'static str); 2]) -> Result<u32> {
        let text = numeric(self.extended(key).unwrap_or_default(), names);
        if text.is_empty() {
            return Ok(0);
        }
        let bound = || format!("{} or {} is expected, or a number up to 3", names[0].0, names[1].0);
        text.parse().ok().filter(|value| *value <= 3).ok_or_else(|| Error::refused(key, text, bound()))
    }

    fn extended(&self, key: &str) -> Option<&str> {
        self.extended_data.iter().find(|(name, _)| name == key).map(|(_, text)| text.as_str())
    }

    /// The element `kernel` of EMBEDDED_METADATA.
    pub(crate) fn to_xml(&self) -> Result<Element> {
        let mut element = Element::new("kernel").with("name", &self.name).with("language", "c").with("type", "dpu");
        if !self.extended_data.is_empty() {
            let mut data = Element::new("extended-data");
            data.attributes.clone_from(&self.extended_data);
            for (key, names) in [("functional", &FUNCTIONALS), ("subtype", &SUBTYPES)] {
                data.set(key, numeric(self.extended(key).unwrap_or_default(), names).to_owned());
            }
            element.push(data);
        }
        for (index, argument) in self.arguments.iter().enumerate() {
            element.push(argument.to_xml(index)?);
        }
        self.instances.iter().for_each(|name| element.push(Element::new("instance").with("name", name)));
        Ok(element)
    }
}

/// What is wrong with the name of a kernel or an instance, if anything is: programs open `NAME:INSTANCE`.
pub(crate) fn fault_of_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("a text is expected");
    }
    if name.contains(':') {
        return Some("a colon stands between kernel and instance, NAME:INSTANCE: neither may have one");
    }
    fault_of_text(name)
}

/// What is wrong with a text for the kernels' XML, if anything is.
pub(crate) fn fault_of_text(text: &str) -> Option<&'static str> {
    text.chars().any(char::is_control).then_some("control characters are not kept by XML: leave them out")
}

/// IP_LAYOUT has 64 bytes for `NAME:INSTANCE` and the NUL behind it.
pub(crate) const UNIT_NAME_BYTES: usize = 64;

pub(crate) const UNIT_NAME_BOUND: &str = "kernel and instance, NAME:INSTANCE, have 63 bytes together in IP_LAYOUT";

/// The name of a unit in IP_LAYOUT.
///
/// # Errors
/// If it is too long.
pub(crate) fn unit_name(name: &str) -> Result<Name<UNIT_NAME_BYTES>> {
    Name::new(name).map_err(|_| Error::refused("unit", shown(name), UNIT_NAME_BOUND))
}

/// A text that has to be there and not empty.
fn required(json: &At<'_>, key: &str) -> Result<String> {
    let value = json.get(key)?;
    match value.text()? {
        "" => Err(value.error("empty", "a text is expected")),
        text => Ok(text.to_owned()),
    }
}

/// `subtype` and `functional` may be a name or a number; the XML has the number.
const SUBTYPES: [(&str, &str); 2] = [("PS", "0"), ("DPU", "1")];
const FUNCTIONALS: [(&str, &str); 2] = [("DPU", "0"), ("PrePost", "1")];

fn numeric<'a>(text: &'a str, names: &[(&str, &'static str); 2]) -> &'a str {
    names.iter().find(|(name, _)| *name == text).map_or(text, |(_, number)| *number)
}

impl Argument {
    fn from_json(json: &At<'_>) -> Result<Argument> {
        let qualifier = json.get("address-qualifier")?;
        let argument = Argument {
            name: required(json, "name")?,
            qualifier: Qualifier::from_name(qualifier.text()?).ok_or_else(|| {
                qualifier.error(&qualifier.tree.text, "SCALAR, GLOBAL, CONSTANT, LOCAL or STREAM is expected")
            })?,
            c_type: required(json, "type")?,
            offset: required(json, "offset")?,
            memory: json.find("memory-connection").map(|at| at.text().map(str::to_owned)).transpose()?,
            has_id: json.find("use-id").map(|at| at.number()).transpose()? != Some(0),
        };
        json.get("offset")?.number()?;
        size_bytes(&argument.c_type).ok_or_else(|| json.error(format!("type {:?}", argument.c_type), TYPES))?;
        Ok(argument)
    }

    fn to_xml(&self, index: usize) -> Result<Element> {
        let size = size_bytes(&self.c_type).ok_or_else(|| Error::refused("type", &self.c_type, TYPES))?;
        let id = if self.has_id { index.to_string() } else { String::new() };
        Ok(Element::new("arg")
            .with("name", &self.name)
            .with("addressQualifier", (self.qualifier as u8).to_string())
            .with("id", id)
            .with("size", format!("{size:#x}"))
            .with("offset", &self.offset)
            .with("hostOffset", "0x0")
            .with("hostSize", format!("{size:#x}"))
            .with("type", &self.c_type))
    }
}

impl Qualifier {
    /// As in the JSON.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Qualifier> {
        Some(match name {
            "SCALAR" => Qualifier::Scalar,
            "GLOBAL" => Qualifier::Global,
            "CONSTANT" => Qualifier::Constant,
            "LOCAL" => Qualifier::Local,
            "STREAM" => Qualifier::Stream,
            _ => return None,
        })
    }
}

pub(crate) const TYPES: &str = "a pointer, char, float, int or [u]int{8,16,32,64}_t is expected";

/// The size of an argument in a command. `int` counts 8 bytes, as in `xclbinutil`.
pub(crate) fn size_bytes(c_type: &str) -> Option<u32> {
    let name: String = c_type.chars().filter(|character| *character != ' ').collect();
    Some(match name.as_str() {
        "char" | "int8_t" | "uint8_t" => 1,
        "int16_t" | "uint16_t" => 2,
        "float" | "int32_t" | "uint32_t" => 4,
        "int64_t" | "uint64_t" | "int" => 8,
        pointer if pointer.ends_with('*') => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = r#"{"ps-kernels": {"kernels": [{"name": "K", "type": "dpu",
        "extended-data": {"subtype": "DPU", "functional": "PrePost", "dpu_kernel_id": "0x90A"},
        "arguments": [{"name": "a", "address-qualifier": "GLOBAL", "type": "char *", "offset": "0x08",
                       "memory-connection": "HOST"}],
        "instances": [{"name": "I"}]}]}}"#;

    fn kernel(from: &str, to: &str) -> Result<Kernel> {
        assert!(KERNEL.contains(from), "{from}");
        kernels_from_json(&Tree::parse(&KERNEL.replacen(from, to, 1))?).map(|mut kernels| kernels.remove(0))
    }

    #[test]
    fn keeps_texts_and_their_order() {
        let kernel = kernel("", "").unwrap();
        assert_eq!(kernel.id(), Ok(Some(0x90a)));
        assert_eq!(kernel.properties(), Ok(0x090a_0011));
        let data = Element::new("extended-data").with("subtype", "1").with("functional", "1");
        let xml = kernel.to_xml().unwrap();
        assert_eq!(xml.elements("extended-data").next(), Some(&data.with("dpu_kernel_id", "0x90A")));
        let argument = xml.elements("arg").next().unwrap();
        assert_eq!(argument.attribute("offset"), Some("0x08"));
        assert_eq!(argument.attribute("size"), Some("0x8"));
    }

    #[test]
    fn says_where_a_value_is_wrong() {
        let check = |from: &str, to: &str, expected: &str| {
            let error = kernel(from, to).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("\"K\"", "\"\"", "/ps-kernels/kernels/0/name: empty");
        check("char *", "unsigned int", "/ps-kernels/kernels/0/arguments/0: type \"unsigned int\"");
        check("0x08", "x", "/arguments/0/offset: \"x\"");
        check("GLOBAL", "HOST", "/arguments/0/address-qualifier: HOST");
        check("[{\"name\": \"I\"}]", "[{}]", "/instances/0: no \"name\"");
        check("[{\"name\": \"I\"}]", "\"I\"", "/instances: \"I\": a list is expected");
        check("0x90A", "0x1000", "kernel id 0x1000");
        check("PrePost", "9", "functional 9");
        check("\"kernels\"", "\"kernel\"", "/ps-kernels: no \"kernels\"");
    }
}
