//! What a file is, where another kind was asked for.

use std::path::Path;

use xclbin_tools::{Result, verify::Kind};

use super::{exit::input, files};

/// What messages call a file of a kind.
pub(super) fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Xclbin => "a package",
        Kind::Pdi => "a PDI",
        Kind::Cdo => "a CDO",
        Kind::Elf => "an ELF file",
        Kind::Stream => "an instruction stream",
    }
}

/// Which command reads it.
fn reader_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Xclbin => "xclbin info",
        Kind::Pdi => "xclbin pdi unpack",
        Kind::Cdo => "xclbin cdo dump",
        Kind::Elf => "xclbin elf dump",
        Kind::Stream => "xclbin txn dump",
    }
}

/// What the library makes of a file of a kind.
///
/// # Errors
/// As [`expect`]; the library's, under the file's name.
pub(super) fn parse<'b, T>(
    path: &Path,
    bytes: &'b [u8],
    kind: Kind,
    parse: impl FnOnce(&'b [u8]) -> Result<T>,
) -> anyhow::Result<T> {
    expect(path, bytes, kind)?;
    files::about(path, parse(bytes))
}

/// Refuses files that start as those of another kind do. What starts like none is left to the parser, which says more.
///
/// # Errors
/// A file of another kind: what it is and which command reads it; an empty one.
pub(super) fn expect(path: &Path, bytes: &[u8], kind: Kind) -> anyhow::Result<()> {
    let (name, expected) = (path.display(), name_of(kind));
    match of(path, bytes) {
        Ok(found) if found != kind => {
            let (found, reader) = (name_of(found), reader_of(found));
            Err(input(format!("{name} is {found}, not {expected}: see `{reader}`")))
        }
        Err(_) if bytes.is_empty() => Err(input(format!("{name} is empty: {expected} is expected"))),
        _ => Ok(()),
    }
}

/// What a file is.
///
/// # Errors
/// A file that starts like none that is known, or is empty.
pub(super) fn of(path: &Path, bytes: &[u8]) -> anyhow::Result<Kind> {
    let name = path.display();
    Kind::of(bytes).ok_or_else(|| match bytes {
        [] => input(format!("{name} is empty: a package, PDI, CDO, instruction stream or ELF file is expected")),
        _ => input(format!("{name} starts like no package, PDI, CDO, instruction stream or ELF file")),
    })
}

/// Refuses files that have a kind of their own, where bytes of none are expected.
///
/// # Errors
/// A package, PDI, CDO or ELF file. Streams start with too little to tell.
pub(super) fn refuse_known(path: &Path, bytes: &[u8], expected: &str) -> anyhow::Result<()> {
    match Kind::of(bytes).filter(|kind| *kind != Kind::Stream) {
        Some(kind) => Err(input(format!("{} is {}, not {expected}", path.display(), name_of(kind)))),
        None => Ok(()),
    }
}
