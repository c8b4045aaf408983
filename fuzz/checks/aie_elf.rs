//! Any bytes as an ELF file of aiebu.

use xclbin_tools::{elf::Elf, verify};

/// Reads `data` with all its tables and checks it.
pub(crate) fn check(data: &[u8]) {
    let Ok(elf) = Elf::parse(data) else { return };
    assert_eq!(elf.to_bytes().as_deref(), Ok(data), "what was read is written back");
    for section in &elf.sections {
        let _ = (elf.symbols(section), elf.relocations(section), elf.notes(section));
    }
    let _ = (elf.patches(), elf.uid(), elf.streams().count());
    let _ = verify::file(data, None);
}
