//! Files from streams, as aiebu's assembler makes them.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::{
    Config, Instance, Note, control,
    layout::{ALIGNMENT, Made, first_sections, lay_out},
    relocate::{Patch, relocate},
    section_kind,
    write::narrow,
};
use crate::{
    bytes::Writer,
    error::{Error, Result},
    txn::{KERNEL_ARGUMENTS_BEFORE, Stream},
};

const PARTIAL_VERSION: u8 = 2;
const FULL_VERSION: u8 = 0x21;

/// Flags of sections: written, loaded, executed.
const CODE_FLAGS: u32 = 6;
const DATA_FLAGS: u32 = 3;
/// Flags of segments: read and executed, read and written.
const CODE_SEGMENT: u32 = 5;
const DATA_SEGMENT: u32 = 6;

/// Symbols: global objects, weak functions, weak objects.
const PATCHED: u8 = 0x11;
const KERNEL: u8 = 0x22;
const INSTANCE: u8 = 0x21;

/// The first number of a symbol that a relocation cannot have.
const SYMBOLS_END: u32 = 1 << 24;

/// A group's first word: of several groups of one name the first counts.
const GROUP_COMDAT: u32 = 1;

/// What a partial file is built from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Partial<'a> {
    /// The instruction stream.
    pub stream: &'a [u8],
    /// Control packets that the stream sends.
    pub control_packets: Option<&'a [u8]>,
    /// JSON that says which arguments the control packets have, and which argument they are themselves.
    pub patch_info: Option<&'a str>,
}

/// A partial file: one stream, to go with an XCLBIN. The same bytes as `aiebu-asm -t aie2txn` makes.
///
/// # Errors
/// A stream that is none, or patches what no block write has written, or has a preemption point (aiebu adds code of its
/// own there) or loads PDIs; JSON that makes no sense.
pub fn partial(from: &Partial<'_>) -> Result<Vec<u8>> {
    let mut file = File::new();
    let code = code(from, KERNEL_ARGUMENTS_BEFORE, &[])?;
    file.add_code(code.0, "")?;
    file.finish(PARTIAL_VERSION)
}

/// A full file: kernels with PDIs and streams. The same bytes as `aiebu-asm -t aie2_config` makes. `read` gives the
/// files that the configuration names.
///
/// # Errors
/// As [`partial`]; ids that occur twice; streams for different numbers of columns; what `read` says.
pub fn full(config: &Config, read: &mut dyn FnMut(&str) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let mut file = File::new();
    let (strings, symbols) = file.add_symbol_tables();
    let mut tables = Table::default();
    let (mut n_instances, mut columns) = (0_u32, None);
    for (signature, kernel) in kernels(config)? {
        let kernel_symbol = tables.add(&signature, 0, KERNEL, 0)?;
        let pdis: Vec<u16> = kernel.pdis.keys().copied().collect();
        // By name, as text.
        let named: BTreeMap<String, &str> =
            kernel.pdis.iter().map(|(id, file)| (format!(".pdi.{id}"), *file)).collect();
        for (name, from) in named {
            let data = read(from)?;
            file.add_code(vec![Code { name, is_data: false, data, patches: Vec::new() }], "")?;
        }
        for (id, instance) in kernel.instances {
            let instance_symbol = tables.add(id, 0, INSTANCE, kernel_symbol)?;
            let (code, of_stream) = instance_code(instance, &pdis, read).map_err(|error| error.within(id))?;
            if columns.replace(of_stream).is_some_and(|others| others != of_stream) {
                let bound = "the streams of a file are for one number of columns";
                return Err(Error::refused("number of columns", of_stream, bound).within(id));
            }
            let members = file.add_code(code, &format!(".{n_instances}"))?;
            file.add_group(n_instances, instance_symbol, symbols, &members);
            n_instances = n_instances.saturating_add(1);
        }
    }
    let columns = columns.ok_or_else(|| Error::refused("number of instances", 0, "a file has at least one"))?;
    file.set_data(strings, tables.strings);
    file.set_data(symbols, tables.symbols.bytes);
    file.columns = Some(columns);
    file.finish(FULL_VERSION)
}

/// A kernel's parts by their ids.
#[derive(Default)]
struct KernelParts<'c> {
    pdis: BTreeMap<u16, &'c str>,
    instances: BTreeMap<&'c str, &'c Instance>,
}

/// The kernels in the order of their signatures; those of one signature are one.
fn kernels(config: &Config) -> Result<BTreeMap<String, KernelParts<'_>>> {
    let mut kernels: BTreeMap<String, KernelParts<'_>> = BTreeMap::new();
    for kernel in &config.kernels {
        let parts = kernels.entry(kernel.signature()?).or_default();
        for pdi in &kernel.pdis {
            if parts.pdis.insert(pdi.id, &pdi.file).is_some() {
                return Err(Error::refused("PDI", pdi.id, "there are two of this id").within(&*kernel.name));
            }
        }
        for instance in &kernel.instances {
            if parts.instances.insert(&instance.id, instance).is_some() {
                return Err(Error::refused("instance", &instance.id, "there are two of this id").within(&*kernel.name));
            }
        }
    }
    Ok(kernels)
}

fn instance_code(
    instance: &Instance,
    pdis: &[u16],
    read: &mut dyn FnMut(&str) -> Result<Vec<u8>>,
) -> Result<(Vec<Code>, u8)> {
    let stream = read(&instance.stream)?;
    let control_packets = instance.control_packets.as_deref().map(&mut *read).transpose()?;
    let patch_info = instance.patch_info.as_deref().map(read).transpose()?;
    let patch_info = patch_info.map(String::from_utf8).transpose();
    let patch_info = patch_info.map_err(|_| Error::refused("patch information", "a file", "it is no UTF-8 text"))?;
    let from =
        Partial { stream: &stream, control_packets: control_packets.as_deref(), patch_info: patch_info.as_deref() };
    code(&from, 0, pdis)
}

/// A section to load.
struct Code {
    name: String,
    is_data: bool,
    data: Vec<u8>,
    patches: Vec<Patch>,
}

/// The sections of a stream in the order of their names, and the number of columns it is for.
fn code(from: &Partial<'_>, arguments_before: u64, pdis: &[u16]) -> Result<(Vec<Code>, u8)> {
    let stream = Stream::parse(from.stream)?;
    let control = from.control_packets.unwrap_or_default();
    let control_bytes = narrow("control packets", control.len())?;
    let (names, control_patches) = control::read(from.patch_info, control_bytes, arguments_before)?;
    let (data, patches) = relocate(&stream, &names, pdis)?;
    let mut code = Vec::new();
    if !control.is_empty() {
        let (name, data) = (".ctrldata".to_owned(), control.to_vec());
        code.push(Code { name, is_data: true, data, patches: control_patches });
    }
    code.push(Code { name: ".ctrltext".to_owned(), is_data: false, data, patches });
    Ok((code, stream.header().columns))
}

/// A table of symbols and its strings.
struct Table {
    strings: Vec<u8>,
    symbols: Writer,
    n_symbols: u32,
}

impl Default for Table {
    /// The first symbol is empty.
    fn default() -> Table {
        Table { strings: vec![0], symbols: Writer { bytes: vec![0; 16] }, n_symbols: 1 }
    }
}

impl Table {
    /// Adds a symbol and returns its number.
    fn add(&mut self, name: &str, size: u32, info: u8, section: u32) -> Result<u32> {
        let section =
            u16::try_from(section).map_err(|_| Error::refused("section", section, "a symbol has 16 bits for it"))?;
        self.symbols.u32(narrow("symbol names", self.strings.len())?);
        self.symbols.u32(0);
        self.symbols.u32(size);
        self.symbols.put(&[info, 0]);
        self.symbols.u16(section);
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        let number = self.n_symbols;
        if number >= SYMBOLS_END {
            return Err(Error::refused("number of symbols", number, "a relocation has 24 bits for it"));
        }
        self.n_symbols = number.saturating_add(1);
        Ok(number)
    }
}

/// A file as far as it is built.
struct File {
    sections: Vec<Made>,
    hash: Md5,
    /// Where the next part is loaded to.
    address: u32,
    /// The first of the four sections about patches.
    dynamic: Option<u32>,
    table: Table,
    relocations: Writer,
    columns: Option<u8>,
}

impl File {
    fn new() -> File {
        File {
            sections: first_sections(),
            hash: Md5::new(),
            address: 0,
            dynamic: None,
            table: Table::default(),
            relocations: Writer::new(),
            columns: None,
        }
    }

    fn add(&mut self, section: Made) -> u32 {
        self.sections.push(section);
        // Counts of sections are checked where they are written.
        u32::try_from(self.sections.len()).unwrap_or(u32::MAX).saturating_sub(1)
    }

    fn set_data(&mut self, section: u32, data: Vec<u8>) {
        if let Some(section) = self.sections.get_mut(section as usize) {
            section.data = data;
        }
    }

    /// The tables of kernels and instances: strings, symbols.
    fn add_symbol_tables(&mut self) -> (u32, u32) {
        let strings = Made { name: ".strtab".to_owned(), kind: section_kind::STRINGS, ..Made::default() };
        let link = self.add(strings);
        let symbols = Made {
            name: ".symtab".to_owned(),
            kind: section_kind::SYMBOLS,
            link,
            info: 1,
            alignment: 4,
            entry_bytes: 16,
            ..Made::default()
        };
        (link, self.add(symbols))
    }

    /// Adds sections to load, their names with a suffix, and their patches; returns their numbers.
    fn add_code(&mut self, code: Vec<Code>, suffix: &str) -> Result<Vec<u32>> {
        let mut members = Vec::new();
        let mut patches = Vec::new();
        for Code { name, is_data, data, patches: of_code } in code {
            // aiebu leaves sections out that have nothing.
            if data.is_empty() {
                continue;
            }
            self.hash.update(&data);
            let size_bytes: u32 = narrow("section", data.len())?;
            let address = self.address;
            let end = address.checked_add(size_bytes).and_then(|end| end.checked_next_multiple_of(ALIGNMENT));
            self.address = end.ok_or_else(|| Error::refused("address", address, "32 bits do not hold all sections"))?;
            let (flags, segment) = if is_data { (DATA_FLAGS, DATA_SEGMENT) } else { (CODE_FLAGS, CODE_SEGMENT) };
            let name = format!("{name}{suffix}");
            let kind = section_kind::DATA;
            let alignment = ALIGNMENT;
            let section = self.add(Made { name, kind, flags, address, alignment, data, segment, ..Made::default() });
            members.push(section);
            patches.extend(of_code.into_iter().map(|patch| (section, patch)));
        }
        self.add_patches(&patches)?;
        Ok(members)
    }

    /// Adds patches and a symbol for each section, name and size among them.
    fn add_patches(&mut self, patches: &[(u32, Patch)]) -> Result<()> {
        if patches.is_empty() {
            return Ok(());
        }
        self.add_dynamic();
        let mut symbols: BTreeMap<(u32, &str, u32), u32> = BTreeMap::new();
        for (section, patch) in patches {
            let key = (*section, &*patch.name, patch.size);
            let symbol = match symbols.get(&key) {
                Some(symbol) => *symbol,
                None => {
                    let symbol = self.table.add(&patch.name, patch.size, PATCHED, *section)?;
                    symbols.insert(key, symbol);
                    symbol
                }
            };
            self.relocations.u32(patch.offset);
            self.relocations.u32((symbol << 8) | u32::from(patch.schema.0));
            self.relocations.u32(patch.addend);
        }
        Ok(())
    }

    /// Adds the four sections about patches, once.
    fn add_dynamic(&mut self) {
        if self.dynamic.is_some() {
            return;
        }
        let section = |name: &str, kind, alignment, entry_bytes, link, info| Made {
            name: name.to_owned(),
            kind,
            alignment,
            entry_bytes,
            link,
            info,
            ..Made::default()
        };
        let strings = self.add(section(".dynstr", section_kind::STRINGS, 0, 0, 0, 0));
        let symbols = self.add(section(".dynsym", section_kind::DYNAMIC_SYMBOLS, 8, 16, strings, 1));
        self.add(section(".rela.dyn", section_kind::RELOCATIONS, 8, 12, symbols, 0));
        self.add(section(".dynamic", section_kind::DYNAMIC, 8, 8, strings, 0));
        self.dynamic = Some(strings);
    }

    fn add_group(&mut self, index: u32, symbol: u32, symbols: u32, members: &[u32]) {
        let mut data = Writer::new();
        data.u32(GROUP_COMDAT);
        members.iter().for_each(|member| data.u32(*member));
        self.add(Made {
            name: format!(".group.{index}"),
            kind: section_kind::GROUP,
            link: symbols,
            info: symbol,
            alignment: ALIGNMENT,
            entry_bytes: 4,
            data: data.bytes,
            ..Made::default()
        });
    }

    fn add_note(&mut self, name: &str, kind: u32, description: &[u8]) -> Result<()> {
        let mut data = Writer::new();
        data.u32(4);
        data.u32(narrow("note", description.len())?);
        data.u32(kind);
        data.put(b"XRT\0");
        data.put(description);
        let name = name.to_owned();
        self.add(Made { name, kind: section_kind::NOTE, alignment: 1, data: data.bytes, ..Made::default() });
        Ok(())
    }

    fn finish(mut self, abi_version: u8) -> Result<Vec<u8>> {
        if let Some(strings) = self.dynamic {
            let [symbols, relocations, dynamic] = [1, 2, 3].map(|index| strings.saturating_add(index));
            let mut entries = Writer::new();
            // DT_RELA has the section's number here, DT_RELASZ its size.
            let size_bytes = narrow("relocations", self.relocations.bytes.len())?;
            [7, relocations, 8, size_bytes].into_iter().for_each(|word| entries.u32(word));
            let table = std::mem::take(&mut self.table);
            let all_relocations = std::mem::take(&mut self.relocations);
            self.set_data(strings, table.strings);
            self.set_data(symbols, table.symbols.bytes);
            self.set_data(relocations, all_relocations.bytes);
            self.set_data(dynamic, entries.bytes);
        }
        if let Some(columns) = self.columns {
            self.add_note(".note.xrt.configuration", Note::COLUMNS, &u32::from(columns).to_le_bytes())?;
        }
        let uid = std::mem::take(&mut self.hash).finalize();
        self.add_note(".note.xrt.UID", Note::UID, &uid)?;
        lay_out(abi_version, self.sections)
    }
}
