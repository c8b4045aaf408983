//! Texts that the user hands in: as long as they may be, and UTF-8.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::{exit::input, size};

/// The text in a file of at most so many bytes.
///
/// # Errors
/// A file that cannot be read or is longer; bytes that are not UTF-8.
pub(crate) fn of_file(path: &Path, most_bytes: u64) -> anyhow::Result<String> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| unreadable(&name, &error))?;
    of_reader(file, &name, most_bytes)
}

/// As [`of_file`], from an open file or a pipe. What a file says of its size need not hold, so the reading
/// is bounded.
///
/// # Errors
/// As [`of_file`].
pub(crate) fn of_reader(from: impl Read, name: &str, most_bytes: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(most_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > most_bytes {
        return Err(input(format!("{name} is longer than {}, the most that is read", size::bytes(most_bytes))));
    }
    of_bytes(bytes, name)
}

fn unreadable(name: &str, error: &io::Error) -> anyhow::Error {
    input(format!("cannot read {name}: {error}"))
}

/// The text in the bytes of `name`, a file or standard input.
fn of_bytes(bytes: Vec<u8>, name: &str) -> anyhow::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        input(format!("{name} is no utf-8 text: byte {at} is {byte:#04x}; convert it with iconv"))
    })
}

#[cfg(test)]
mod tests {
    use super::of_bytes;

    #[test]
    fn the_first_bad_byte_is_named() {
        assert_eq!(of_bytes("grün".into(), "p.txt").unwrap(), "grün");
        let check = |bytes: &[u8], words: &str| {
            let message = of_bytes(bytes.to_vec(), "p.txt").unwrap_err().to_string();
            assert!(message.starts_with(&format!("p.txt is no utf-8 text: {words}")), "{message}");
        };
        check(b"gr\xfcn", "byte 2 is 0xfc");
        check(b"\xff\xfe", "byte 0 is 0xff");
        check("grü".as_bytes().split_last().unwrap().1, "byte 2 is 0xc3");
    }
}
