//! The 16 bytes that name a container, a platform or an image.

use std::fmt;

/// Sixteen bytes in the order of their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Hexadecimal digits with or without hyphens and `0x`; zeros in front may be missing.
    pub fn parse(text: &str) -> Option<Uuid> {
        let digits = text.replace("0x", "").replace('-', "");
        let is_hex = !digits.is_empty() && digits.len() <= 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
        number.map(|number| Uuid(number.to_be_bytes()))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let hyphen = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{hyphen}{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_with_and_without_hyphens() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(Uuid::parse(text).map(|uuid| uuid.to_string()).as_deref(), expected, "{text:?}");
        };
        let full = "00112233-4455-6677-8899-aabbccddeeff";
        check(full, Some(full));
        check("00112233445566778899AABBCCDDEEFF", Some(full));
        check("0x1", Some("00000000-0000-0000-0000-000000000001"));
        check("", None);
        check("x", None);
        check("+1", None);
        check("100112233445566778899aabbccddeeff", None);
    }
}
