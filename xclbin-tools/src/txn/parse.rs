//! The text form, read.
//!
//! ```text
//! ; a comment
//! stream version=0.1 generation=3 rows=6 columns=4 memory_tile_rows=1
//! block_write tile(0,0)+0x1d000
//!     0x00000400 0x00000000 ...        words may go on over lines that start with a number
//! patch tile(0,0)+0x1d004 argument=0 offset=0x0
//! write tile(0,0)+0x1d204 value=0x80000000 reserved(0x100) tail(0x0)
//! sync tile(0,0) direction=s2mm channel=0 columns=1 rows=1
//! ```
//!
//! Fields have names and any order; numbers are decimal or `0x`. `reserved` holds paddings in the file's order, those
//! left out are zero; `tail` words after the last field. Both default to what the usual writer leaves. A patch in a
//! stream of version 1.0 may have `layout=0.1`.

use crate::words::Words;
use std::str::FromStr;

use super::{
    Builder, Header, Place, Version,
    op::{MAX_PADDING, Op, Operation, Reserved, Sync},
};
use crate::{
    array::Address,
    error::{Error, Result, begin},
};

/// The bytes of a stream from its text form.
///
/// # Errors
/// A text that contradicts the grammar, with line and column; a value that is too large for its field.
pub fn assemble(text: &str) -> Result<Vec<u8>> {
    let mut builder = None;
    let mut open: Option<Statement<'_>> = None;
    for (index, line) in text.lines().enumerate() {
        let mut line = Line::new(line, index.saturating_add(1));
        let Some(first) = line.next() else { continue };
        if first.text.starts_with(|first: char| first.is_ascii_digit()) {
            let Some(statement) = &mut open else {
                return Err(first.error("an operation, to which words belong"));
            };
            statement.add_words(first, line)?;
            continue;
        }
        if let Some(statement) = open.replace(Statement::read(first, line)?) {
            close(&mut builder, statement)?;
        }
    }
    if let Some(statement) = open {
        close(&mut builder, statement)?;
    }
    let expected = "expected a first line `stream version=... generation=...`";
    let nothing = Error::Text { line: 1, column: 1, found: String::new(), reason: expected.to_owned() };
    builder.ok_or(nothing)?.finish()
}

/// Appends a whole statement.
fn close(builder: &mut Option<Builder>, mut statement: Statement<'_>) -> Result<()> {
    let name = statement.name;
    match builder {
        None if name.text == "stream" => *builder = Some(Builder::new(statement.header()?)),
        None => return Err(name.error("`stream`, the first line, which says version and device")),
        Some(_) if name.text == "stream" => return Err(name.error("an operation: there is one `stream` line")),
        Some(builder) => {
            let (padding, tail) = (statement.padding()?, statement.tail.take());
            let old_layout = name.text == "patch" && statement.old_layout(builder.header().version)?;
            let data = std::mem::take(&mut statement.data);
            let op = statement.op(Words::new(&data))?;
            let mut reserved = Reserved::usual(builder.header().version, &op);
            reserved.padding = padding;
            reserved.old_layout = old_layout;
            if let Some(tail) = &tail {
                reserved.tail = Words::new(tail);
            }
            builder.push(&Operation { op, reserved }).map_err(|error| name.refused(error.to_string()))?;
        }
    }
    statement.end()
}

/// A word or a mark of the text.
#[derive(Clone, Copy)]
struct Token<'t> {
    text: &'t str,
    line: usize,
    column: usize,
}

impl Token<'_> {
    fn error(&self, expected: impl AsRef<str>) -> Error {
        self.refused(format!("expected {}", expected.as_ref()))
    }

    fn refused(&self, reason: String) -> Error {
        Error::Text { line: self.line, column: self.column, found: begin(self.text), reason }
    }

    /// Its value as a number of type `T`.
    fn number<T: TryFrom<u64>>(&self) -> Result<T> {
        let value = match self.text.strip_prefix("0x") {
            Some(digits) if digits.starts_with(|first: char| first.is_ascii_hexdigit()) => {
                u64::from_str_radix(digits, 16)
            }
            _ if self.text.starts_with(|first: char| first.is_ascii_digit()) => self.text.parse(),
            _ => return Err(self.error("a number, decimal or 0x...")),
        };
        let bits = size_of::<T>().saturating_mul(8);
        let expected = || self.error(format!("a number of at most {bits} bits, decimal or 0x..."));
        T::try_from(value.map_err(|_| expected())?).map_err(|_| expected())
    }
}

/// The tokens of a line.
#[derive(Clone)]
struct Line<'t> {
    /// Up to the comment.
    text: &'t str,
    number: usize,
    /// Of the next character, in bytes and in characters.
    position: usize,
    column: usize,
}

impl<'t> Line<'t> {
    fn new(text: &'t str, number: usize) -> Line<'t> {
        let text = text.split(';').next().unwrap_or_default();
        Line { text, number, position: 0, column: 1 }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn skip(&mut self, text: &str) {
        self.position = self.position.saturating_add(text.len());
        self.column = self.column.saturating_add(text.chars().count());
    }

    fn next(&mut self) -> Option<Token<'t>> {
        let rest = self.rest();
        let text = rest.trim_start();
        self.skip(rest.get(..rest.len().saturating_sub(text.len())).unwrap_or_default());
        let first = text.chars().next()?;
        let is_mark = |c: char| matches!(c, '(' | ')' | '+' | ',' | '=');
        let end = if is_mark(first) {
            first.len_utf8()
        } else {
            text.find(|c: char| c.is_whitespace() || is_mark(c)).unwrap_or(text.len())
        };
        let token = Token { text: text.get(..end)?, line: self.number, column: self.column };
        self.skip(token.text);
        Some(token)
    }

    /// The next token, or an empty one at the line's end.
    fn take(&mut self) -> Token<'t> {
        let at_end = |line: &Line<'t>| Token { text: "", line: line.number, column: line.column };
        self.next().unwrap_or_else(|| at_end(self))
    }

    fn expect(&mut self, mark: &str) -> Result<()> {
        let token = self.take();
        if token.text == mark { Ok(()) } else { Err(token.error(format!("`{mark}`"))) }
    }

    /// `(n, n, ...)`
    fn group(&mut self) -> Result<Vec<Token<'t>>> {
        self.expect("(")?;
        let mut values = Vec::new();
        loop {
            let token = self.take();
            match token.text {
                ")" => return Ok(values),
                "," if !values.is_empty() => values.push(self.take()),
                _ if values.is_empty() => values.push(token),
                _ => return Err(token.error("`,` or `)`")),
            }
        }
    }
}

/// `(column,row)` and, if there is one, `+offset`, whose token is returned.
fn tile<'t>(token: Token<'t>, line: &mut Line<'t>) -> Result<(Address, Option<Token<'t>>)> {
    let group = line.group()?;
    let [column, row] = group.as_slice() else { return Err(token.error("tile(COLUMN,ROW)")) };
    let below = |token: &Token<'_>, limit: u8, expected: &str| {
        token.number::<u8>().ok().filter(|value| *value <= limit).ok_or_else(|| token.error(expected))
    };
    // A tile alone has bytes for them, an address fields of 7 and 5 bits.
    if line.clone().next().is_none_or(|next| next.text != "+") {
        let column = below(column, u8::MAX, "a column, 0 to 255")?;
        let row = below(row, u8::MAX, "a row, 0 to 255")?;
        return Ok((Address { column, row, offset: 0 }, None));
    }
    let column = below(column, 0x7f, "a column, 0 to 127")?;
    let row = below(row, 0x1f, "a row, 0 to 31")?;
    line.expect("+")?;
    let at = line.take();
    let offset = at.number::<u32>()?;
    if offset >= Address::TILE_BYTES {
        return Err(at.error("an offset in the tile, below 0x100000"));
    }
    Ok((Address { column, row, offset }, Some(at)))
}

impl FromStr for Place {
    type Err = Error;

    /// `ADDRESS` or `INDEX:ADDRESS`; an address is `tile(COLUMN,ROW)+OFFSET` or its 32 bits as a number.
    fn from_str(text: &str) -> Result<Place> {
        let (index, text) = match text.split_once(':') {
            None => (None, text),
            Some((index, address)) => (Some(Line::new(index, 1).take().number()?), address),
        };
        let mut line = Line::new(text, 1);
        let first = line.take();
        let address = match first.text {
            "tile" => {
                let (address, offset) = tile(first, &mut line)?;
                offset.ok_or_else(|| first.error("tile(COLUMN,ROW)+OFFSET"))?;
                address
            }
            _ => Address::from(first.number::<u32>()?),
        };
        match line.next() {
            None => Ok(Place { address, index }),
            Some(token) => Err(token.error("nothing more")),
        }
    }
}

/// A line with the words below it; what is used is taken out.
struct Statement<'t> {
    name: Token<'t>,
    tile: Option<(Token<'t>, Address)>,
    offset: Option<Token<'t>>,
    fields: Vec<(Token<'t>, Token<'t>)>,
    reserved: Vec<Token<'t>>,
    tail: Option<Vec<u8>>,
    first_word: Option<Token<'t>>,
    data: Vec<u8>,
}

impl<'t> Statement<'t> {
    fn read(name: Token<'t>, mut line: Line<'t>) -> Result<Statement<'t>> {
        let mut statement = Statement {
            name,
            tile: None,
            offset: None,
            fields: Vec::new(),
            reserved: Vec::new(),
            tail: None,
            first_word: None,
            data: Vec::new(),
        };
        while let Some(token) = line.next() {
            // `reserved` of the header is a field.
            let is_group = line.clone().next().is_some_and(|next| next.text == "(");
            match token.text {
                "tile" if is_group && statement.tile.is_none() => {
                    let (address, offset) = tile(token, &mut line)?;
                    (statement.tile, statement.offset) = (Some((token, address)), offset);
                }
                "reserved" if is_group && statement.reserved.is_empty() => statement.reserved = line.group()?,
                "tail" if is_group && statement.tail.is_none() => statement.tail = Some(words(&line.group()?)?),
                _ => {
                    line.expect("=")?;
                    statement.fields.push((token, line.take()));
                }
            }
        }
        Ok(statement)
    }

    fn add_words(&mut self, first: Token<'t>, mut line: Line<'t>) -> Result<()> {
        self.first_word.get_or_insert(first);
        let mut next = Some(first);
        while let Some(token) = next {
            self.data.extend(token.number::<u32>()?.to_le_bytes());
            next = line.next();
        }
        Ok(())
    }

    /// The value of a field.
    fn field(&mut self, name: &str) -> Result<Token<'t>> {
        match self.fields.iter().position(|(field, _)| field.text == name) {
            Some(index) => Ok(self.fields.remove(index).1),
            None => Err(self.name.error(format!("`{name}=...` in its line"))),
        }
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<T> {
        self.field(name)?.number()
    }

    /// An address of a register.
    fn address(&mut self) -> Result<Address> {
        let name = self.name;
        let missing = || name.error("`tile(COLUMN,ROW)+OFFSET` in its line");
        self.offset.take().ok_or_else(missing)?;
        Ok(self.tile.take().ok_or_else(missing)?.1)
    }

    /// A tile without offset.
    fn plain_tile(&mut self) -> Result<(u8, u8)> {
        if let Some(offset) = self.offset {
            return Err(offset.error("a tile without offset"));
        }
        let (_, address) = self.tile.take().ok_or_else(|| self.name.error("`tile(COLUMN,ROW)` in its line"))?;
        Ok((address.column, address.row))
    }

    fn padding(&mut self) -> Result<[u32; MAX_PADDING]> {
        let mut padding = [0; MAX_PADDING];
        let given = std::mem::take(&mut self.reserved);
        for (index, token) in given.iter().enumerate() {
            let place = padding.get_mut(index);
            *place.ok_or_else(|| token.error(format!("at most {MAX_PADDING} paddings")))? = token.number()?;
        }
        Ok(padding)
    }

    /// Whether a patch has the fields of version 0.1 in a stream of version 1.0.
    fn old_layout(&mut self, version: Version) -> Result<bool> {
        if version == Version::V0_1 || self.fields.iter().all(|(field, _)| field.text != "layout") {
            return Ok(false);
        }
        let layout = self.field("layout")?;
        if layout.text == "0.1" { Ok(true) } else { Err(layout.error("0.1, or no layout for that of the stream")) }
    }

    fn header(&mut self) -> Result<Header> {
        let version = self.field("version")?;
        let numbers = version
            .text
            .split_once('.')
            .and_then(|(major, minor)| Version::of(major.parse().ok()?, minor.parse().ok()?));
        let version = numbers.ok_or_else(|| version.error("0.1 or 1.0"))?;
        let has_reserved = self.fields.iter().any(|(field, _)| field.text == "reserved");
        Ok(Header {
            version,
            generation: self.number("generation")?,
            rows: self.number("rows")?,
            columns: self.number("columns")?,
            memory_tile_rows: self.number("memory_tile_rows")?,
            reserved: if has_reserved { self.number("reserved")? } else { 0 },
        })
    }

    /// The operation that the name says.
    fn op<'d>(&mut self, data: Words<'d>) -> Result<Op<'d>> {
        Ok(match self.name.text {
            "write" => Op::Write { address: self.address()?, value: self.number("value")? },
            "block_write" => Op::BlockWrite { address: self.address()?, data },
            "mask_write" | "mask_poll" | "mask_poll_busy" => {
                let (address, value, mask) = (self.address()?, self.number("value")?, self.number("mask")?);
                match self.name.text {
                    "mask_write" => Op::MaskWrite { address, value, mask },
                    "mask_poll" => Op::MaskPoll { address, value, mask },
                    _ => Op::MaskPollBusy { address, value, mask },
                }
            }
            "noop" => Op::Noop,
            "preempt" => Op::Preempt { level: self.number("level")? },
            "load_pdi" => Op::LoadPdi {
                id: self.number("id")?,
                size_bytes: self.number("size")?,
                address: self.number("address")?,
            },
            "load_pm" => Op::LoadPm { id: self.number("id")?, n_operations: self.number("operations")? },
            "create_scratchpad" => Op::CreateScratchpad {
                usage: self.number("usage")?,
                size_bytes: self.number("size")?,
                offset: self.number("offset")?,
            },
            "update_state" | "update_register" => self.update()?,
            "update_scratch" => Op::UpdateScratch,
            "sync" => Op::Sync(self.sync()?),
            "patch" => Op::Patch {
                address: self.address()?,
                argument: self.number("argument")?,
                offset_bytes: self.number("offset")?,
            },
            "timer" => Op::Timer { id: self.number("id")? },
            "merge_sync" => Op::MergeSync { n_tokens: self.number("tokens")?, n_columns: self.number("columns")? },
            "custom" => Op::Custom { code: self.number("code")?, payload: data },
            _ => return Err(self.name.error(OPERATIONS)),
        })
    }

    fn update<'d>(&mut self) -> Result<Op<'d>> {
        let address = if self.name.text == "update_register" { Some(self.address()?) } else { None };
        let (index, function) = (self.number("index")?, self.number("function")?);
        let argument = self.number("argument")?;
        Ok(match address {
            Some(address) => Op::UpdateRegister { address, index, function, argument },
            None => Op::UpdateState { index, function, argument },
        })
    }

    fn sync(&mut self) -> Result<Sync> {
        let (column, row) = self.plain_tile()?;
        let direction = self.field("direction")?;
        let direction = match direction.text {
            "s2mm" => 0,
            "mm2s" => 1,
            _ => direction.number().map_err(|_| direction.error("s2mm, mm2s or a number of 8 bits"))?,
        };
        Ok(Sync {
            column,
            row,
            direction,
            channel: self.number("channel")?,
            n_columns: self.number("columns")?,
            n_rows: self.number("rows")?,
        })
    }

    /// Checks that nothing is left over.
    fn end(&self) -> Result<()> {
        let has_data = matches!(self.name.text, "block_write" | "custom");
        if let (Some(word), false) = (self.first_word, has_data) {
            return Err(word.error(format!("the next operation: `{}` has no words", self.name.text)));
        }
        if self.tail.is_some() {
            return Err(self.name.error("no tail: the header has none"));
        }
        let left = self.fields.first().map(|(name, _)| *name).or(self.tile.map(|(token, _)| token));
        let left = left.or(self.reserved.first().copied());
        match left {
            Some(token) => Err(token.error(format!("nothing of that name: `{}` has no such part", self.name.text))),
            None => Ok(()),
        }
    }
}

const OPERATIONS: &str = "an operation: write, block_write, mask_write, mask_poll, mask_poll_busy, noop, preempt, \
    load_pdi, load_pm, create_scratchpad, update_state, update_register, update_scratch, sync, patch, timer, \
    merge_sync or custom";

fn words(tokens: &[Token<'_>]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for token in tokens {
        bytes.extend(token.number::<u32>()?.to_le_bytes());
    }
    Ok(bytes)
}
