//! A package described by hand: a JSON file of ours, for who has a PDI and no compiler's JSON. Its keys:
//! `docs/src/xclbin.md`.
//!
//! ```json
//! {
//!   "version": 1,
//!   "device": "npu4",
//!   "columns": 2,
//!   "pdis": [
//!     {"file": "add.pdi", "kernels": [
//!       {"name": "add", "arguments": ["a", "b", "sum"]},
//!       {"name": "scale", "id": "0x910", "instance": "scale0",
//!        "arguments": ["x", {"name": "y", "type": "float*", "memory": "HOST"}]}
//!     ]}
//!   ]
//! }
//! ```
//!
//! Each kernel begins with the arguments `opcode`, `instr` and `ninstr`, which every launch passes. Where fewer
//! than five of others are given, unused buffers follow, because command lists need five. Unknown keys are errors.

use std::{borrow::Cow, collections::BTreeSet};

use super::{
    Inputs,
    kernel::{Argument, KERNEL_ID_MAX, Kernel, Qualifier, size_bytes},
};
use crate::{
    array::Device,
    axlf::Uuid,
    error::{Error, Result},
    section::{
        AiePartition, MemTopology, Name,
        aie_partition::{CdoGroup, CdoType, Pdi},
        json::{At, Tree},
        mem_topology::{MemType, Memory},
    },
};

/// The version of the format.
pub const VERSION: u64 = 1;

/// Fewer buffers make a command too small for a command list; more than the upper bound nobody has tried
/// (<https://github.com/Xilinx/mlir-aie> `tools/aiecc/SidecarFiles.h`, `kMinHostBOs` and `kMaxHostBOs`).
const BUFFERS_MIN: usize = 5;
const BUFFERS_MAX: usize = 16;

/// mlir-aie's constants (`tools/aiecc/SidecarFiles.h`); nothing is known to read the fingerprints.
const OPERATIONS_PER_CYCLE: u32 = 2048;
const INFERENCE_FINGERPRINT: u64 = 23423;
const PRE_POST_FINGERPRINT: u64 = 12345;
const PRE_CDO_GROUP: u64 = 0xc1;
const FIRST_KERNEL_ID: u64 = 0x901;
const HOST_KIB: u64 = 0x10000;
const SRAM_KIB: u64 = 0xc000;
const MEMORY_ADDRESS: u64 = 0x400_0000;

/// Reads a manifest; `image` answers a file name with the file's bytes.
///
/// # Errors
/// A key that is unknown, given twice or missing, a value that makes no sense, ids or names given twice, start
/// columns outside the device; those of `image`.
pub fn read<'a, E: From<Error>>(
    json: &Tree,
    mut image: impl FnMut(&str) -> std::result::Result<Cow<'a, [u8]>, E>,
) -> std::result::Result<Inputs<'a>, E> {
    let root = At::root(json);
    let keys = ["version", "device", "columns", "start_columns", "operations_per_cycle", "memory", "pdis"];
    only(&root, &keys)?;
    let version = root.get("version")?;
    if version.number()? != VERSION {
        return Err(version.error(&version.tree.text, format!("version {VERSION} is expected")).into());
    }
    let (column_width, start_columns) = columns(&root)?;
    let list = root.get("pdis")?;
    let mut ids = Ids::default();
    ids.reserve(&list)?;
    let mut partition = AiePartition {
        operations_per_cycle: decimal(&root, "operations_per_cycle")?.unwrap_or(OPERATIONS_PER_CYCLE),
        inference_fingerprint: INFERENCE_FINGERPRINT,
        pre_post_fingerprint: PRE_POST_FINGERPRINT,
        kernel_commit_id: Some(Cow::Borrowed("")),
        column_width,
        start_columns,
        ..AiePartition::default()
    };
    let mut kernels = Vec::new();
    for json in not_empty(&list)?.items() {
        let file = text(&json, "file")?;
        let pdi = pdi(&json, &mut ids, &mut kernels)?;
        partition.pdis.push(Pdi { image: image(&file)?, ..pdi });
    }
    Ok(Inputs { memory: Some(memories(&root)?), partition: Some(partition), kernels, ..Inputs::default() })
}

/// The width and the columns to start at.
fn columns(root: &At<'_>) -> Result<(u16, Vec<u16>)> {
    let device = root.get("device")?;
    let known = || Device::ALL.map(|device| device.name).join(" or ");
    let device = Device::by_name(device.text()?)
        .ok_or_else(|| device.error(format!("{:?}", device.tree.text), format!("{} is expected", known())))?;
    let columns = root.get("columns")?;
    let width: u16 = columns.decimal()?;
    if !device.holds(0, width) {
        let bound = format!("{} has {} columns", device.name, device.n_columns);
        return Err(columns.error(width, bound));
    }
    let Some(list) = root.find("start_columns") else {
        return Ok((width, device.driver_starts(width).collect()));
    };
    let start = |at: At<'_>| match at.decimal()? {
        start if device.holds(start, width) => Ok(start),
        start => {
            Err(at.error(start, format!("{width} columns from there leave {}'s {}", device.name, device.n_columns)))
        }
    };
    Ok((width, not_empty(&list)?.items().map(start).collect::<Result<_>>()?))
}

fn memories(root: &At<'_>) -> Result<MemTopology> {
    let memory = |tag: &str, size_kib, base_address| {
        let tag = Name::new(tag)?;
        Ok(Memory { kind: MemType::DRAM, used: 1, size_kib, base_address, tag, ..Memory::default() })
    };
    let Some(list) = root.find("memory") else {
        let memories = vec![memory("HOST", HOST_KIB, MEMORY_ADDRESS)?, memory("SRAM", SRAM_KIB, MEMORY_ADDRESS)?];
        return Ok(MemTopology { memories });
    };
    let mut names = BTreeSet::new();
    let memories = not_empty(&list)?.items().map(|json| {
        only(&json, &["name", "size_kib", "address"])?;
        let name = text(&json, "name")?;
        let address = json.find("address").map_or(Ok(MEMORY_ADDRESS), |at| at.number())?;
        let memory = memory(&name, json.get("size_kib")?.number()?, address)?;
        if names.insert(name.clone()) { Ok(memory) } else { Err(json.error(name, "another memory has that name")) }
    });
    Ok(MemTopology { memories: memories.collect::<Result<_>>()? })
}

/// Ids that are given anywhere in the manifest, so that none is given again to what has none.
#[derive(Default)]
struct Ids {
    pdis: BTreeSet<u64>,
    kernels: BTreeSet<u64>,
}

impl Ids {
    fn reserve(&mut self, pdis: &At<'_>) -> Result<()> {
        for pdi in pdis.items() {
            reserve(&mut self.pdis, &pdi, u64::MAX)?;
            for kernel in pdi.find("kernels").iter().flat_map(At::items) {
                reserve(&mut self.kernels, &kernel, KERNEL_ID_MAX.into())?;
            }
        }
        Ok(())
    }
}

fn reserve(ids: &mut BTreeSet<u64>, json: &At<'_>, max: u64) -> Result<()> {
    let Some(at) = json.find("id") else { return Ok(()) };
    let id = at.number_to(max)?;
    if ids.insert(id) { Ok(()) } else { Err(at.error(format!("{id:#x}"), "another one has that id")) }
}

/// The id that is given, or the lowest free one from `first` on.
fn id(json: &At<'_>, ids: &mut BTreeSet<u64>, first: u64, max: u64) -> Result<u64> {
    if let Some(at) = json.find("id") {
        return at.number();
    }
    let free = super::free_id(ids, first, max).ok_or_else(|| json.error("no id is free", "give fewer or lower ids"))?;
    ids.insert(free);
    Ok(free)
}

/// A PDI without its image; its kernels go to the others.
fn pdi<'a>(json: &At<'_>, ids: &mut Ids, kernels: &mut Vec<Kernel>) -> Result<Pdi<'a>> {
    only(json, &["file", "id", "uuid", "type", "kernels"])?;
    let pdi_id = id(json, &mut ids.pdis, 1, u64::MAX)?;
    let kind = json.find("type").map_or(Ok(CdoType::PRIMARY), |at| match CdoType::from_name(at.text()?) {
        CdoType(0) => Err(at.error(&at.tree.text, "PRIMARY, LITE or PRE_POST is expected")),
        kind => Ok(kind),
    })?;
    let uuid = json.find("uuid").map_or_else(
        || Ok(Uuid(u128::from(pdi_id).to_be_bytes())),
        |at| Uuid::parse(at.text()?).ok_or_else(|| at.error(&at.tree.text, "32 hexadecimal digits are expected")),
    )?;
    let mut kernel_ids = Vec::new();
    let list = json.get("kernels")?;
    for json in not_empty(&list)?.items() {
        let id = id(&json, &mut ids.kernels, FIRST_KERNEL_ID, KERNEL_ID_MAX.into())?;
        let kernel = kernel(&json, id)?;
        if kernels.iter().any(|known| known.name == kernel.name) {
            return Err(json.error(kernel.name, "another kernel has that name"));
        }
        kernel_ids.push(id);
        kernels.push(kernel);
    }
    let group = CdoGroup { name: Cow::Borrowed("DPU"), kind, pdi_id, kernel_ids, pre_cdo_groups: vec![PRE_CDO_GROUP] };
    Ok(Pdi { uuid, image: Cow::Borrowed(&[]), groups: vec![group] })
}

fn kernel(json: &At<'_>, id: u64) -> Result<Kernel> {
    only(json, &["name", "instance", "id", "arguments"])?;
    let name = text(json, "name")?;
    let instance = if json.find("instance").is_some() { text(json, "instance")? } else { name.clone() };
    let mut given = Vec::new();
    if let Some(list) = json.find("arguments") {
        given = list.items().map(|argument| Wanted::from_json(&argument)).collect::<Result<_>>()?;
        if given.len() > BUFFERS_MAX {
            return Err(list.error(given.len(), format!("at most {BUFFERS_MAX} are known to work")));
        }
    }
    for index in given.len()..BUFFERS_MIN {
        given.push(Wanted::buffer(format!("bo{index}")));
    }
    let mut wanted = vec![
        Wanted { name: "opcode".to_owned(), c_type: "uint64_t".to_owned(), memory: None },
        Wanted { name: "instr".to_owned(), c_type: "char *".to_owned(), memory: Some("SRAM".to_owned()) },
        Wanted { name: "ninstr".to_owned(), c_type: "uint32_t".to_owned(), memory: None },
    ];
    wanted.append(&mut given);
    let mut names = BTreeSet::new();
    if let Some(twice) = wanted.iter().find(|wanted| !names.insert(wanted.name.as_str())) {
        return Err(json.error(&twice.name, "two arguments have that name; opcode, instr and ninstr are always there"));
    }
    let mut kernel = Kernel { name, instances: vec![instance], ..Kernel::default() };
    let data = [("subtype", "DPU".to_owned()), ("functional", "0".to_owned()), ("dpu_kernel_id", format!("{id:#x}"))];
    kernel.extended_data = data.map(|(key, text)| (key.to_owned(), text)).to_vec();
    let mut offset = 0_u32;
    for wanted in wanted {
        let size = size_bytes(&wanted.c_type).unwrap_or(0);
        kernel.arguments.push(wanted.at(offset));
        offset = offset.saturating_add(size);
    }
    Ok(kernel)
}

/// An argument before it has a place.
struct Wanted {
    name: String,
    c_type: String,
    memory: Option<String>,
}

impl Wanted {
    fn buffer(name: String) -> Wanted {
        Wanted { name, c_type: "void*".to_owned(), memory: Some("HOST".to_owned()) }
    }

    fn from_json(json: &At<'_>) -> Result<Wanted> {
        if json.tree.children.is_empty() {
            return match json.text()? {
                "" => Err(json.error("empty", "a name or an object is expected")),
                name => Ok(Wanted::buffer(name.to_owned())),
            };
        }
        only(json, &["name", "type", "memory"])?;
        let mut wanted = Wanted::buffer(text(json, "name")?);
        if let Some(at) = json.find("type") {
            at.text()?.clone_into(&mut wanted.c_type);
            size_bytes(&wanted.c_type).ok_or_else(|| at.error(&wanted.c_type, super::kernel::TYPES))?;
        }
        let is_pointer = wanted.c_type.trim_end().ends_with('*');
        match json.find("memory") {
            Some(at) if !is_pointer => return Err(at.error(&at.tree.text, "a number lies in no memory: leave it out")),
            Some(_) => wanted.memory = Some(text(json, "memory")?),
            None if !is_pointer => wanted.memory = None,
            None => {}
        }
        Ok(wanted)
    }

    fn at(self, offset: u32) -> Argument {
        Argument {
            qualifier: if self.memory.is_some() { Qualifier::Global } else { Qualifier::Scalar },
            offset: format!("{offset:#x}"),
            has_id: true,
            name: self.name,
            c_type: self.c_type,
            memory: self.memory,
        }
    }
}

/// Refuses keys that are unknown or given twice.
fn only(json: &At<'_>, known: &[&str]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (key, _) in &json.tree.children {
        if !known.contains(&key.as_str()) {
            return Err(json.error(format!("unknown key {key:?}"), format!("known are {}", known.join(", "))));
        }
        if !seen.insert(key) {
            return Err(json.error(format!("key {key:?}"), "it is there twice"));
        }
    }
    Ok(())
}

fn text(json: &At<'_>, key: &str) -> Result<String> {
    let at = json.get(key)?;
    match at.text()? {
        "" => Err(at.error("empty", "a text is expected")),
        text => Ok(text.to_owned()),
    }
}

fn decimal<T: std::str::FromStr>(json: &At<'_>, key: &str) -> Result<Option<T>> {
    json.find(key).map(|at| at.decimal()).transpose()
}

fn not_empty<'a, 't>(list: &'a At<'t>) -> Result<&'a At<'t>> {
    if list.tree.children.is_empty() { Err(list.error("empty", "a list is expected")) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"{
        "version": 1, "device": "npu4", "columns": 2,
        "pdis": [
            {"file": "add.pdi", "kernels": [
                {"name": "add", "arguments": ["a", "b", "sum"]},
                {"name": "scale", "id": "0x901", "instance": "scale0",
                 "arguments": ["x", {"name": "n", "type": "uint32_t"},
                               {"name": "y", "type": "float*", "memory": "SRAM"}]}
            ]},
            {"file": "b.pdi", "id": 1, "kernels": [{"name": "b"}]}
        ]
    }"#;

    fn read_text(text: &str) -> Result<Inputs<'static>> {
        read(&Tree::parse(text)?, |file| Ok(Cow::Owned(file.as_bytes().to_vec())))
    }

    #[test]
    fn fills_in_what_is_left_out() {
        let inputs = read_text(MANIFEST).unwrap();
        let partition = inputs.partition.unwrap();
        assert_eq!((partition.column_width, &*partition.start_columns), (2, &[0, 2, 4, 6][..]));
        let pdis: Vec<_> = partition
            .pdis
            .iter()
            .map(|pdi| (&*pdi.image, pdi.groups[0].pdi_id, pdi.uuid.0[15], &*pdi.groups[0].kernel_ids))
            .collect();
        let expected = [(&b"add.pdi"[..], 2, 2, &[0x902, 0x901][..]), (b"b.pdi", 1, 1, &[0x903])];
        assert_eq!(pdis, expected);
        let offsets = |kernel: &Kernel| -> Vec<_> {
            let place = |argument: &Argument| format!("{}@{}", argument.name, argument.offset);
            kernel.arguments.iter().map(place).collect()
        };
        let add = ["opcode@0x0", "instr@0x8", "ninstr@0x10", "a@0x14", "b@0x1c", "sum@0x24", "bo3@0x2c", "bo4@0x34"];
        assert_eq!(offsets(&inputs.kernels[0]), add);
        let scale = ["opcode@0x0", "instr@0x8", "ninstr@0x10", "x@0x14", "n@0x1c", "y@0x20", "bo3@0x28", "bo4@0x30"];
        assert_eq!(offsets(&inputs.kernels[1]), scale);
        assert_eq!(inputs.kernels[1].arguments[4].memory, None);
        assert_eq!(inputs.kernels[1].instances, ["scale0"]);
        assert_eq!(inputs.memory.unwrap().memories.len(), 2);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(MANIFEST.contains(from), "{from}");
            let error = read_text(&MANIFEST.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{from} -> {to}: {error}");
        };
        check("\"version\": 1", "\"version\": 2", "/version: 2: version 1");
        check("\"version\": 1,", "", "no \"version\"");
        check("\"columns\"", "\"width\": 1, \"columns\"", "unknown key \"width\"");
        check("\"columns\"", "\"columns\": 1, \"columns\"", "key \"columns\": it is there twice");
        check("npu4", "npu3", "/device: \"npu3\": npu1 or npu4");
        check("\"columns\": 2", "\"columns\": 9", "/columns: 9: npu4 has 8 columns");
        check("\"columns\": 2", "\"columns\": 2, \"start_columns\": [0, 7]", "/start_columns/1: 7");
        check("\"columns\": 2", "\"columns\": 2, \"start_columns\": []", "/start_columns: empty");
        check("\"columns\": 2", "\"columns\": 2, \"memory\": [{\"name\": \"A\"}]", "/memory/0: no \"size_kib\"");
        check("\"id\": 1", "\"id\": 1, \"type\": \"X\"", "/pdis/1/type: X");
        check("\"id\": 1", "\"id\": 1, \"uuid\": \"x\"", "/pdis/1/uuid: x");
        check("\"name\": \"b\"", "\"name\": \"add\"", "/pdis/1/kernels/0: add: another kernel");
        check("\"name\": \"b\"", "\"name\": \"b\", \"id\": \"0x901\"", "/pdis/1/kernels/0/id: 0x901");
        check("\"name\": \"b\"", "\"name\": \"b\", \"id\": \"0x1000\"", "/pdis/1/kernels/0/id: 0x1000");
        check("[\"a\", \"b\"", "[\"a\", \"a\"", "/pdis/0/kernels/0: a: two arguments");
        check("\"uint32_t\"", "\"uint32_t\", \"memory\": \"HOST\"", "/arguments/1/memory: HOST");
        check("\"uint32_t\"", "\"unsigned\"", "/arguments/1/type: unsigned");
        check("\"file\": \"b.pdi\", ", "", "/pdis/1: no \"file\"");
        check("[{\"name\": \"b\"}]", "[]", "/pdis/1/kernels: empty");
    }
}
