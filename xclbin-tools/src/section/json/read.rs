//! The reader of JSON texts: values become text as they are spelled.

use super::Tree;
use crate::error::{Error, Result};

/// Deeper nesting is refused: trees are walked and dropped by recursion.
const MAX_DEPTH: usize = 100;

pub(super) fn parse(json: &str) -> Result<Tree> {
    let text = json.strip_prefix('\u{feff}').unwrap_or(json);
    let mut reader = Reader { text, rest: text };
    let tree = reader.value(0)?;
    reader.skip_space();
    if reader.rest.is_empty() { Ok(tree) } else { Err(reader.error("the end of the text")) }
}

struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn error(&self, expected: impl Into<String>) -> Error {
        let offset = self.text.len().saturating_sub(self.rest.len());
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end.saturating_add(1));
        let found: String = self.rest.chars().take(16).collect();
        Error::Text {
            line: before.matches('\n').count().saturating_add(1),
            column: before.get(line_start..).unwrap_or_default().chars().count().saturating_add(1),
            found,
            reason: format!("{} is expected in JSON", expected.into()),
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Whether a text comes next, which is then behind us.
    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        if self.eat(text) { Ok(()) } else { Err(self.error(format!("{text:?}"))) }
    }

    fn value(&mut self, depth: usize) -> Result<Tree> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("nesting of at most {MAX_DEPTH}")));
        }
        self.skip_space();
        if self.eat("{") {
            return self.children("}", |reader| {
                let key = reader.string()?;
                reader.skip_space();
                reader.expect(":")?;
                Ok((key, reader.value(depth.saturating_add(1))?))
            });
        }
        if self.eat("[") {
            return self.children("]", |reader| Ok((String::new(), reader.value(depth.saturating_add(1))?)));
        }
        if self.rest.starts_with('"') { self.string().map(Tree::from) } else { self.word() }
    }

    fn children(&mut self, end: &str, mut child: impl FnMut(&mut Self) -> Result<(String, Tree)>) -> Result<Tree> {
        let mut children = Vec::new();
        self.skip_space();
        if self.eat(end) {
            return Ok(Tree::default());
        }
        loop {
            self.skip_space();
            children.push(child(self)?);
            self.skip_space();
            if self.eat(end) {
                return Ok(Tree { text: String::new(), children });
            }
            if !self.eat(",") {
                return Err(self.error(format!("\",\" or {end:?}")));
            }
        }
    }

    /// `true`, `false`, `null` or a number, as spelled.
    fn word(&mut self) -> Result<Tree> {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if !(matches!(word, "true" | "false" | "null") || is_number(word)) {
            return Err(self.error("a value"));
        }
        self.rest = rest;
        Ok(Tree::from(word))
    }

    fn string(&mut self) -> Result<String> {
        self.expect("\"")?;
        let mut out = String::new();
        loop {
            let end = self.rest.find(['"', '\\']);
            let Some((plain, rest)) = end.map(|end| self.rest.split_at(end)) else {
                return Err(self.error("a closing quote"));
            };
            out.push_str(plain);
            self.rest = rest;
            if self.eat("\"") {
                return Ok(out);
            }
            out.push(self.escape()?);
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char> {
        const ESCAPES: [(&str, char); 8] = [
            ("\\\"", '"'),
            ("\\\\", '\\'),
            ("\\/", '/'),
            ("\\b", '\u{8}'),
            ("\\f", '\u{c}'),
            ("\\n", '\n'),
            ("\\r", '\r'),
            ("\\t", '\t'),
        ];
        if let Some((_, c)) = ESCAPES.iter().find(|(escape, _)| self.eat(escape)) {
            return Ok(*c);
        }
        let unpaired = "a pair of surrogates";
        let high = self.unit()?;
        if !(0xd800..0xe000).contains(&high) {
            return char::from_u32(high).ok_or_else(|| self.error(unpaired));
        }
        let low = self.unit()?;
        let mut pair = char::decode_utf16([high, low].map(|unit| u16::try_from(unit).unwrap_or_default()));
        match (pair.next(), pair.next()) {
            (Some(Ok(c)), None) => Ok(c),
            _ => Err(self.error(unpaired)),
        }
    }

    /// `\uXXXX`.
    fn unit(&mut self) -> Result<u32> {
        let digits = self.rest.strip_prefix("\\u").and_then(|rest| rest.get(..4));
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.error("an escape"))?;
        self.rest = self.rest.get(6..).unwrap_or_default();
        Ok(unit)
    }
}

/// JSON's grammar of numbers.
fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let word = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = word.split_once(['e', 'E']).map_or((word, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_refused_at_its_place() {
        let check = |json: &str, line, column| match parse(json) {
            Err(Error::Text { line: l, column: c, .. }) => assert_eq!((l, c), (line, column), "{json:?}"),
            other => panic!("{json:?}: {other:?}"),
        };
        check("", 1, 1);
        check("{\n  \"a\" 1}", 2, 7);
        check("[1,]", 1, 4);
        check("{\"a\":01}", 1, 6);
        check("{\"a\":1} x", 1, 9);
        check("\"\\ud800\"", 1, 8);
        check("\"\\x\"", 1, 2);
        check("\"abc", 1, 2);
        check(&"[".repeat(200), 1, 102);
    }

    #[test]
    fn numbers_follow_the_grammar() {
        for word in ["0", "-0", "1.5", "12e3", "1E-7", "-1.0e+9"] {
            assert!(is_number(word), "{word}");
        }
        for word in ["", "-", "01", ".5", "1.", "1e", "+1", "0x1", "1e+"] {
            assert!(!is_number(word), "{word}");
        }
    }
}
