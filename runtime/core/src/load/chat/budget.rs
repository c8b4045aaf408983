//! What one render may make: bytes of text and of lists, counted before they are allocated.
//!
//! A failed allocation ends the process, so a template must never get as far as one. Each render runs on
//! a thread of its own ([`super::guard`]), and the budget belongs to that thread. It counts what is made,
//! not what is alive: nothing is given back, so the sum of all that a render keeps stays below it.

use std::cell::Cell;
use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Longest list that operators may make. Such lists are lazy, and some of what reads them collects them.
const ITEMS_MAX: usize = 1 << 20;
/// What one item of a list takes, and one of a map.
const ITEM_BYTES: usize = 24;
const ENTRY_BYTES: usize = 96;
/// What a piece of text counts at least: a list writes many short ones, and each takes its time.
const PIECE_BYTES_MIN: usize = 16;

thread_local! {
    static REMAINING_BYTES: Cell<usize> = const { Cell::new(usize::MAX) };
    static SPENT: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread so many bytes.
pub(super) fn open(bytes: usize) {
    REMAINING_BYTES.set(bytes);
    SPENT.set(false);
}

/// Whether this thread wanted more than it had.
pub(super) fn is_spent() -> bool {
    SPENT.get()
}

fn spent() -> Error {
    SPENT.set(true);
    Error::new(ErrorKind::InvalidOperation, "the template makes more text than it may")
}

/// Takes so many bytes from the budget.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    match REMAINING_BYTES.get().checked_sub(bytes) {
        Some(rest) => {
            REMAINING_BYTES.set(rest);
            Ok(())
        }
        None => Err(spent()),
    }
}

/// Takes `times` times so many bytes.
pub(super) fn charge_times(bytes: usize, times: usize) -> Result<(), Error> {
    charge(bytes.saturating_mul(times))
}

/// Takes what a list of so many items needs, which must not be longer than lists may get.
pub(super) fn charge_items(count: usize) -> Result<(), Error> {
    if count > ITEMS_MAX {
        return Err(spent());
    }
    charge_times(count, ITEM_BYTES)
}

/// Takes what a copy of a list or a map needs, without what its items hold.
pub(super) fn charge_copy(value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Map => charge_times(item_count(value), ENTRY_BYTES),
        ValueKind::String | ValueKind::Seq | ValueKind::Iterable => charge_items(item_count(value)),
        _ => Ok(()),
    }
}

/// Items of a list, entries of a map, characters of a string; counted no further than lists may get.
pub(super) fn item_count(value: &Value) -> usize {
    if value.kind() == ValueKind::Plain {
        return 0;
    }
    let counted = || value.try_iter().map_or(0, |items| items.take(ITEMS_MAX + 1).count());
    value.len().unwrap_or_else(counted)
}

/// Bytes of a value's text, or more. A list that holds itself many times over has a text that is far larger than
/// the list; where that is beyond the budget, counting stops.
pub(super) fn text_size(value: &Value) -> Result<usize, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.len());
    }
    let mut counter = Counter { size: 0, most: REMAINING_BYTES.get() };
    write!(counter, "{value}").map_err(|fmt::Error| spent())?;
    Ok(counter.size)
}

struct Counter {
    size: usize,
    most: usize,
}

impl Write for Counter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.size = self.size.saturating_add(text.len().max(PIECE_BYTES_MIN));
        if self.size > self.most { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Passes text on and takes it from the budget as it goes.
pub(super) struct Charged<'w>(pub(super) &'w mut dyn Write);

impl Write for Charged<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        charge(text.len().max(PIECE_BYTES_MIN)).map_err(|_| fmt::Error)?;
        self.0.write_str(text)
    }
}

/// Text made within the budget.
pub(super) fn text_of(arguments: fmt::Arguments<'_>) -> Result<String, Error> {
    let mut text = String::new();
    Charged(&mut text).write_fmt(arguments).map_err(|fmt::Error| spent())?;
    Ok(text)
}

/// The same for what writes bytes.
pub(super) struct ChargedBytes(pub(super) Vec<u8>);

impl std::io::Write for ChargedBytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        charge(bytes.len().max(PIECE_BYTES_MIN)).map_err(std::io::Error::other)?;
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
