//! Rules for aiebu's ELF files: what the runtime patches, and the streams and PDIs inside.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use super::{Basis, Findings, address::Columns, patch, pdi, rule::rules, stream};
use crate::{
    array::{Device, Register, TileKind},
    elf::{Elf, Note, Relocation, Schema, Section, Symbol, section_kind},
    txn::{DDR_APERTURE, KERNEL_ARGUMENTS_BEFORE, Op, Stream, Version},
};

rules! {
    MALFORMED: Error "elf-malformed" {
        asks: "an ELF file is one of aiebu's for client NPUs, and its tables stay inside of it",
        effect: "the runtime refuses the file",
        mend: "assemble the file anew; files of other devices (operating system ABI 0x40, 0x46) are not for these",
        source: "Xilinx/aiebu:src/cpp/aiebu/src/elf/elfwriter.cpp",
    }
    OUTSIDE: Error "elf-relocation" {
        asks: "what a relocation patches lies inside its section, which holds code or control packets",
        effect: "the runtime refuses the file, or writes an address behind the code",
        mend: "assemble the file anew from stream and patch information",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_elf.cpp",
    }
    SCHEMA: Error "elf-schema" {
        asks: "a relocation is of a kind that client NPUs have: 3, 4, 5 or 8",
        effect: "the runtime refuses the file, or patches words in the layout of another array",
        mend: "assemble the file for this device (aiebu-asm -t aie2txn)",
        source: "Xilinx/aiebu:src/cpp/aiebu/src/common/symbol.h",
    }
    DESCRIPTOR: Error "elf-descriptor" {
        asks: "a buffer's address is patched into a shim tile's descriptor that a block write of the stream holds",
        effect: "the address lands in other words of the stream: the DMA moves bytes from or to somewhere else",
        mend: "assemble the file anew; the offset is that of the descriptor's first word in the stream",
        source: "Xilinx/aiebu:src/cpp/aiebu/src/preprocessor/aie2/aie2_blob_preprocessor_input.cpp",
    }
    ARGUMENT: Error "elf-argument" {
        asks: "a patch names an argument that the kernel has: from 3 in a partial file, within the signature of a \
            full one",
        effect: "the runtime never sets it: the DMA works on address 0 and what stands there",
        mend: "declare the argument, or patch with one that is declared",
        source: "Xilinx/aiebu:src/cpp/aiebu/src/preprocessor/aie2/aie2_blob_preprocessor_input.h",
    }
    SYMBOL: Error "elf-symbol" {
        asks: "a patch names an argument, a PDI of the file, or what the runtime makes: control packet, scratchpad",
        effect: "nothing is patched there: the stream loads or moves what stands at address 0",
        mend: "add the PDI to the file, or correct the name",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_module.cpp",
    }
    PREEMPTION: Error "elf-preemption" {
        asks: "code that saves a context for preemption has code that restores it",
        effect: "the runtime refuses the file",
        mend: "assemble the file with both, or with none",
        source: "Xilinx/XRT:src/runtime_src/core/common/api/xrt_elf.cpp",
    }
}

/// Checks a file.
pub(super) fn check(bytes: &[u8], place: &dyn fmt::Display, device: Option<&'static Device>, found: &mut Findings) {
    let elf = match Elf::parse(bytes) {
        Ok(elf) => elf,
        Err(error) => return found.add_error(&MALFORMED, place, &error),
    };
    let by_streams = || elf.streams().find_map(|(_, stream)| device_of(&stream.ok()?));
    let device = found.assume([(device, Basis::Given), (by_streams(), Basis::Stream)]);
    let columns = columns(&elf).map_or(Columns::of_device(device), Columns::of_partition);
    for section in elf.sections.iter().filter(|section| section.name.starts_with(".pdi")) {
        pdi::check(section.data, &format_args!("{place}, {}", section.name), columns, false, found);
    }
    // Streams are checked as bytes: what the parser refuses has a rule of its own there.
    for section in elf.sections.iter().filter(|section| is_code(section.name)) {
        let place = format_args!("{place}, {}", section.name);
        let context = stream::Context { device, is_in_elf: true, ..stream::Context::new(&place, columns) };
        stream::check_bytes(section.data, context, found);
    }
    let count = |start: &str| elf.sections.iter().filter(|section| section.name.starts_with(start)).count();
    let (n_save, n_restore) = (count(".preempt_save"), count(".preempt_restore"));
    if n_save != n_restore {
        let value = format_args!("{n_save} sections that save, {n_restore} that restore");
        found.add(&PREEMPTION, place, value, "as many of each");
    }
    match elf.patches() {
        Ok(patches) => check_patches(&elf, &patches, place, found),
        Err(error) => found.add_error(&MALFORMED, place, &error),
    }
}

fn device_of(stream: &Stream<'_>) -> Option<&'static Device> {
    Device::by_generation(stream.header().generation)
}

fn is_code(name: &str) -> bool {
    name.starts_with(".ctrltext") || name.starts_with(".preempt_")
}

fn is_patched(name: &str) -> bool {
    is_code(name) || [".ctrldata", ".ctrlpkt", ".ctrl_pkt"].iter().any(|start| name.starts_with(start))
}

/// The columns that a full file says it needs.
fn columns(elf: &Elf<'_>) -> Option<u16> {
    let notes = elf.notes(elf.section(".note.xrt.configuration")?).ok()?;
    let note = notes.iter().find(|note| note.kind == Note::COLUMNS)?;
    let count = u32::from_le_bytes(*note.description.first_chunk()?);
    u16::try_from(count).ok().filter(|count| (1..=u16::from(Device::N_COLUMNS_MAX)).contains(count))
}

fn check_patches(
    elf: &Elf<'_>,
    patches: &[(Section<'_>, Symbol<'_>, Relocation)],
    place: &dyn fmt::Display,
    found: &mut Findings,
) {
    let n_arguments = n_arguments(elf);
    // By the offset of the section; several relocations are in one.
    let mut descriptors: HashMap<(u32, usize), HashSet<u32>> = HashMap::new();
    for (index, (section, symbol, relocation)) in patches.iter().enumerate() {
        let place = format_args!("{place}, relocation {index} ({} in {})", symbol.name, section.name);
        let Relocation { offset, schema, addend, .. } = effective(elf, relocation);
        let Some(size_bytes) = size_bytes(schema) else {
            found.add(&SCHEMA, place, format_args!("{} ({})", schema.0, schema.name()), "3, 4, 5 or 8");
            continue;
        };
        let end = u64::from(offset).saturating_add(size_bytes);
        if !is_patched(section.name) || end > section.data.len() as u64 {
            let bound = format_args!("{} has {:#x} bytes, code or control packets", section.name, section.data.len());
            found.add(&OUTSIDE, place, format_args!("{size_bytes} bytes from {offset:#x}"), bound);
            continue;
        }
        if schema == Schema::SHIM_DMA_48 && is_code(section.name) {
            let of_section =
                descriptors.entry((section.offset, section.data.len())).or_insert_with(|| descriptors_of(section.data));
            if !of_section.contains(&offset) {
                let bound = "no block write of a shim tile's descriptor has its first word there";
                found.add(&DESCRIPTOR, place, format_args!("offset {offset:#x}"), bound);
            }
        }
        let is_address = [Schema::SHIM_DMA_48, Schema::CONTROL_PACKET_48].contains(&schema);
        if is_address && u64::from(addend) >= DDR_APERTURE {
            found.add(&patch::WINDOW, place, format_args!("offset {addend:#x}"), "the runtime adds 0x80000000 itself");
        }
        check_symbol(elf, symbol.name, n_arguments, &place, found);
    }
}

/// A relocation as the runtime reads it: files of ABI version 1 have the schema in the addend's lowest four bits.
fn effective(elf: &Elf<'_>, relocation: &Relocation) -> Relocation {
    if elf.abi_version != 1 {
        return *relocation;
    }
    let [low, ..] = relocation.addend.to_le_bytes();
    Relocation { schema: Schema(low & 0xf), addend: relocation.addend >> 4, ..*relocation }
}

/// Bytes from a relocation's offset to the end of what is patched; none for schemas of other devices.
fn size_bytes(schema: Schema) -> Option<u64> {
    match schema {
        Schema::SCALAR_32 => Some(4),
        // Bits 32 to 79 of the descriptor: bytes 4 to 9, behind a header of 8 bytes in control packets.
        Schema::SHIM_DMA_48 => Some(10),
        Schema::CONTROL_PACKET_48 => Some(14),
        Schema::ADDRESS_64 => Some(8),
        _ => None,
    }
}

/// Where in a stream the payloads of block writes hold first words of shim tiles' descriptors.
fn descriptors_of(stream: &[u8]) -> HashSet<u32> {
    let Ok(stream) = Stream::parse(stream) else { return HashSet::new() };
    let header_bytes: u32 = if stream.header().version == Version::V0_1 { 16 } else { 12 };
    let mut offsets = HashSet::new();
    for placed in stream.operations() {
        let Op::BlockWrite { address, data } = placed.operation.op else { continue };
        let is_descriptor = matches!(address.register(), Some(Register::BufferDescriptor { word: 0, .. }));
        if is_descriptor && address.tile_kind() == Some(TileKind::Shim) {
            let start = u32::try_from(placed.offset).unwrap_or(u32::MAX).saturating_add(header_bytes);
            let size_bytes = u32::try_from(data.len()).unwrap_or(u32::MAX).saturating_mul(4);
            offsets.extend((start..start.saturating_add(size_bytes)).step_by(32));
        }
    }
    offsets
}

/// The arguments of the kernel that has the most, by the signatures of a full file.
fn n_arguments(elf: &Elf<'_>) -> Option<u64> {
    let tables = elf.sections.iter().filter(|section| section.kind == section_kind::SYMBOLS);
    let symbols = tables.filter_map(|table| elf.symbols(table).ok()).flatten();
    symbols.filter_map(|symbol| n_parameters(symbol.name)).max()
}

/// Parameters of a mangled signature as aiebu writes it: `_Z4mainPcPcPc` has three.
fn n_parameters(signature: &str) -> Option<u64> {
    let rest = signature.strip_prefix("_Z")?;
    let digits = rest.len().saturating_sub(rest.trim_start_matches(|digit: char| digit.is_ascii_digit()).len());
    let (length, name) = rest.split_at_checked(digits)?;
    let types = name.get(length.parse().ok()?..)?;
    // `P` makes a pointer of the type behind it; `v` alone is no parameter.
    Some(types.bytes().filter(|kind| !b"PK".contains(kind)).count() as u64).filter(|_| types != "v").or(Some(0))
}

fn check_symbol(elf: &Elf<'_>, name: &str, n_arguments: Option<u64>, place: &dyn fmt::Display, found: &mut Findings) {
    if let Ok(argument) = name.parse::<u64>() {
        let (first, end) = match n_arguments {
            Some(count) => (0, count),
            None => (KERNEL_ARGUMENTS_BEFORE, u64::MAX),
        };
        if argument < first || argument >= end {
            let bound = n_arguments.map_or("a partial file's buffers count from 3".to_owned(), |count| {
                format!("the kernel has {count} arguments, from 0")
            });
            found.add(&ARGUMENT, place, format_args!("argument {argument}"), bound);
        }
        return;
    }
    let is_made = ["control-packet", "scratch-pad-ctrl", "scratch-pad-mem"].contains(&name);
    let is_section = |of: &str| elf.sections.iter().any(|section| section.name == of);
    let is_packet = name.starts_with("ctrlpkt-pm") && is_section(&format!(".{}", name.replace('-', ".")));
    let is_pdi = name.starts_with(".pdi") && is_section(name);
    if !(is_made || is_packet || is_pdi) {
        found.add(&SYMBOL, place, name, "an argument's number, or what the file or the runtime has");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_say_how_many_arguments_there_are() {
        let check = |signature: &str, expected| assert_eq!(n_parameters(signature), expected, "{signature}");
        check("_Z4mainPcPcPc", Some(3));
        check("_Z3fooPvjm", Some(3));
        check("_Z3foov", Some(0));
        check("_Z3foo", Some(0));
        check("_Z99foo", None);
        check("_Z", None);
        check("main", None);
    }
}
