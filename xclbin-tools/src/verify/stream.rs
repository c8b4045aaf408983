//! Rules for instruction streams: header, operations, and what a stream names in its package.

use std::{collections::HashSet, fmt};

use super::{
    Findings,
    address::{self, Access, Columns},
    kernels::Slots,
    patch,
    rule::rules,
    transfers::{At, Transfers},
};
use crate::{
    array::{Address, Device, TileKind},
    error::Error,
    txn::{Op, Placed, Stream, Sync},
};

rules! {
    SIZE: Error "stream-size" {
        asks: "the size in a stream's header is that of the file",
        effect: "the firmware reads operations behind the stream's end, or stops before it: a hang, or half a launch",
        mend: "write the stream anew; check that the file was not cut or padded",
        source: "Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h",
    }
    COUNT: Error "stream-count" {
        asks: "the number of operations in a stream's header is that of the stream",
        effect: "the firmware stops before the last operation or reads on behind it: a hang, or half a launch",
        mend: "write the stream anew with the count of its operations",
        source: "Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h",
    }
    MALFORMED: Error "stream-malformed" {
        asks: "every operation of a stream is of a known kind and as long as its kind",
        effect: "the firmware answers with an error, or takes data for operations and hangs",
        mend: "compile the stream anew for the firmware's version; check that the file is an instruction stream",
        source: "Xilinx/aie-rt:driver/src/common/xaie_txn.h",
    }
    GENERATION: Error "stream-generation" {
        asks: "a stream is for the device's generation of arrays: 3 for npu1, 4 for npu4",
        effect: "the firmware refuses it, or registers of another array are written",
        mend: "compile for the device: npu1, or npu2 for Strix and its relatives",
        source: "Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h",
    }
    ROWS: Error "stream-rows" {
        asks: "a stream is for an array of six rows, one of memory tiles",
        effect: "the firmware refuses it, or tiles of other rows are meant than are reached",
        mend: "compile for an NPU: npu1 or npu2",
        source: "Xilinx/mlir-aie:lib/Dialect/AIE/IR/AIETargetModel.cpp",
    }
    COLUMNS: Error "stream-columns" {
        asks: "a stream is for no more columns than the partition has, and for one at least",
        effect: "the firmware refuses it, or tiles outside the partition are written",
        mend: "compile stream and package for the same number of columns",
        source: "Xilinx/mlir-aie:lib/Targets/AIETargetNPU.cpp",
    }
    REACH: Warning "stream-reach" {
        asks: "a stream reaches no more columns than its header says",
        effect: "readers that size a partition by the header give it too few columns",
        mend: "write the number of columns that the stream reaches into its header",
        source: "Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h",
    }
    RESERVED: Warning "stream-operation" {
        asks: "a stream has operations that current firmware knows",
        effect: "firmware that does not know the operation ends the launch with an error",
        mend: "compile the stream anew; update the firmware if the operation is newer",
        source: "Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h",
    }
    PACKAGE: Warning "stream-package" {
        asks: "a stream is for the device whose every start the package's start columns are",
        effect: "on either device one of the two is wrong: the firmware refuses it, or other registers are written",
        mend: "compile package and stream for one device; say --device if the start columns are meant so",
        source: "Xilinx/mlir-aie:tools/aiecc/SidecarFiles.h",
    }
    LOAD_PDI: Error "stream-load-pdi" {
        asks: "a stream loads a PDI whose id a group of the package has",
        effect: "the firmware knows no such image: the launch ends with an error, or the array stays as it was",
        mend: "add the PDI to the package with this pdi_id, or correct the id",
        source: "Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h",
    }
    SYNC: Error "stream-sync" {
        asks: "a sync waits for tiles of the partition, and for a DMA channel that they have",
        effect: "the token never comes: the launch is killed after a timeout",
        mend: "wait for the channel that the stream starts, in the columns that it uses",
        source: "Xilinx/mlir-aie:include/aie/Runtime/TxnEncoding.h",
    }
}

/// What is known about the kernel that a stream belongs to.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// Where the stream is.
    pub(super) place: &'a dyn fmt::Display,
    /// The device, where it is known.
    pub(super) device: Option<&'static Device>,
    /// The columns of partition or device.
    pub(super) columns: Columns,
    /// The arguments of its kernel, or of all; none where no package is at hand.
    pub(super) slots: Option<&'a Slots<'a>>,
    /// The ids of the package's PDIs.
    pub(super) pdis: Option<&'a HashSet<u64>>,
    /// The device whose every start the package lists.
    pub(super) built_for: Option<&'static Device>,
    /// Whether the stream stands in an ELF, where the host patches by relocations.
    pub(super) is_in_elf: bool,
}

impl<'a> Context<'a> {
    /// Nothing known but the columns.
    pub(super) fn new(place: &'a dyn fmt::Display, columns: Columns) -> Context<'a> {
        Context { place, device: None, columns, slots: None, pdis: None, built_for: None, is_in_elf: false }
    }
}

/// Checks a stream.
pub(super) fn check_bytes(bytes: &[u8], context: Context<'_>, found: &mut Findings) {
    match Stream::parse(bytes) {
        Ok(stream) => check(&stream, context, found),
        Err(error) => found.add_error(rule_of(&error, bytes.len() as u64), context.place, &error),
    }
}

/// The rule that an error of the parser stands for: bytes behind the last operation, or none left for one, mean
/// that the count is wrong.
fn rule_of(error: &Error, size_bytes: u64) -> &'static super::Rule {
    match error {
        Error::Malformed { what: "size", offset: 12, .. } => &SIZE,
        Error::Malformed { what: "rest", .. } => &COUNT,
        Error::Malformed { what: "operation", offset, .. } if *offset == size_bytes => &COUNT,
        _ => &MALFORMED,
    }
}

fn check(stream: &Stream<'_>, context: Context<'_>, found: &mut Findings) {
    check_header(stream, context, found);
    let mut walk = Walk::default();
    for placed in stream.operations() {
        let place = format_args!("{}, operation {}", context.place, placed.index);
        check_operation(&placed, context, &place, &mut walk, found);
    }
    walk.transfers.finish(context.place, found);
    let n_columns = stream.header().columns;
    if walk.n_columns > n_columns {
        let place = format_args!("{}, header", context.place);
        found.add(&REACH, place, format_args!("{n_columns} columns"), format_args!("it reaches {}", walk.n_columns));
    }
}

/// What the operations so far amount to.
#[derive(Default)]
struct Walk {
    transfers: Transfers,
    /// Columns up to the last one that was reached.
    n_columns: u8,
}

fn check_header(stream: &Stream<'_>, context: Context<'_>, found: &mut Findings) {
    let header = stream.header();
    let place = format_args!("{}, header", context.place);
    let by_generation = Device::by_generation(header.generation);
    let is_other = context.device.is_some_and(|device| Some(device) != by_generation);
    if by_generation.is_none() || is_other {
        let bound = context
            .device
            .map_or("3 (npu1) or 4 (npu4)".to_owned(), |device| format!("{} has {}", device.name, device.generation));
        found.add(&GENERATION, place, format_args!("generation {}", header.generation), bound);
    } else if let Some(built_for) = context.built_for.filter(|built_for| Some(*built_for) != by_generation) {
        let bound = format_args!("the start columns in AIE_PARTITION are all of {}", built_for.name);
        found.add(&PACKAGE, place, format_args!("generation {}", header.generation), bound);
    }
    if (header.rows, header.memory_tile_rows) != (Device::N_ROWS, 1) {
        let value = format_args!("{} rows, {} of memory tiles", header.rows, header.memory_tile_rows);
        found.add(&ROWS, place, value, "6 rows, 1 of memory tiles");
    }
    if header.columns == 0 || u16::from(header.columns) > context.columns.count() {
        found.add(&COLUMNS, place, format_args!("{} columns", header.columns), context.columns);
    }
}

/// Checks an operation.
fn check_operation(
    placed: &Placed<'_>,
    context: Context<'_>,
    place: &dyn fmt::Display,
    walk: &mut Walk,
    found: &mut Findings,
) {
    let mut n_columns = walk.n_columns;
    let mut access = |address: Address, size_bytes: u64, found: &mut Findings| {
        let access = Access { address: u32::from(address).into(), size_bytes };
        let reached = address::check(access, context.columns, place, found)?;
        n_columns = n_columns.max(reached.0.column.saturating_add(1));
        Some(reached)
    };
    let at = At { index: placed.index, place };
    let transfers = &mut walk.transfers;
    match placed.operation.op {
        Op::Write { address, value } => {
            if let Some(reached) = access(address, 4, found) {
                transfers.write(reached, Some(value), at, found);
            }
        }
        Op::MaskWrite { address, .. } | Op::UpdateRegister { address, .. } => {
            if let Some(reached) = access(address, 4, found) {
                transfers.write(reached, None, at, found);
            }
        }
        Op::BlockWrite { address, data } => {
            if let Some(reached) = access(address, (data.len() as u64).saturating_mul(4), found) {
                transfers.block(reached, data, at, found);
            }
        }
        Op::MaskPoll { address, value, mask } | Op::MaskPollBusy { address, value, mask } => {
            access(address, 4, found);
            address::check_poll(mask, value, place, found);
            transfers.poll();
        }
        Op::Sync(sync) => {
            if check_sync(sync, context.columns, place, found) {
                transfers.sync(sync, at, found);
            } else {
                transfers.poll();
            }
        }
        Op::MergeSync { .. } => transfers.merge(),
        Op::Patch { address, argument, offset_bytes } => {
            let reached = access(address, 4, found);
            if let Some(reached) = reached {
                transfers.patch(reached, at);
            }
            patch::check(reached, argument, offset_bytes, context, place, found);
        }
        Op::LoadPdi { id, .. } if context.pdis.is_some_and(|pdis| !pdis.contains(&u64::from(id))) => {
            found.add(&LOAD_PDI, place, format_args!("PDI id {id:#x}"), "no group of AIE_PARTITION has it");
        }
        Op::Custom { code, .. } => found.add(&RESERVED, place, format_args!("code {code}"), "codes 128 to 132"),
        _ => {}
    }
    walk.n_columns = n_columns;
}

/// Says whether the tiles and their channel are there.
fn check_sync(sync: Sync, columns: Columns, place: &dyn fmt::Display, found: &mut Findings) -> bool {
    let end = |first: u8, count: u8| u16::from(first).saturating_add(count.into());
    let is_inside = sync.n_columns > 0
        && sync.n_rows > 0
        && end(sync.column, sync.n_columns) <= columns.count()
        && end(sync.row, sync.n_rows) <= u16::from(Device::N_ROWS);
    let n_channels = Device::tile_kind(sync.row).map_or(0, TileKind::n_channels);
    if !is_inside {
        let Sync { column, row, n_columns, n_rows, .. } = sync;
        let value = format_args!("{n_columns} columns from {column}, {n_rows} rows from {row}");
        found.add(&SYNC, place, value, format_args!("{columns}; there are {} rows", Device::N_ROWS));
        return false;
    }
    if sync.direction > 1 || sync.channel >= n_channels {
        let value = format_args!("direction {}, channel {}", sync.direction, sync.channel);
        found.add(&SYNC, place, value, format_args!("direction 0 or 1, {n_channels} channels from 0"));
        return false;
    }
    true
}
