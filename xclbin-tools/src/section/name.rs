//! Short texts in fields of a fixed size: a NUL ends them.

use std::{borrow::Cow, fmt};

use crate::error::{Error, Result};

/// `N` bytes of which those before the first NUL are the text. All bytes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name<const N: usize>(pub [u8; N]);

impl<const N: usize> Name<N> {
    /// A text that leaves room for the NUL.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has `N` bytes or more, or a NUL.
    pub fn new(text: &str) -> Result<Name<N>> {
        if text.len() >= N || text.contains('\0') {
            let bound = format!("at most {} bytes without NUL fit the field", N.saturating_sub(1));
            return Err(Error::refused("name", shown(text), bound));
        }
        Ok(Name::cut(text.as_bytes()))
    }

    /// As much of a text as fits with the NUL; the rest is dropped, even inside a character.
    pub fn cut(text: &[u8]) -> Name<N> {
        let mut bytes = [0; N];
        let text = text.iter().take(N.saturating_sub(1));
        bytes.iter_mut().zip(text).for_each(|(byte, from)| *byte = *from);
        Name(bytes)
    }

    /// What stands before the first NUL.
    pub fn bytes(&self) -> &[u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The text; what is no UTF-8 in it is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes())
    }

    /// Whether a NUL ends the text inside the field.
    pub fn is_terminated(&self) -> bool {
        self.0.contains(&0)
    }
}

impl<const N: usize> Default for Name<N> {
    fn default() -> Name<N> {
        Name([0; N])
    }
}

impl<const N: usize> fmt::Debug for Name<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl<const N: usize> fmt::Display for Name<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The begin of a text, quoted: a file may hold very long ones.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN).and_then(|(end, _)| text.get(..end)) {
        None => format!("{text:?}"),
        Some(begin) => format!("{begin:?}..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_keeps_room_for_its_nul() {
        assert_eq!(Name::<4>::new("abc").unwrap().0, *b"abc\0");
        assert!(Name::<4>::new("abcd").is_err());
        assert!(Name::<4>::new("a\0").is_err());
        assert_eq!(Name::<4>::cut(b"abcdef").0, *b"abc\0");
        assert_eq!(Name(*b"ab\0z").text(), "ab");
        assert!(!Name(*b"abcd").is_terminated());
        assert_eq!(Name(*b"abcd").text(), "abcd");
    }

    #[test]
    fn long_texts_are_cut_in_messages() {
        assert_eq!(shown("a\n"), "\"a\\n\"");
        assert_eq!(shown(&"ä".repeat(64)), format!("\"{}\"", "ä".repeat(64)));
        assert_eq!(shown(&"ä".repeat(65)), format!("\"{}\"...", "ä".repeat(64)));
    }
}
