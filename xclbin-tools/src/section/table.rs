//! Sections that are a count and a list: MEM_TOPOLOGY, IP_LAYOUT, CONNECTIVITY.

use super::json::{At, Tree};
use crate::{
    bytes::{Reader, Writer},
    error::{Error, Result},
};

/// Drivers take sections of at most 64 KiB. As text an entry takes a hundred times its bytes.
pub(crate) const MAX_ENTRIES: usize = 1 << 16;

/// The count, checked against the size, and a reader at the first entry. `head_bytes` stand before the entries.
pub(super) fn open<'a>(
    bytes: &'a [u8],
    part: &'static str,
    head_bytes: usize,
    entry_bytes: usize,
) -> Result<(u32, Reader<'a>)> {
    let mut reader = Reader::new(bytes, part);
    let count = reader.u32("m_count")?;
    reader.take(head_bytes.saturating_sub(4), "padding")?;
    let expected = usize::try_from(count).ok().and_then(|count| count.checked_mul(entry_bytes));
    if expected != Some(reader.remaining()) {
        let bound = format!("{} bytes of entries follow, {entry_bytes} each", reader.remaining());
        return Err(reader.malformed(0, "m_count", count, bound));
    }
    if count as usize > MAX_ENTRIES {
        let (value, bound) = (format!("{count} entries"), format!("at most {MAX_ENTRIES} are read"));
        return Err(Error::TooLarge { what: part, value, bound });
    }
    Ok((count, reader))
}

/// The bytes before the entries; without entries `xclbinutil` writes nothing at all.
pub(super) fn start(count: usize, head_bytes: usize) -> Result<Writer> {
    let mut out = Writer::new();
    let number =
        i32::try_from(count).map_err(|_| Error::refused("m_count", count, "at most 2^31 - 1 fits the field"))?;
    if count > 0 {
        out.u32(number.unsigned_abs());
        out.pad_to(head_bytes);
    }
    Ok(out)
}

/// The entries of `{"m_count": n, list: [...]}`.
pub(super) fn items<T>(table: &At<'_>, list: &str, item: impl Fn(At<'_>) -> Result<T>) -> Result<Vec<T>> {
    let count = table.get("m_count")?;
    let number: u32 = count.decimal()?;
    if number == 0 {
        return Ok(Vec::new());
    }
    let items: Vec<T> = table.get(list)?.items().map(item).collect::<Result<_>>()?;
    if usize::try_from(number).ok() != Some(items.len()) {
        return Err(count.error(number, format!("{list} has {} entries", items.len())));
    }
    Ok(items)
}

/// `{"m_count": n, list: [...]}`.
pub(super) fn to_json(list: &str, items: impl Iterator<Item = Tree>) -> Tree {
    let items = Tree::array(items);
    Tree::default().with("m_count", items.children.len().to_string()).with(list, items)
}
