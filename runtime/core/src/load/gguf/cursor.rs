//! Reads little-endian values from a byte slice and says where it failed.

use super::ENDS_EARLY;
use crate::load::error::LoadError;

/// A position in the file and the section that it is in.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Named by errors.
    pub(super) section: String,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], section: &str) -> Cursor<'a> {
        Cursor { bytes, position: 0, section: section.to_owned() }
    }

    /// From the start of the file.
    pub(super) fn offset(&self) -> u64 {
        self.position as u64
    }

    pub(super) fn malformed(
        &self,
        offset: u64,
        what: &'static str,
        value: impl ToString,
        bound: impl Into<String>,
    ) -> LoadError {
        LoadError::Malformed {
            format: "gguf",
            section: self.section.clone(),
            offset,
            what,
            value: value.to_string(),
            bound: bound.into(),
        }
    }

    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// The next bytes.
    pub(super) fn take(&mut self, size_bytes: usize, what: &'static str) -> Result<&'a [u8], LoadError> {
        let end = self.position.checked_add(size_bytes);
        let Some((end, taken)) = end.and_then(|end| Some((end, self.bytes.get(self.position..end)?))) else {
            let bound = format!("but only {} bytes are left: {ENDS_EARLY}", self.remaining());
            return Err(self.malformed(self.offset(), what, format!("{size_bytes} bytes long"), bound));
        };
        self.position = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], LoadError> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N, what)?);
        Ok(value)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, LoadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64, LoadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of items of at least `min_bytes` each, so that nothing is allocated for items that cannot follow.
    pub(super) fn count(&mut self, what: &'static str, max: u64, min_bytes: u64) -> Result<usize, LoadError> {
        let at = self.offset();
        let count = self.u64(what)?;
        let fits = (self.remaining() as u64).checked_div(min_bytes).unwrap_or(0);
        match usize::try_from(count) {
            Ok(items) if count <= max.min(fits) => Ok(items),
            _ if count > max => Err(self.malformed(at, what, count, format!("at most {max}"))),
            _ => Err(self.malformed(at, what, count, format!("at most {fits} can follow: {ENDS_EARLY}"))),
        }
    }

    /// A length and that many bytes of UTF-8.
    pub(super) fn string(&mut self, what: &'static str, max_bytes: u64) -> Result<String, LoadError> {
        let len = self.count(what, max_bytes, 1)?;
        let at = self.offset();
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let at = at.saturating_add(error.valid_up_to() as u64);
                Err(self.malformed(at, what, "no utf-8", "must be utf-8"))
            }
        }
    }
}
