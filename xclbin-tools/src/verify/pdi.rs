//! Rules for PDIs: headers, checksums, and that there is one CDO to load.

use std::fmt;

use super::{Findings, address::Columns, cdo, rule::rules};
use crate::{
    cdo::{Cdo, Checksum, Command},
    pdi::{PartitionHeader, Pdi},
};

rules! {
    MALFORMED: Error "pdi-malformed" {
        asks: "a PDI has its magic, and its headers and partitions lie inside of it",
        effect: "the firmware refuses the image: creating a context fails",
        mend: "pack the PDI anew from its CDO; check that the section was not cut",
        source: "Xilinx/bootgen:imageheadertable-versal.h",
    }
    TABLE_CHECKSUM: Error "pdi-table-checksum" {
        asks: "the checksum of the image header table is the inverted sum of its words",
        effect: "a loader that checks it refuses the image: creating a context fails",
        mend: "pack the PDI anew: its header was changed and the checksum was not",
        source: "Xilinx/bootgen:imageheadertable-versal.h",
    }
    IMAGE_CHECKSUM: Error "pdi-image-checksum" {
        asks: "the checksum of an image header is the inverted sum of its words",
        effect: "a loader that checks it refuses the image: creating a context fails",
        mend: "pack the PDI anew: its header was changed and the checksum was not",
        source: "Xilinx/bootgen:imageheadertable-versal.h",
    }
    PARTITION_CHECKSUM: Error "pdi-partition-checksum" {
        asks: "the checksum of a partition header is the inverted sum of its words",
        effect: "a loader that checks it refuses the image: creating a context fails",
        mend: "pack the PDI anew: its header was changed and the checksum was not",
        source: "Xilinx/bootgen:partitionheadertable-versal.h",
    }
    TRANSFORMED: Warning "pdi-transformed" {
        asks: "a PDI is as the packer made it: aie-pdi-transform leaves lengths and checksum of the original",
        effect: "NPU firmware loads it; readers that trust lengths or checksum of the partition header do not",
        mend: "nothing, if it is meant for an NPU alone",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/aie-pdi-transform/lib/pdi_transform.c",
    }
    COUNT: Error "pdi-partitions" {
        asks: "a PDI of an NPU has one image of one partition",
        effect: "the firmware loads the first and leaves the rest: the array is configured in part",
        mend: "merge the CDOs into one partition, as bootgen does with several files of one image",
        source: "Xilinx/XRT:src/runtime_src/tools/xclbinutil/aie-pdi-transform/lib/load_pdi.c",
    }
    LENGTH: Error "pdi-length" {
        asks: "the three lengths of a partition agree with each other and with its CDO",
        effect: "the loader reads less than the whole CDO: the array is configured in part",
        mend: "pack the PDI anew from its CDO",
        source: "Xilinx/bootgen:partitionheadertable-versal.h",
    }
    EMPTY: Warning "pdi-empty" {
        asks: "the CDO of a PDI has commands other than NOP",
        effect: "the array stays as the kernel before left it",
        mend: "check that the compiler's CDO files were given to the packer",
        source: "Xilinx/bootgen:cdo-binary.c",
    }
}

/// Checks a PDI. `is_later` says that another one is loaded before it.
pub(super) fn check(bytes: &[u8], place: &dyn fmt::Display, columns: Columns, is_later: bool, found: &mut Findings) {
    let pdi = match Pdi::parse(bytes) {
        Ok(pdi) => pdi,
        Err(error) => return found.add_error(&MALFORMED, place, &error),
    };
    check_checksums(&pdi, place, found);
    let counts = (pdi.images.len(), pdi.partitions.len());
    if counts != (1, 1) {
        let value = format_args!("{} images, {} partitions", counts.0, counts.1);
        found.add(&COUNT, place, value, "one of each");
    }
    // Programs of a later partition come on top of those before.
    for (index, partition) in pdi.partitions.iter().enumerate() {
        let context = cdo::Context { place, columns, is_later: is_later || index > 0 };
        let parsed = partition.cdo();
        if let Ok(parsed) = &parsed {
            if partition.header.transform().is_none() {
                let place = format_args!("{place}, partition header {index}");
                check_lengths(&partition.header, parsed, &place, found);
            }
            if parsed.commands().all(|entry| matches!(entry.command, Command::Nop { .. })) {
                found.add(&EMPTY, place, "no command", "at least one");
            }
        }
        cdo::check_parsed(parsed, context, found);
    }
}

fn check_checksums(pdi: &Pdi<'_>, place: &dyn fmt::Display, found: &mut Findings) {
    let table = pdi.table.checksum();
    if !table.is_right() {
        add_checksum(&TABLE_CHECKSUM, table, &format_args!("{place}, image header table"), found);
    }
    for (index, image) in pdi.images.iter().enumerate().filter(|(_, image)| !image.checksum().is_right()) {
        add_checksum(&IMAGE_CHECKSUM, image.checksum(), &format_args!("{place}, image header {index}"), found);
    }
    for (index, partition) in pdi.partitions.iter().enumerate() {
        let checksum = partition.header.checksum();
        let place = format_args!("{place}, partition header {index}");
        match partition.header.transform() {
            Some(_) => found.add(&TRANSFORMED, place, "mark of aie-pdi-transform", "none"),
            None if !checksum.is_right() => add_checksum(&PARTITION_CHECKSUM, checksum, &place, found),
            None => {}
        }
    }
}

fn add_checksum(rule: &'static super::Rule, checksum: Checksum, place: &dyn fmt::Display, found: &mut Findings) {
    let bound = format_args!("the words give {:#010x}", checksum.computed);
    found.add(rule, place, format_args!("{:#010x}", checksum.stored), bound);
}

/// Lengths of a partition that was not transformed: the packer pads a CDO to 16 bytes, and encrypts none.
fn check_lengths(header: &PartitionHeader, cdo: &Cdo<'_>, place: &dyn fmt::Display, found: &mut Findings) {
    let [encrypted, unencrypted, total] = [header.encrypted_words(), header.unencrypted_words(), header.total_words()];
    let cdo_words = u64::from(cdo.length_words).saturating_add(crate::cdo::HEADER_BYTES / 4);
    let is_padded = total.checked_sub(unencrypted).is_some_and(|padding| padding < 4);
    if encrypted != total || !is_padded || u64::from(unencrypted) != cdo_words {
        let value = format_args!("{encrypted} words encrypted, {unencrypted} without padding, {total} in all");
        found.add(&LENGTH, place, value, format_args!("the CDO has {cdo_words} words, padded to a multiple of 4"));
    }
}
