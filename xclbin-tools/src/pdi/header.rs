//! The headers of a PDI: every word has a name.
//!
//! Source: `Xilinx/bootgen:imageheadertable-versal.h`, `partitionheadertable-versal.h`; the three words of
//! `aie-pdi-transform`: `Xilinx/XRT:src/runtime_src/tools/xclbinutil/aie-pdi-transform/libinclude/load_pdi.h`.

use crate::{bytes::Reader, cdo::Checksum, error::Result};

/// A header of words with a name each, the last of which is the checksum.
macro_rules! header {
    (
        $(#[$about:meta])* $name:ident, $n_words:literal, $part:literal,
        { $($(#[$doc:meta])* $field:ident = $word:literal;)* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            words: [u32; $n_words],
        }

        impl $name {
            /// The words with a name of their own: name and index. The rest is reserved, or part of an array of
            /// words that starts at the last name before it.
            pub const FIELDS: &[(&str, usize)] = &[$((stringify!($field), $word)),*];

            pub(super) fn read(reader: &mut Reader<'_>) -> Result<$name> {
                let mut words = [0; $n_words];
                for word in &mut words {
                    *word = reader.u32($part)?;
                }
                Ok($name { words })
            }

            /// With its checksum made right.
            #[must_use]
            pub fn new(mut words: [u32; $n_words]) -> $name {
                let [before @ .., checksum] = &mut words;
                *checksum = Checksum::of(before);
                $name { words }
            }

            /// All words.
            #[must_use]
            pub fn words(&self) -> &[u32; $n_words] {
                &self.words
            }

            /// As it stands in a file.
            #[must_use]
            pub fn to_bytes(&self) -> Vec<u8> {
                self.words.iter().flat_map(|word| word.to_le_bytes()).collect()
            }

            /// The last word, and what it should be.
            #[must_use]
            pub fn checksum(&self) -> Checksum {
                let [before @ .., stored] = &self.words;
                Checksum { stored: *stored, computed: Checksum::of(before) }
            }

            $($(#[$doc])* #[must_use] pub const fn $field(&self) -> u32 { self.words[$word] })*
        }
    };
}

header! {
    /// The image header table: what the PDI holds.
    ImageHeaderTable, 32, "image header table",
    {
        /// 0x00040000 in every NPU file.
        version = 0;
        /// Image headers.
        image_count = 1;
        /// Place of the first.
        image_header_word_offset = 2;
        /// Partition headers.
        partition_count = 3;
        /// Place of the first.
        partition_header_word_offset = 4;
        /// Where the rest of a boot image lies.
        secondary_boot_device_address = 5;
        /// The device's JTAG id: 0x14ca8093.
        id_code = 6;
        /// Checks of id code and key, boot device, creator.
        attributes = 7;
        /// The BIF's `id`.
        pdi_id = 8;
        /// The BIF's `parent_id`.
        parent_id = 9;
        /// "PPDI" (a partial PDI) or "FPDI" (a full one), its first letter in the highest byte.
        identification = 10;
        /// Words of the three kinds of headers, in bytes from the lowest: 0x201020.
        header_sizes = 11;
        /// Words of image and partition headers.
        total_header_words = 12;
        /// Initialisation vector of encrypted headers: three words.
        header_iv = 13;
        /// Where the key of encrypted headers is.
        header_key_source = 16;
        /// Second part of the device's id: 1.
        extended_id_code = 17;
        /// Place of the headers' certificate.
        certificate_word_offset = 18;
        /// Initialisation vector of an encrypted key: three words.
        key_iv = 19;
        /// Words of optional data behind the table.
        optional_data_words = 22;
        /// Eight words.
        reserved = 23;
        /// Inverted sum of the words before.
        stored_checksum = 31;
    }
}

header! {
    /// The header of an image: a name and its partitions.
    ImageHeader, 16, "image header",
    {
        /// Place of its first partition header.
        partition_header_word_offset = 0;
        /// Partitions.
        partition_count = 1;
        /// Revocation id of encrypted headers.
        revocation_id = 2;
        /// Owner, power domains, when to load.
        attributes = 3;
        /// Name: 16 bytes, padded with zeros.
        name_words = 4;
        /// The BIF's `id`: 0x1c000000.
        image_id = 8;
        /// Set by the design.
        unique_id = 9;
        /// Set by the design.
        parent_unique_id = 10;
        /// Set by the design.
        function_id = 11;
        /// Where a copy is kept: low word.
        copy_address_low = 12;
        /// High word.
        copy_address_high = 13;
        /// Low half: number of the register that measures the image; high half: its index. All ones is none;
        /// bootgen before 2023 had the word reserved and wrote 0.
        measurement = 14;
        /// Inverted sum of the words before.
        stored_checksum = 15;
    }
}

header! {
    /// The header of a partition: how long, where, of what kind.
    PartitionHeader, 32, "partition header",
    {
        /// Words of the data as encrypted; with padding.
        encrypted_words = 0;
        /// Words of the data without padding.
        unencrypted_words = 1;
        /// Words of the data with padding and certificate.
        total_words = 2;
        /// Place of the next partition header; 0 in the last.
        next_header_word_offset = 3;
        /// Where to start: low word.
        execution_address_low = 4;
        /// High word.
        execution_address_high = 5;
        /// Where to load: low word. All ones for a CDO.
        load_address_low = 6;
        /// High word.
        load_address_high = 7;
        /// Place of the data.
        data_word_offset = 8;
        /// Kind in bits 24-26 (2 is CDO), checksum in bits 12-13, processor state.
        attributes = 9;
        /// Pieces of the data.
        section_count = 10;
        /// Place of a checksum of the data.
        checksum_word_offset = 11;
        /// Id of the partition.
        partition_id = 12;
        /// Place of its certificate.
        certificate_word_offset = 13;
        /// Initialisation vector of encrypted data: three words.
        data_iv = 14;
        /// Where the key of encrypted data is.
        key_source = 17;
        /// Initialisation vector of an encrypted key: three words.
        key_iv = 18;
        /// Revocation id of encrypted data.
        revocation_id = 21;
        /// Six words.
        reserved = 22;
        /// 1 in a transformed partition.
        transform_kind = 28;
        /// Bytes of the command zone of a transformed partition.
        transform_command_zone_bytes = 29;
        /// Check of the two words before.
        transform_check = 30;
        /// Inverted sum of the words before.
        stored_checksum = 31;
    }
}

impl ImageHeader {
    /// The name up to its first zero.
    #[must_use]
    pub fn name(&self) -> String {
        let words = self.words.iter().skip(4).take(4);
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// What `aie-pdi-transform` noted in a partition header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Bytes of the command zone behind the CDO header.
    pub command_zone_bytes: u32,
}

impl PartitionHeader {
    /// Set if `aie-pdi-transform` rewrote the partition: kind 1 and its check. All lengths and the checksum of the
    /// header are then those of the original.
    #[must_use]
    pub fn transform(&self) -> Option<Transform> {
        let (kind, command_zone_bytes) = (self.transform_kind(), self.transform_command_zone_bytes());
        let check = 0x8866 | (kind & 0xff) << 8 | kind >> 8 | command_zone_bytes.rotate_left(16);
        (kind == 1 && self.transform_check() == check).then_some(Transform { command_zone_bytes })
    }
}
