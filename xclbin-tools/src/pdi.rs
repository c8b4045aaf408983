//! Programmable device images (PDI): what configures the array. An NPU's has one image of one partition, a CDO.
//! Drawn in `docs/src/formats/pdi-cdo.md`.
//!
//! The last word of each header is the inverted sum of those before it. [`Pdi::parse`] takes wrong ones;
//! [`Pdi::checksums`] shows them. A boot image of a whole Versal device starts with the same bytes and has a boot header
//! in place of the table; it is none of an NPU's and is refused.
//!
//! Source: `Xilinx/bootgen:imageheadertable-versal.h` and `partitionheadertable-versal.h`.

mod build;

mod header;

use crate::{
    bytes::Reader,
    cdo::{Cdo, Checksum},
    error::{Error, Result},
};

pub use build::{Options, Release, build};
pub use header::{ImageHeader, ImageHeaderTable, PartitionHeader, Transform};

/// The first bytes: a pattern that tells a loader the width of its bus.
pub const MAGIC: [u8; 16] = [0xdd, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55, 0xcc, 0xbb, 0xaa, 0x99];

/// The first word of a boot header, as it stands where a PDI of an NPU has its version.
const BOOT_HEADER: u32 = 0xaa99_5566;

/// A view of a PDI.
#[derive(Clone, Debug)]
pub struct Pdi<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// How many of what, and where.
    pub table: ImageHeaderTable,
    /// In their order.
    pub images: Vec<ImageHeader>,
    /// Of all images, in their order.
    pub partitions: Vec<Partition<'a>>,
}

/// A partition: its header and its data.
#[derive(Clone, Debug)]
pub struct Partition<'a> {
    /// Lengths, place, kind.
    pub header: PartitionHeader,
    /// Its data with their padding; to the end of the file if the partition is transformed.
    pub data: &'a [u8],
}

/// One header's checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedChecksum {
    /// Whose: `image header table`, `partition header 0`, ...
    pub name: String,
    /// Its byte in the PDI.
    pub offset: u64,
    /// As it stands and as it should.
    pub checksum: Checksum,
}

impl<'a> Pdi<'a> {
    /// Reads a PDI. Nothing in it has to be right except what is needed to find its parts.
    ///
    /// # Errors
    /// If the magic is another, or a header or a partition's data lie outside of the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Pdi<'a>> {
        let mut reader = Reader::new(bytes, "PDI");
        let magic = reader.array::<16>("magic")?;
        if magic != MAGIC {
            let first = magic.map(|byte| format!("{byte:02x}")).concat();
            return Err(reader.malformed(0, "magic", first, "a PDI starts with dd0000004433221188776655ccbbaa99"));
        }
        let at = reader.offset();
        let table = ImageHeaderTable::read(&mut reader)?;
        if table.version() == BOOT_HEADER {
            let bound = "the boot image of a whole device has its boot header here; an NPU's PDI has 0x00040000";
            return Err(reader.malformed(at, "version", format!("{BOOT_HEADER:#010x}"), bound));
        }
        let (n_images, n_partitions) = (table.image_count(), table.partition_count());
        check_count(&reader, at.saturating_add(4), "image count", n_images, 64)?;
        check_count(&reader, at.saturating_add(12), "partition count", n_partitions, 128)?;
        reader.seek(u64::from(table.image_header_word_offset()).saturating_mul(4), "image header offset")?;
        let images = (0..n_images).map(|_| ImageHeader::read(&mut reader)).collect::<Result<_>>()?;
        reader.seek(u64::from(table.partition_header_word_offset()).saturating_mul(4), "partition header offset")?;
        let at = reader.offset();
        let partitions = (0..n_partitions).map(|_| Partition::read(&mut reader)).collect::<Result<Vec<_>>>()?;
        // Partitions that overlap would let a small file stand for any number of bytes.
        let data_bytes =
            partitions.iter().fold(0_u64, |sum, partition| sum.saturating_add(partition.data.len() as u64));
        if data_bytes > bytes.len() as u64 {
            let bound = format!("the PDI has {} bytes: partitions overlap", bytes.len());
            return Err(reader.malformed(at, "total of partition data", format!("{data_bytes} bytes"), bound));
        }
        Ok(Pdi { bytes, table, images, partitions })
    }

    /// All checksums of headers, right and wrong. A CDO has its own: [`Cdo::checksum`].
    #[must_use]
    pub fn checksums(&self) -> Vec<NamedChecksum> {
        let table = ("image header table".to_owned(), MAGIC.len() as u64, self.table.checksum());
        let images = self.images.iter().enumerate().map(|(index, header)| {
            let offset = place(self.table.image_header_word_offset(), index, 64);
            (format!("image header {index}"), offset, header.checksum())
        });
        let partitions = self.partitions.iter().enumerate().map(|(index, partition)| {
            let offset = place(self.table.partition_header_word_offset(), index, 128);
            (format!("partition header {index}"), offset, partition.header.checksum())
        });
        let all = std::iter::once(table).chain(images).chain(partitions);
        all.map(|(name, offset, checksum)| NamedChecksum { name, offset, checksum }).collect()
    }

    /// True if `aie-pdi-transform` rewrote a partition: its lengths and its header's checksum are those of the
    /// original, which is expected and harmless.
    #[must_use]
    pub fn is_transformed(&self) -> bool {
        self.partitions.iter().any(|partition| partition.header.transform().is_some())
    }

    /// The CDO of partition `index`.
    ///
    /// # Errors
    /// If there is no such partition, or its data are no CDO.
    pub fn cdo(&self, index: usize) -> Result<Cdo<'a>> {
        let partition = self.partitions.get(index).ok_or_else(|| {
            Error::refused("partition", index, format!("the PDI has {} of them, from 0", self.partitions.len()))
        })?;
        partition.cdo().map_err(|error| error.within(format!("partition {index}")))
    }

    /// The PDI put together again from what was read, byte for byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.bytes.to_vec();
        let mut put = |offset: u64, part: &[u8]| {
            let range = usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(part.len())?));
            if let Some(place) = range.and_then(|range| out.get_mut(range)) {
                place.copy_from_slice(part);
            }
        };
        put(MAGIC.len() as u64, &self.table.to_bytes());
        for (index, header) in self.images.iter().enumerate() {
            put(place(self.table.image_header_word_offset(), index, 64), &header.to_bytes());
        }
        for (index, partition) in self.partitions.iter().enumerate() {
            put(place(self.table.partition_header_word_offset(), index, 128), &partition.header.to_bytes());
            put(place(partition.header.data_word_offset(), 0, 0), partition.data);
        }
        out
    }
}

impl<'a> Partition<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Partition<'a>> {
        let at = reader.offset();
        let header = PartitionHeader::read(reader)?;
        let start = u64::from(header.data_word_offset()).saturating_mul(4);
        let mut ahead = *reader;
        ahead.seek(start, "data offset")?;
        let size_bytes = match header.transform() {
            Some(_) => ahead.remaining() as u64,
            None => u64::from(header.total_words()).saturating_mul(4),
        };
        let data = reader.slice(at.saturating_add(8), start, size_bytes, "partition data")?;
        Ok(Partition { header, data })
    }

    /// The data as a CDO, transformed or not.
    ///
    /// # Errors
    /// As [`Cdo::parse`] and [`Cdo::parse_transformed`].
    pub fn cdo(&self) -> Result<Cdo<'a>> {
        match self.header.transform() {
            Some(transform) => Cdo::parse_transformed(self.data, transform.command_zone_bytes),
            None => Cdo::parse(self.data),
        }
    }
}

/// Headers that the file could not hold are refused before memory is asked for.
fn check_count(reader: &Reader<'_>, at: u64, what: &'static str, count: u32, size_bytes: u64) -> Result<()> {
    if u64::from(count).saturating_mul(size_bytes) <= reader.remaining() as u64 {
        return Ok(());
    }
    let bound = format!("{} bytes have no room for as many headers of {size_bytes} bytes", reader.remaining());
    Err(reader.malformed(at, what, count, bound))
}

/// Byte of a header in a row of headers.
fn place(word_offset: u32, index: usize, size_bytes: u64) -> u64 {
    u64::from(word_offset).saturating_mul(4).saturating_add((index as u64).saturating_mul(size_bytes))
}

#[cfg(test)]
mod tests;
