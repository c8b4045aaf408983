//! Lines of an assembler text, token by token, with their places.

use crate::error::{Error, Result, begin};

/// A word of the text.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    line: usize,
    column: usize,
}

/// What is left of a line.
pub(super) struct Line<'a> {
    rest: &'a str,
    line: usize,
    /// Of the start of `rest`, in characters, from 1.
    column: usize,
}

impl<'a> Line<'a> {
    /// A line by its number, from 1.
    pub(super) fn new(text: &'a str, line: usize) -> Line<'a> {
        Line { rest: text.split([';', '#']).next().unwrap_or_default(), line, column: 1 }
    }

    /// The next token; none at the end of the line. Spaces within parentheses belong to a token.
    pub(super) fn next(&mut self) -> Result<Option<Token>> {
        let trimmed = self.rest.trim_start();
        let (spaces, _) = self.rest.split_at(self.rest.len().saturating_sub(trimmed.len()));
        self.column = self.column.saturating_add(spaces.chars().count());
        let mut is_inside = false;
        let end = trimmed.find(|character: char| {
            is_inside = (is_inside || character == '(') && character != ')';
            character.is_whitespace() && !is_inside
        });
        let (text, rest) = trimmed.split_at(end.unwrap_or(trimmed.len()));
        let token = Token { text: text.to_owned(), line: self.line, column: self.column };
        self.rest = rest;
        self.column = self.column.saturating_add(text.chars().count());
        if end.is_none() && is_inside {
            return Err(token.error("`)` is missing"));
        }
        Ok((!text.is_empty()).then_some(token))
    }

    /// The next token, which must be there.
    pub(super) fn expect(&mut self, what: &str) -> Result<Token> {
        match self.next()? {
            Some(token) => Ok(token),
            None => Err(Token { text: String::new(), line: self.line, column: self.column }.error(what)),
        }
    }

    /// An error if there is one more token.
    pub(super) fn end(&mut self) -> Result<()> {
        self.next()?.map_or(Ok(()), |token| Err(token.error("the line ends before this")))
    }
}

impl Token {
    /// True if it starts as a number does.
    pub(super) fn is_number(&self) -> bool {
        self.text.starts_with(|first: char| first.is_ascii_digit())
    }

    /// An error here.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Text { line: self.line, column: self.column, found: begin(&self.text), reason: reason.into() }
    }

    /// A piece of this token, for its own errors.
    pub(super) fn part(&self, text: &str) -> Token {
        let before =
            self.text.rfind(text).and_then(|at| self.text.get(..at)).map_or(0, |before| before.chars().count());
        Token { text: text.to_owned(), line: self.line, column: self.column.saturating_add(before) }
    }

    pub(super) fn u8(&self) -> Result<u8> {
        self.number("a number below 0x100")
    }

    pub(super) fn u16(&self) -> Result<u16> {
        self.number("a number below 0x10000")
    }

    pub(super) fn u32(&self) -> Result<u32> {
        self.number("a number of 32 bits, as 0x1f or 31")
    }

    /// A number, or `tile(column,row)+offset`.
    pub(super) fn address(&self, is_wide: bool) -> Result<u64> {
        let Some(inside) = self.text.strip_prefix("tile(") else {
            return if is_wide { self.number(ADDRESS) } else { self.number::<u32>(ADDRESS).map(u64::from) };
        };
        let parts = inside.split_once(')').and_then(|(tile, offset)| Some((tile.split_once(',')?, offset)));
        let Some(((column, row), offset)) = parts else { return Err(self.error(ADDRESS)) };
        let offset = match offset.strip_prefix('+') {
            Some(offset) => offset,
            None if offset.is_empty() => "0",
            None => return Err(self.error(ADDRESS)),
        };
        let field = |text: &str, what: &'static str, end: u32| -> Result<u32> {
            let part = self.part(text.trim());
            let value: u32 = part.number(what)?;
            if value < end { Ok(value) } else { Err(part.error(what)) }
        };
        let column = field(column, "a column below 128", 128)?;
        let row = field(row, "a row below 32", 32)?;
        let offset = field(offset, "an offset below 0x100000", 0x10_0000)?;
        Ok((column << 25 | row << 20 | offset).into())
    }

    fn number<T: TryFrom<u64>>(&self, expected: &str) -> Result<T> {
        let value = match self.text.strip_prefix("0x") {
            Some(digits) if digits.starts_with(|first: char| first.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16).ok()
            }
            Some(_) => None,
            None if self.is_number() => self.text.parse().ok(),
            None => None,
        };
        value.and_then(|value| T::try_from(value).ok()).ok_or_else(|| self.error(expected))
    }
}

const ADDRESS: &str = "an address: a number, or as tile(0,1)+0xa0000";
