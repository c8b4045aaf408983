//! The devices: columns, rows, memories and registers of their arrays; and what a program of register writes
//! makes of one.
//!
//! An array has columns of six tiles: a shim tile (row 0, to host memory), a memory tile (row 1) and four core
//! tiles (rows 2 to 5). PDIs and instruction streams write the tiles' registers by [`Address`], whose column counts
//! from the first one of the partition; [`Register`] says what stands there, [`Program`] what all writes amount to.
//!
//! Facts are from AMD's register reference AM025 <https://docs.amd.com/r/en-US/am025-versal-aie-ml-register-reference>,
//! as in <https://github.com/Xilinx/mlir-aie> `lib/Dialect/AIE/{Util/aie_registers_aie2.json,IR/AIETargetModel.cpp}`,
//! and from <https://github.com/Xilinx/aie-rt> `driver/src/global/{xaiemlgbl_params.h,xaie2pgbl_params.h}`.
// Declared in the order in which one builds on another; blank lines keep rustfmt from sorting them.

mod device;

mod tile;

mod address;

mod register;

mod program;

pub use address::Address;
pub use device::Device;
pub use program::{
    Buffer, BufferDescriptor, Connection, Dimension, End, EndKind, Event, Flow, Hop, LockUse, Packets, Place, Program,
    Spans, Start, Tile, User,
};
pub use register::{Register, contiguous_bytes};
pub use tile::{Bundle, Direction, Port, TileKind};
