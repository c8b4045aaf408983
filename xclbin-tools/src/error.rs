//! What can be wrong with a file, a text or a wish.

/// Result of a call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something cannot be read or made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that contradict their format.
    #[error("{part}, byte {offset:#x}: {what} is {value}: {bound}")]
    Malformed {
        /// The part of the file that the offset counts from: `axlf`, a section's kind, `PDI`, ...
        part: &'static str,
        /// Where, from the start of the part.
        offset: u64,
        /// The field.
        what: &'static str,
        /// What stands there.
        value: String,
        /// What may stand there.
        bound: String,
    },
    /// A text (assembler form) that contradicts its grammar.
    #[error("line {line}, column {column}: {found:?}: {reason}")]
    Text {
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What stands there.
        found: String,
        /// Why it may not, or what may.
        reason: String,
    },
    /// A value in JSON or XML that makes no sense.
    #[error("{path}: {value}: {bound}")]
    Value {
        /// Where: a JSON pointer (`/aie_partition/PDIs/0/uuid`) or the path of XML elements.
        path: String,
        /// What stands there.
        value: String,
        /// What may stand there.
        bound: String,
    },
    /// Parts that are right by themselves and contradict each other, or do not fit the format.
    #[error("{what} {value}: {bound}")]
    Refused {
        /// What: `kernel id`, `section`, ...
        what: &'static str,
        /// Its value.
        value: String,
        /// Why not, and what to do.
        bound: String,
    },
    /// A part that may be right and is larger than is read, so that time and memory stay in proportion.
    #[error("{what} has {value}: {bound}")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// How much it has.
        value: String,
        /// How much is read.
        bound: String,
    },
    /// An error inside a part of something larger.
    #[error("{place}: {error}")]
    In {
        /// The outer place: `AIE_PARTITION`, `PDI 3`.
        place: String,
        /// The error inside; not a source, which would be said twice.
        error: Box<Error>,
    },
}

impl Error {
    /// The same error, inside `place`.
    #[must_use]
    pub fn within(self, place: impl Into<String>) -> Error {
        Error::In { place: place.into(), error: Box::new(self) }
    }

    /// Whether nothing is known to be wrong: the part is larger than is read.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        match self {
            Error::TooLarge { .. } => true,
            Error::In { error, .. } => error.is_too_large(),
            _ => false,
        }
    }

    /// Parts that contradict each other.
    pub(crate) fn refused(what: &'static str, value: impl ToString, bound: impl Into<String>) -> Error {
        Error::Refused { what, value: short(&value.to_string()), bound: bound.into() }
    }

    /// A value of JSON or XML.
    pub(crate) fn value(path: impl Into<String>, value: impl ToString, bound: impl Into<String>) -> Error {
        Error::Value { path: path.into(), value: short(&value.to_string()), bound: bound.into() }
    }
}

/// The begin of a word of a text, which may be all of a file. Errors escape it.
pub(crate) fn begin(found: &str) -> String {
    const SHOWN: usize = 60;
    match found.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", found.get(..end).unwrap_or_default()),
        None => found.to_owned(),
    }
}

/// The begin of a value from a file, in one line: a file may hold very long ones, and escape sequences of terminals.
fn short(value: &str) -> String {
    const SHOWN: usize = 200;
    let mut text = String::new();
    for character in value.chars().take(SHOWN) {
        if character.is_control() { text.extend(character.escape_default()) } else { text.push(character) }
    }
    if value.chars().nth(SHOWN).is_some() { text + "..." } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_one_short_line() {
        let check = |value: &str, expected: &str| {
            assert_eq!(Error::refused("name", value, "no").to_string(), format!("name {expected}: no"));
            assert_eq!(Error::value("/a", value, "no").to_string(), format!("/a: {expected}: no"));
        };
        check("ä \"b\"", "ä \"b\"");
        check("a\u{1b}[2J\n", "a\\u{1b}[2J\\n");
        check(&"ä".repeat(200), &"ä".repeat(200));
        check(&"ä".repeat(1_000_000), &format!("{}...", "ä".repeat(200)));
    }
}
