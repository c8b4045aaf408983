//! Defects of aiebu's ELF files.

use xclbin_tools::{
    elf::{self, Config, Elf, Partial},
    txn,
    verify::{self, Findings},
};

use super::{
    Row,
    sample::{CDO_NPU1, STREAM, image},
};

/// A file that goes with a package.
pub(crate) fn partial() -> Vec<u8> {
    let stream = txn::assemble(STREAM).unwrap();
    elf::partial(&Partial { stream: &stream, ..Partial::default() }).unwrap()
}

/// A file of its own, whose kernel has as many arguments.
pub(crate) fn full(n_arguments: usize) -> Vec<u8> {
    let argument = "{\"name\": \"a\", \"type\": \"char *\", \"offset\": \"0x0\"}";
    let config = format!(
        "{{\"xrt-kernels\": [{{\"name\": \"pass\", \"arguments\": [{}], \
         \"PDIs\": [{{\"id\": 1, \"PDI_file\": \"pdi\"}}], \
         \"instance\": [{{\"id\": \"one\", \"TXN_ctrl_code_file\": \"insts\"}}]}}]}}",
        vec![argument; n_arguments].join(", ")
    );
    let config = Config::parse(&config).unwrap();
    let load = STREAM.replacen("block_write", "load_pdi id=1 size=0 address=0\nblock_write", 1);
    elf::full(&config, &mut |name| Ok(if name == "pdi" { image(CDO_NPU1) } else { txn::assemble(&load).unwrap() }))
        .unwrap()
}

fn check(bytes: &[u8]) -> Findings {
    verify::file(bytes, None).expect("an ELF file")
}

/// The partial file with bytes of a section changed.
fn inside(name: &str, change: fn(&mut [u8])) -> Findings {
    let mut bytes = partial();
    let section = *Elf::parse(&bytes).unwrap().section(name).unwrap();
    let (start, size) = (usize::try_from(section.offset).unwrap(), section.data.len());
    change(&mut bytes[start..start + size]);
    check(&bytes)
}

/// The partial file with a text in a section changed into another of the same length.
fn renamed(section: &str, from: &'static [u8], to: &'static [u8]) -> Findings {
    let mut bytes = partial();
    let place = *Elf::parse(&bytes).unwrap().section(section).unwrap();
    let at = place.data.windows(from.len()).position(|window| window == from).expect("the text");
    let at = usize::try_from(place.offset).unwrap() + at;
    bytes[at..at + from.len()].copy_from_slice(to);
    check(&bytes)
}

fn put(bytes: &mut [u8], offset: usize, value: u32) {
    bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
}

/// Relocations are {offset, symbol << 8 | schema, addend}.
const RELOCATIONS: &str = ".rela.dyn";

pub(crate) fn rows() -> Vec<Row> {
    vec![
        ("elf-malformed", &[], || {
            let mut bytes = partial();
            bytes[7] = 0x40;
            check(&bytes)
        }),
        ("elf-malformed", &[], || inside(RELOCATIONS, |it| put(it, 4, 0xffff_ff05))),
        ("elf-relocation", &[], || inside(RELOCATIONS, |it| put(it, 0, 0x1_0000))),
        ("elf-schema", &[], || inside(RELOCATIONS, |it| it[4] = 2)),
        ("elf-descriptor", &[], || inside(RELOCATIONS, |it| it[0] += 4)),
        ("patch-aperture", &[], || inside(RELOCATIONS, |it| put(it, 8, 0x8000_0000))),
        ("elf-argument", &[], || renamed(".dynstr", b"\x003\0", b"\x000\0")),
        ("elf-argument", &[], || check(&full(1))),
        ("elf-symbol", &[], || renamed(".dynstr", b"\x003\0", b"\0x\0")),
        ("elf-preemption", &["stream-malformed"], || renamed(".shstrtab", b".note.xrt.UID", b".preempt_save")),
        ("stream-sync", &[], || renamed(".ctrltext", &[0, 1, 1, 0], &[0, 1, 9, 0])),
    ]
}
