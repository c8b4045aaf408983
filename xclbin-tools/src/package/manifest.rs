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

use std::{borrow::Cow, collections::BTreeSet, ops::RangeInclusive};

use super::{
    Inputs,
    kernel::{
        Argument, KERNEL_ID_MAX, Kernel, Qualifier, UNIT_NAME_BOUND, UNIT_NAME_BYTES, fault_of_name, fault_of_text,
        size_bytes,
    },
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
        shown,
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

/// In IP_LAYOUT 0 is a kernel without an id.
const KERNEL_IDS: RangeInclusive<u64> = 1..=KERNEL_ID_MAX as u64;
/// A LOADPDI operation has 16 bits for it.
const PDI_IDS: RangeInclusive<u64> = 0..=0xffff;
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
    if version.number().ok() != Some(VERSION) {
        return Err(version.error(shown(&version.tree.text), format!("version {VERSION} is expected")).into());
    }
    let (column_width, start_columns) = columns(&root)?;
    let list = root.get("pdis")?;
    let mut ids = Ids::default();
    ids.reserve(&list)?;
    let mut partition = AiePartition {
        operations_per_cycle: operations_per_cycle(&root)?,
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
        let bound = format!("1 to {} are expected: {} has no more", device.n_columns, device.name);
        return Err(columns.error(width, bound));
    }
    let Some(list) = root.find("start_columns") else {
        return Ok((width, device.driver_starts(width).collect()));
    };
    let mut starts = BTreeSet::new();
    let start = |at: At<'_>| match at.decimal()? {
        start if !device.holds(start, width) => {
            Err(at.error(start, format!("{width} columns from there leave {}'s {}", device.name, device.n_columns)))
        }
        start if !starts.insert(start) => Err(at.error(start, "it is listed before")),
        start => Ok(start),
    };
    Ok((width, not_empty(&list)?.items().map(start).collect::<Result<_>>()?))
}

fn operations_per_cycle(root: &At<'_>) -> Result<u32> {
    let Some(at) = root.find("operations_per_cycle") else { return Ok(OPERATIONS_PER_CYCLE) };
    match at.decimal()? {
        0 => Err(at.error(0, "1 at least is expected: with 0 the driver gives the lowest clock")),
        number => Ok(number),
    }
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
        if Name::<16>::new(&name).is_err() {
            return Err(json.error(shown(&name), "a name has at most 15 bytes in MEM_TOPOLOGY"));
        }
        let size = json.get("size_kib")?;
        let size_kib = match size.number()? {
            0 => return Err(size.error(0, "1 at least is expected: buffers lie in it")),
            number => number,
        };
        let memory = memory(&name, size_kib, address)?;
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
            reserve(&mut self.pdis, &pdi, &PDI_IDS)?;
            for kernel in pdi.find("kernels").iter().flat_map(At::items) {
                reserve(&mut self.kernels, &kernel, &KERNEL_IDS)?;
            }
        }
        Ok(())
    }
}

fn reserve(ids: &mut BTreeSet<u64>, json: &At<'_>, range: &RangeInclusive<u64>) -> Result<()> {
    let Some(at) = json.find("id") else { return Ok(()) };
    let id = at.number()?;
    if !range.contains(&id) {
        return Err(at.error(format!("{id:#x}"), format!("{:#x} to {:#x} are expected", range.start(), range.end())));
    }
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
    let pdi_id = id(json, &mut ids.pdis, 1, *PDI_IDS.end())?;
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
        let id = id(&json, &mut ids.kernels, FIRST_KERNEL_ID, *KERNEL_IDS.end())?;
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
    let checked = |key| -> Result<Option<String>> {
        let Some(at) = json.find(key) else { return Ok(None) };
        match fault_of_name(at.text()?) {
            None => Ok(Some(at.text()?.to_owned())),
            Some(fault) => Err(at.error(shown(at.text()?), fault)),
        }
    };
    let name = checked("name")?.ok_or_else(|| json.error("no \"name\"", "it is required"))?;
    let instance = checked("instance")?.unwrap_or_else(|| name.clone());
    let unit = format!("{name}:{instance}");
    if unit.len() >= UNIT_NAME_BYTES {
        return Err(json.error(shown(&unit), UNIT_NAME_BOUND));
    }
    let mut given = Vec::new();
    if let Some(list) = json.find("arguments") {
        given = list.list()?.items().map(|argument| Wanted::from_json(&argument)).collect::<Result<_>>()?;
        if given.len() > BUFFERS_MAX {
            let bound = format!("at most {BUFFERS_MAX} are known to work, without opcode, instr and ninstr");
            return Err(list.error(format!("{} arguments", given.len()), bound));
        }
    }
    // Five addresses are read: a shorter number among the arguments takes the place of none.
    let has_address = |wanted: &&Wanted| size_bytes(&wanted.c_type) == Some(8);
    for _ in given.iter().filter(has_address).count()..BUFFERS_MIN {
        given.push(Wanted::buffer(format!("bo{}", given.len())));
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
                name => Ok(Wanted::buffer(plain(json, name)?)),
            };
        }
        only(json, &["name", "type", "memory"])?;
        let mut wanted = Wanted::buffer(text(json, "name")?);
        if let Some(at) = json.find("type") {
            wanted.c_type = plain(&at, at.text()?)?;
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
        text => plain(&at, text),
    }
}

/// A text that XML keeps.
fn plain(at: &At<'_>, text: &str) -> Result<String> {
    match fault_of_text(text) {
        None => Ok(text.to_owned()),
        Some(fault) => Err(at.error(shown(text), fault)),
    }
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
        let scale = [
            "opcode@0x0",
            "instr@0x8",
            "ninstr@0x10",
            "x@0x14",
            "n@0x1c",
            "y@0x20",
            "bo3@0x28",
            "bo4@0x30",
            "bo5@0x38",
        ];
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
        check("\"version\": 1", "\"version\": 2", "/version: \"2\": version 1");
        check("\"version\": 1,", "", "no \"version\"");
        check("\"version\": 1", "\"version\": null", "/version: \"null\": version 1");
        check("\"columns\"", "\"width\": 1, \"columns\"", "unknown key \"width\"");
        check("\"columns\"", "\"columns\": 1, \"columns\"", "key \"columns\": it is there twice");
        check("npu4", "npu3", "/device: \"npu3\": npu1 or npu4");
        check("\"columns\": 2", "\"columns\": 9", "/columns: 9: 1 to 8 are expected: npu4 has no more");
        check("\"columns\": 2", "\"columns\": 0", "/columns: 0: 1 to 8");
        check(
            "\"columns\": 2",
            "\"columns\": 2, \"start_columns\": [0, 0]",
            "/start_columns/1: 0: it is listed before",
        );
        check("\"columns\": 2", "\"columns\": 2, \"operations_per_cycle\": 0", "/operations_per_cycle: 0: 1 at least");
        let memory =
            |name: &str, size| format!("\"columns\": 2, \"memory\": [{{\"name\": \"{name}\", \"size_kib\": {size}}}]");
        check("\"columns\": 2", &memory("A", 0), "/memory/0/size_kib: 0: 1 at least");
        check(
            "\"columns\": 2",
            &memory("A234567890123456", 1),
            "/memory/0: \"A234567890123456\": a name has at most 15",
        );
        check("\"columns\": 2", &memory("A\\t", 1), "/memory/0/name: \"A\\t\": control characters");
        check("\"columns\": 2", "\"columns\": 2, \"start_columns\": [0, 7]", "/start_columns/1: 7");
        check("\"columns\": 2", "\"columns\": 2, \"start_columns\": []", "/start_columns: empty");
        check("\"columns\": 2", "\"columns\": 2, \"memory\": [{\"name\": \"A\"}]", "/memory/0: no \"size_kib\"");
        check("\"id\": 1", "\"id\": 65536", "/pdis/1/id: 0x10000: 0x0 to 0xffff are expected");
        check("\"id\": 1", "\"id\": 1, \"type\": \"X\"", "/pdis/1/type: X");
        check("\"id\": 1", "\"id\": 1, \"uuid\": \"x\"", "/pdis/1/uuid: x");
        check("\"name\": \"b\"", "\"name\": \"add\"", "/pdis/1/kernels/0: add: another kernel");
        check("\"name\": \"b\"", "\"name\": \"b\", \"id\": \"0x901\"", "/pdis/1/kernels/0/id: 0x901");
        check("\"name\": \"b\"", "\"name\": \"b\", \"id\": \"0x1000\"", "/pdis/1/kernels/0/id: 0x1000");
        check("\"name\": \"b\"", "\"name\": \"b\", \"id\": 0", "/pdis/1/kernels/0/id: 0x0: 0x1 to 0xfff");
        check("\"name\": \"b\"", "\"name\": \"b:c\"", "/pdis/1/kernels/0/name: \"b:c\": a colon");
        check("\"scale0\"", "\"scale\\n0\"", "/pdis/0/kernels/1/instance: \"scale\\n0\": control characters");
        check("\"scale0\"", &format!("\"{}\"", "s".repeat(58)), "NAME:INSTANCE, have 63 bytes together");
        check("[\"a\", \"b\", \"sum\"]", "\"a\"", "/pdis/0/kernels/0/arguments: \"a\": a list is expected");
        check("\"sum\"", "\"s\\u0001\"", "/arguments/2: \"s\\u{1}\": control characters");
        let many: Vec<String> = (0..17).map(|index| format!("\"x{index}\"")).collect();
        check("\"a\", \"b\", \"sum\"", &many.join(", "), "/pdis/0/kernels/0/arguments: 17 arguments: at most 16");
        check("[\"a\", \"b\"", "[\"a\", \"a\"", "/pdis/0/kernels/0: a: two arguments");
        check("\"uint32_t\"", "\"uint32_t\", \"memory\": \"HOST\"", "/arguments/1/memory: HOST");
        check("\"uint32_t\"", "\"unsigned\"", "/arguments/1/type: unsigned");
        check("\"file\": \"b.pdi\", ", "", "/pdis/1: no \"file\"");
        check("[{\"name\": \"b\"}]", "[]", "/pdis/1/kernels: empty");
    }
}
