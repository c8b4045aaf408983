//! The model to bytes, laid out as `xclbinutil` does: behind the head all lists and names in the order of the
//! JSON, each from a multiple of eight, and a table behind what its entries name.

use super::{AiePartition, CdoGroup, Pdi};
use crate::{
    bytes::Writer,
    error::{Error, Result},
};

const HEAD_BYTES: usize = 184;

impl AiePartition<'_> {
    /// The section's bytes.
    ///
    /// # Errors
    /// A name with a NUL; more than 4 GiB in all.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut heap = Heap(Writer::new());
        heap.0.bytes.resize(HEAD_BYTES, 0);
        let mut head = Writer::new();
        head.u8(self.schema_version);
        head.pad_to(4);
        head.u32(heap.name(&self.name)?);
        head.u32(self.operations_per_cycle);
        head.pad_to(8);
        head.u64(self.inference_fingerprint);
        head.u64(self.pre_post_fingerprint);
        let commit = self.kernel_commit_id.as_deref().map_or(Ok(0), |commit| heap.name(commit))?;
        head.u16(self.column_width);
        head.pad_to(8);
        let columns: Vec<u8> = self.start_columns.iter().flat_map(|column| column.to_le_bytes()).collect();
        head.put(&heap.list(self.start_columns.len(), &columns)?);
        skip(&mut head, 72);
        let mut table = Writer::new();
        for pdi in &self.pdis {
            pdi.write(&mut table, &mut heap)?;
        }
        head.put(&heap.list(self.pdis.len(), &table.bytes)?);
        head.u32(commit);
        let mut bytes = heap.0.bytes;
        // The head written here is shorter than the room kept for it; the rest of it is reserved.
        bytes.iter_mut().zip(head.bytes).for_each(|(byte, from)| *byte = from);
        Ok(bytes)
    }
}

impl Pdi<'_> {
    fn write(&self, table: &mut Writer, heap: &mut Heap) -> Result<()> {
        table.put(&self.uuid.0);
        table.put(&heap.list(self.image.len(), &self.image)?);
        let mut groups = Writer::new();
        for group in &self.groups {
            group.write(&mut groups, heap)?;
        }
        table.put(&heap.list(self.groups.len(), &groups.bytes)?);
        skip(table, 64);
        Ok(())
    }
}

impl CdoGroup<'_> {
    fn write(&self, table: &mut Writer, heap: &mut Heap) -> Result<()> {
        table.u32(heap.name(&self.name)?);
        table.u8(self.kind.0);
        table.pad_to(8);
        table.u64(self.pdi_id);
        for ids in [&self.kernel_ids, &self.pre_cdo_groups] {
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            table.put(&heap.list(ids.len(), &bytes)?);
        }
        skip(table, 64);
        Ok(())
    }
}

/// Reserved bytes.
fn skip(out: &mut Writer, size_bytes: usize) {
    out.put(&vec![0; size_bytes]);
}

/// The section so far; lists and names are added at its end.
struct Heap(Writer);

impl Heap {
    /// Adds a text and returns its offset.
    fn name(&mut self, text: &str) -> Result<u32> {
        if text.contains('\0') {
            return Err(Error::refused("name", format!("{text:?}"), "a NUL would end it"));
        }
        let offset = self.offset()?;
        self.0.put(text.as_bytes());
        self.0.u8(0);
        self.0.pad_to(8);
        Ok(offset)
    }

    /// Adds a list and returns its count and offset; an empty one has no offset.
    fn list(&mut self, count: usize, bytes: &[u8]) -> Result<[u8; 8]> {
        let offset = if count == 0 { 0 } else { self.offset()? };
        let number = u32::try_from(count).map_err(|_| too_long(count as u64))?;
        self.0.put(bytes);
        self.0.pad_to(8);
        Ok((u64::from(offset) << 32 | u64::from(number)).to_le_bytes())
    }

    fn offset(&self) -> Result<u32> {
        u32::try_from(self.0.len()).map_err(|_| too_long(self.0.len()))
    }
}

fn too_long(size: u64) -> Error {
    Error::refused("AIE_PARTITION", format!("{size} bytes"), "counts and offsets have 32 bits")
}
