//! Standard output: results alone. Standard error: notes. Neither panics, because a reader may leave.

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, Write},
};

use anyhow::Context;
use serde::{Serialize, Serializer};

/// The version in every `--json` answer; a change of shape raises it.
pub(crate) const JSON_VERSION: u32 = 1;

/// The longest cell of a table, in characters.
const MOST_IN_CELL: usize = 200;

/// The widest column: longer cells push the rest of their row aside.
const MOST_PADDED: usize = 64;

/// Writes a text and flushes it. Control characters that a file put into it are escaped, because terminals obey them.
///
/// # Errors
/// As [`print_bytes()`].
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(escape(text, |c| c != '\n' && is_harmful(c)).as_bytes())
}

/// Writes bytes as they are and flushes them.
///
/// # Errors
/// The stream's own. A reader that left has seen enough (`xclbin dump ... | head`), which is none.
pub(crate) fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    write_out(|out| out.write_all(bytes))
}

fn write_out(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write standard output"),
    }
}

/// Writes JSON, indented, with a line end, piece by piece: a list of millions never stands in memory as text.
///
/// # Errors
/// As [`print_bytes()`].
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    write_out(|mut out| {
        serde_json::to_writer_pretty(Safe(&mut out), value).map_err(io::Error::from)?;
        out.write_all(b"\n")
    })
}

/// Escapes what JSON may hold as it is and terminals obey all the same. Such characters stand in strings alone.
struct Safe<W>(W);

impl<W: Write> Write for Safe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Strings come in whole characters.
        match std::str::from_utf8(bytes) {
            Ok(text) if text.chars().any(|c| c != '\n' && is_harmful(c)) => {
                for c in text.chars() {
                    match c {
                        '\n' => self.0.write_all(b"\n")?,
                        c if is_harmful(c) => write!(self.0, "\\u{:04x}", u32::from(c))?,
                        c => write!(self.0, "{c}")?,
                    }
                }
            }
            _ => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A list that JSON gets element by element.
pub(crate) struct Listed<F>(pub(crate) F);

impl<I: IntoIterator<Item: Serialize>, F: Fn() -> I> Serialize for Listed<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// Writes a line to standard error. Where nobody reads it, there is nobody to tell.
pub(crate) fn note(text: impl Display) {
    let text = escape(&text.to_string(), |c| c != '\n' && is_harmful(c)).into_owned();
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// What a terminal obeys rather than shows: control characters, and those that turn the direction of writing.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escape(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for c in text.chars() {
        if harmful(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// A word from a file as it may stand in a line: line ends are escaped too, and of a very long one the start is
/// shown.
pub(crate) fn word(text: &str) -> String {
    let text = match text.char_indices().nth(MOST_IN_CELL) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    escape(&text, is_harmful).into_owned()
}

/// Rows in columns as wide as their widest cell; the first row is the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (cell, width) in row.iter().zip(&mut widths) {
            *width = (*width).max(word(cell).chars().count()).min(MOST_PADDED);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let cell = word(cell);
            let padding = width.saturating_sub(cell.chars().count()).saturating_add(2);
            line.push_str(&cell);
            line.extend(std::iter::repeat_n(' ', padding));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stay_small_and_say_nothing_to_a_terminal() {
        let check = |cells: &[&[&str]], text: &str| {
            let rows: Vec<Vec<String>> =
                cells.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
            assert_eq!(table(&rows), text);
        };
        check(&[&["A", "B"], &["long", "x"]], "A     B\nlong  x\n");
        check(&[&["A", "B"], &["\u{1b}[2J\n", "\u{202e}x"]], "A            B\n\\u{1b}[2J\\n  \\u{202e}x\n");
        let [wide, cut] = ["w".repeat(70_000), "w".repeat(200) + "..."];
        check(&[&["A", "B"], &[&wide, "x"]], &format!("A{}B\n{cut}  x\n", " ".repeat(65)));
    }

    #[test]
    fn json_is_the_same_and_says_nothing_to_a_terminal() {
        let mut out = Vec::new();
        let value = serde_json::json!({"a": ["\u{9b}2J\u{7f}\u{1b}\u{e9}"]});
        serde_json::to_writer_pretty(Safe(&mut out), &value).expect("memory");
        let text = String::from_utf8(out).expect("text");
        assert!(!text.contains(|c: char| c != '\n' && is_harmful(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
