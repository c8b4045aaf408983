//! The JSON that a full file is built from: kernels, their PDIs and instances.
//!
//! ```json
//! { "xrt-kernels": [ {
//!     "name": "main",
//!     "arguments": [ { "name": "a", "type": "char *", "offset": "0x0" } ],
//!     "PDIs": [ { "id": 1, "PDI_file": "main.pdi" } ],
//!     "instance": [ { "id": "sequence", "TXN_ctrl_code_file": "insts.bin",
//!                     "ctrl_packet_file": "control.bin", "patch_info_file": "patch.json" } ] } ] }
//! ```
//!
//! mlir-aie writes it (`Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h`), `aiebu-asm -t aie2_config` reads it.

use crate::{
    error::{Error, Result},
    section::json::{At, Tree},
};

/// What a full file is built from; files by the names that the JSON has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// In the JSON's order.
    pub kernels: Vec<Kernel>,
}

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// The types of its arguments: `char *`, `void *`, `int *`, `scalar`.
    pub arguments: Vec<String>,
    /// What its instances load.
    pub pdis: Vec<PdiFile>,
    /// Its streams.
    pub instances: Vec<Instance>,
}

/// A PDI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PdiFile {
    /// By which streams load it.
    pub id: u16,
    /// Its file.
    pub file: String,
}

/// An instance of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub id: String,
    /// The file of its stream.
    pub stream: String,
    /// The file of its control packets.
    pub control_packets: Option<String>,
    /// The file that says where they are patched.
    pub patch_info: Option<String>,
}

impl Config {
    /// Reads the JSON.
    ///
    /// # Errors
    /// What is missing, or is no number where one must stand; parts that are not built here.
    pub fn parse(json: &str) -> Result<Config> {
        let tree = Tree::parse(json)?;
        let root = At::root(&tree);
        refuse(&root, "custom_sections")?;
        let kernels = root.get("xrt-kernels")?.items().map(|at| kernel(&at)).collect::<Result<Vec<Kernel>>>()?;
        Ok(Config { kernels })
    }
}

impl Kernel {
    /// Its signature as aiebu mangles it: `_Z4mainPcPc`.
    ///
    /// # Errors
    /// A type of an argument without a code; aiebu leaves those out, so that kernels could not be told apart.
    pub fn signature(&self) -> Result<String> {
        let code = |(index, kind): (usize, &String)| match kind.as_str() {
            "char *" => Ok("Pc"),
            "void *" => Ok("Pv"),
            "int *" => Ok("Pi"),
            "scalar" => Ok("i"),
            _ => {
                let bound = format!("argument {index} of {} is `char *`, `void *`, `int *` or `scalar`", self.name);
                Err(Error::refused("type", format!("{kind:?}"), bound))
            }
        };
        let codes = self.arguments.iter().enumerate().map(code).collect::<Result<Vec<&str>>>()?;
        Ok(format!("_Z{}{}{}", self.name.len(), self.name, codes.concat()))
    }
}

fn kernel(at: &At<'_>) -> Result<Kernel> {
    refuse(at, "custom_sections")?;
    let arguments = at.get("arguments")?;
    let kind = |argument: At<'_>| Ok(argument.get("type")?.text()?.to_owned());
    let arguments = arguments.items().map(kind).collect::<Result<Vec<String>>>()?;
    let list = |key| at.tree.get(key).map(|_| at.get(key)).transpose();
    let mut kernel =
        Kernel { name: at.get("name")?.text()?.to_owned(), arguments, pdis: Vec::new(), instances: Vec::new() };
    if let Some(pdis) = list("PDIs")? {
        kernel.pdis = pdis.items().map(|at| pdi(&at)).collect::<Result<Vec<PdiFile>>>()?;
    }
    if let Some(instances) = list("instance")? {
        kernel.instances = instances.items().map(|at| instance(&at)).collect::<Result<Vec<Instance>>>()?;
    }
    Ok(kernel)
}

fn pdi(at: &At<'_>) -> Result<PdiFile> {
    // Control packets for program memories, which no compiler for the NPU writes.
    refuse(at, "type")?;
    Ok(PdiFile { id: at.get("id")?.decimal()?, file: at.get("PDI_file")?.text()?.to_owned() })
}

fn instance(at: &At<'_>) -> Result<Instance> {
    refuse(at, "custom_sections")?;
    let file = |key| {
        let text = at.find(key).map(|at| at.text().map(str::to_owned)).transpose()?;
        Ok::<_, Error>(text.filter(|text| !text.is_empty()))
    };
    Ok(Instance {
        id: at.get("id")?.text()?.to_owned(),
        stream: at.get("TXN_ctrl_code_file")?.text()?.to_owned(),
        control_packets: file("ctrl_packet_file")?,
        patch_info: file("patch_info_file")?,
    })
}

fn refuse(at: &At<'_>, key: &str) -> Result<()> {
    match at.find(key) {
        Some(found) => Err(found.error("present", "such parts are not built here: use aiebu-asm")),
        None => Ok(()),
    }
}
