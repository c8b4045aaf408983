//! Texts that the user hands in are UTF-8, or refused with the place where they are not.

use crate::exit::input;

/// The text in the bytes of `name`, a file or standard input.
///
/// # Errors
/// Bytes that are not UTF-8, with the offset of the first.
pub(crate) fn of_bytes(bytes: Vec<u8>, name: &str) -> anyhow::Result<String> {
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
