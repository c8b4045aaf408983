//! Makes a PDI of one image and one partition, as bootgen does for an NPU.

use super::{ImageHeader, ImageHeaderTable, MAGIC, PartitionHeader};
use crate::{
    bytes::Writer,
    cdo::{Cdo, merge},
    error::{Error, Result},
};

/// Word offsets of the three parts in front of the data.
const IMAGE_HEADER: u32 = 0x24;
const PARTITION_HEADER: u32 = 0x34;
const DATA: u32 = 0x54;

/// What a BIF says. The default is the BIF of mlir-aie's `aiecc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `id_code`: the device's JTAG id.
    pub id_code: u32,
    /// `extended_id_code`.
    pub extended_id_code: u32,
    /// The image's `name`: 16 bytes at most.
    pub image_name: String,
    /// The image's `id`.
    pub image_id: u32,
    /// Which bootgen the layout is of.
    pub release: Release,
}

/// Releases of bootgen, which write one word differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// Word 14 of the image header is all ones: no register measures the image.
    #[default]
    Current,
    /// To 2022.2: the word is reserved and 0.
    Older,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            id_code: 0x14ca_8093,
            extended_id_code: 1,
            image_name: "aie_image".to_owned(),
            image_id: 0x1c00_0000,
            release: Release::Current,
        }
    }
}

/// A PDI around CDOs, which become one ([`merge`]). With [`Release::Older`] it is byte for byte that of bootgen
/// 2022.2 from a BIF with one image and `type=cdo`.
///
/// # Errors
/// If a CDO cannot be read or merged, the name is too long, or the data exceed 32-bit words.
pub fn build(cdos: &[&[u8]], options: &Options) -> Result<Vec<u8>> {
    let name = image_name(&options.image_name)?;
    let parsed = cdos
        .iter()
        .enumerate()
        .map(|(index, bytes)| Cdo::parse(bytes).map_err(|error| error.within(format!("CDO {index}"))));
    let cdos = parsed.collect::<Result<Vec<Cdo<'_>>>>()?;
    let mut data = Writer { bytes: merge(&cdos)? };
    let n_used = word_count(&data)?;
    data.pad_to(16);
    let n_padded = word_count(&data)?;
    let mut writer = Writer::new();
    writer.put(&MAGIC);
    writer.put(&table(options).to_bytes());
    writer.put(&image_header(options, name).to_bytes());
    writer.put(&partition_header(n_used, n_padded).to_bytes());
    writer.put(&data.bytes);
    Ok(writer.bytes)
}

fn word_count(data: &Writer) -> Result<u32> {
    u32::try_from(data.len() / 4)
        .map_err(|_| Error::refused("partition", format!("{} bytes long", data.len()), "lengths have 32 bits of words"))
}

/// The name padded with zeros.
fn image_name(name: &str) -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    match bytes.get_mut(..name.len()) {
        Some(place) => place.copy_from_slice(name.as_bytes()),
        None => return Err(Error::refused("image name", format!("{name:?}"), "it has room for 16 bytes")),
    }
    Ok(bytes)
}

fn table(options: &Options) -> ImageHeaderTable {
    let mut words = [0; 32];
    words[0] = 0x0004_0000;
    words[1] = 1;
    words[2] = IMAGE_HEADER;
    words[3] = 1;
    words[4] = PARTITION_HEADER;
    words[6] = options.id_code;
    // A partial PDI: it configures a device that runs.
    words[10] = u32::from_be_bytes(*b"PPDI");
    words[11] = 0x0020_1020;
    words[12] = DATA - IMAGE_HEADER;
    words[17] = options.extended_id_code;
    ImageHeaderTable::new(words)
}

fn image_header(options: &Options, name: [u8; 16]) -> ImageHeader {
    let mut words = [0; 16];
    words[0] = PARTITION_HEADER;
    words[1] = 1;
    for (word, bytes) in words.iter_mut().skip(4).zip(name.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words[8] = options.image_id;
    words[14] = match options.release {
        Release::Current => u32::MAX,
        Release::Older => 0,
    };
    ImageHeader::new(words)
}

fn partition_header(n_used: u32, n_padded: u32) -> PartitionHeader {
    let mut words = [0; 32];
    words[0] = n_padded;
    words[1] = n_used;
    words[2] = n_padded;
    // No address to load to: the commands say where everything goes.
    words[6] = u32::MAX;
    words[7] = u32::MAX;
    words[8] = DATA;
    // Kind 2 (CDO), little-endian, run by the platform's loader.
    words[9] = 0x0200_0006;
    words[10] = 1;
    PartitionHeader::new(words)
}

#[cfg(test)]
mod tests;
