//! What stands at an offset of a tile. The tables are ranges: a tile's modules repeat a few layouts. Where a kind of
//! tile lacks a few counters or event registers that others have, they count as there; so does what one generation
//! has and another has not (padding of npu4's memory tiles, the place of tile control).

use std::fmt;

use super::{Direction, Port, TileKind};

/// What a write to a tile reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Data memory, at an offset in bytes from its start.
    Data(u32),
    /// Program memory, at an offset in bytes from its start.
    Program(u32),
    /// A lock's value.
    Lock(u8),
    /// A word of a buffer descriptor.
    BufferDescriptor {
        /// Which one.
        index: u8,
        /// Counted from 0.
        word: u8,
    },
    /// A DMA channel's control.
    Control(Direction, u8),
    /// A DMA channel's queue of starts: a write appends one.
    Queue(Direction, u8),
    /// Which stream leaves by a port of the switch.
    Master(Port),
    /// Whether a port of the switch takes a stream.
    Slave(Port),
    /// Where packets of some ids go that enter by a port; the number is the slot's.
    Slot(Port, u8),
    /// What feeds the shim tile's south slave ports: DMA, or another way in.
    ShimMux,
    /// What the shim tile's south master ports feed.
    ShimDemux,
    /// Enables and resets a core.
    CoreControl,
    /// Another one, of a group of such.
    Other(&'static str),
}

impl Register {
    /// What stands at an offset of a tile; none where nothing does, and between words.
    #[must_use]
    pub fn at(kind: TileKind, offset: u32) -> Option<Register> {
        let (range, within) = find(kind, offset)?;
        // Tables hold few entries, so that numbers fit.
        let number = u8::try_from(within.checked_div(range.stride)?).unwrap_or(u8::MAX);
        let slot = u8::try_from(within.checked_div(4)? & 3).unwrap_or(u8::MAX);
        Some(match range.content {
            Content::Data => Register::Data(within),
            Content::Program => Register::Program(within),
            Content::Lock => Register::Lock(number),
            Content::BufferDescriptor => {
                let word = u8::try_from(within.checked_div(4)? & 7).unwrap_or(u8::MAX);
                let index = u8::try_from(within >> 5).unwrap_or(u8::MAX);
                (word < kind.buffer_descriptor_words()).then_some(Register::BufferDescriptor { index, word })?
            }
            Content::Control(direction) => Register::Control(direction, number),
            Content::Queue(direction) => Register::Queue(direction, number),
            Content::Master => Register::Master(kind.master(within >> 2)?),
            Content::Slave => Register::Slave(kind.slave(within >> 2)?),
            Content::Slot => Register::Slot(kind.slave(within >> 4)?, slot),
            Content::ShimMux => Register::ShimMux,
            Content::ShimDemux => Register::ShimDemux,
            Content::CoreControl => Register::CoreControl,
            Content::Other(name) => Register::Other(name),
        })
    }

    /// Whether it is data or program memory, which a block of any size may fill.
    #[must_use]
    pub fn is_memory(self) -> bool {
        matches!(self, Register::Data(_) | Register::Program(_))
    }
}

/// Bytes from an offset on that hold memory or words beside each other, of one range; 0 where nothing is.
#[must_use]
pub fn contiguous_bytes(kind: TileKind, offset: u32) -> u32 {
    let Some((range, within)) = find(kind, offset) else { return 0 };
    if range.stride != 4 {
        return 4;
    }
    if let Content::BufferDescriptor = range.content {
        let size_bytes = u32::from(kind.buffer_descriptor_words()).saturating_mul(4);
        return size_bytes.saturating_sub(within & 0x1f);
    }
    range.last.saturating_sub(range.first).saturating_sub(within).saturating_add(4)
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Register::Data(offset) => write!(f, "data memory {offset:#x}"),
            Register::Program(offset) => write!(f, "program memory {offset:#x}"),
            Register::Lock(index) => write!(f, "lock {index}"),
            Register::BufferDescriptor { index, word } => write!(f, "buffer descriptor {index}, word {word}"),
            Register::Control(direction, channel) => write!(f, "{direction} {channel} control"),
            Register::Queue(direction, channel) => write!(f, "{direction} {channel} queue"),
            Register::Master(port) => write!(f, "stream master {port}"),
            Register::Slave(port) => write!(f, "stream slave {port}"),
            Register::Slot(port, slot) => write!(f, "stream slave {port}, packet slot {slot}"),
            Register::ShimMux => f.write_str("shim multiplexer"),
            Register::ShimDemux => f.write_str("shim demultiplexer"),
            Register::CoreControl => f.write_str("core control"),
            Register::Other(name) => f.write_str(name),
        }
    }
}

/// The range that holds an offset, and the offset from its start.
fn find(kind: TileKind, offset: u32) -> Option<(&'static Range, u32)> {
    for (base, ranges) in modules(kind) {
        for range in *ranges {
            let within = offset.checked_sub(*base).and_then(|offset| offset.checked_sub(range.first));
            let Some(within) = within else { continue };
            let is_inside = within <= range.last.saturating_sub(range.first);
            if is_inside && within.checked_rem(range.stride) == Some(0) {
                return Some((range, within));
            }
        }
    }
    None
}

/// Words from `first` to `last`, both included, each `stride` bytes behind the one before.
struct Range {
    first: u32,
    last: u32,
    stride: u32,
    content: Content,
}

enum Content {
    Data,
    Program,
    Lock,
    BufferDescriptor,
    Control(Direction),
    Queue(Direction),
    Master,
    Slave,
    Slot,
    ShimMux,
    ShimDemux,
    CoreControl,
    Other(&'static str),
}

use Content::{
    BufferDescriptor, Control, CoreControl, Data, Lock, Master, Other, Program, Queue, ShimDemux, ShimMux, Slave, Slot,
};
use Direction::{Mm2s, S2mm};

const fn range(first: u32, last: u32, content: Content) -> Range {
    Range { first, last, stride: 4, content }
}

const fn every(first: u32, last: u32, stride: u32, content: Content) -> Range {
    Range { first, last, stride, content }
}

type Module = (u32, &'static [Range]);

/// The modules of a tile, each from its base on.
fn modules(kind: TileKind) -> &'static [Module] {
    match kind {
        TileKind::Core => &[
            (0, CORE_MEMORIES),
            (0x1_d000, CORE_DMA),
            (0x1_f000, LOCKS_16),
            (0x3_f000, CORE_SWITCH),
            (0x3_f000, SWITCH),
            (0x3_2000, CORE),
            (0x3_4000, EVENTS),
            (0x1_4000, EVENTS),
            (0x3_1500, COUNTERS),
            (0x1_1000, COUNTERS),
            (0, CORE_OTHER),
        ],
        TileKind::Memory => &[
            (0, MEMORY_MEMORIES),
            (0xa_0000, MEMORY_DMA),
            (0xc_0000, LOCKS_64),
            (0xb_0000, MEMORY_SWITCH),
            (0xb_0000, SWITCH),
            (0x9_4000, EVENTS),
            (0x9_4000, EVENTS_B),
            (0x9_1000, COUNTERS),
            (0, MEMORY_OTHER),
        ],
        TileKind::Shim => &[
            (0x1_d000, SHIM_DMA),
            (0x1_4000, SHIM_LOCKS),
            (0x3_f000, SHIM_SWITCH),
            (0x3_f000, SWITCH),
            (0x3_4000, EVENTS),
            (0x3_4000, EVENTS_B),
            (0x3_1000, COUNTERS),
            (0, SHIM_OTHER),
        ],
    }
}

const CORE_MEMORIES: &[Range] = &[range(0, 0xfffc, Data), range(0x2_0000, 0x2_3ffc, Program)];

const CORE_DMA: &[Range] = &[
    range(0, 0x1fc, BufferDescriptor),
    every(0xe00, 0xe08, 8, Control(S2mm)),
    every(0xe04, 0xe0c, 8, Queue(S2mm)),
    every(0xe10, 0xe18, 8, Control(Mm2s)),
    every(0xe14, 0xe1c, 8, Queue(Mm2s)),
    range(0xf00, 0xf04, Other("S2MM status")),
    range(0xf10, 0xf14, Other("MM2S status")),
    range(0xf18, 0xf24, Other("S2MM counts")),
];

const LOCKS_16: &[Range] = &[
    every(0, 0xf0, 16, Lock),
    range(0x100, 0x11c, Other("lock events")),
    range(0x120, 0x120, Other("lock overflow")),
    range(0x128, 0x128, Other("lock underflow")),
];

const CORE_SWITCH: &[Range] = &[range(0, 0x58, Master), range(0x100, 0x160, Slave), range(0x200, 0x38c, Slot)];

/// What every stream switch has beside its ports.
const SWITCH: &[Range] = &[
    range(0x800, 0x808, Other("stream merge 0")),
    range(0x810, 0x818, Other("stream merge 1")),
    range(0xf00, 0xf04, Other("stream port events")),
    range(0xf10, 0xf10, Other("stream parity status")),
    range(0xf20, 0xf20, Other("stream parity injection")),
    range(0xf30, 0xf30, Other("control packet status")),
    range(0xf34, 0xf38, Other("stream clock gating")),
];

const CORE: &[Range] = &[
    range(0, 0, CoreControl),
    range(4, 4, Other("core status")),
    range(8, 0xc, Other("core events")),
    range(0x10, 0x1c, Other("core debugging")),
    range(0x20, 0x2c, Other("program counter events")),
    range(0x30, 0x34, Other("core error halt")),
    range(0x38, 0x38, Other("core processor bus")),
    range(0x100, 0x100, Other("program memory ECC")),
    range(0x110, 0x110, Other("program memory ECC")),
    range(0x120, 0x120, Other("program memory ECC")),
];

/// Timer, events, their broadcast, trace.
const EVENTS: &[Range] = &[
    range(0, 0, Other("timer control")),
    range(8, 8, Other("event generation")),
    range(0x10, 0x4c, Other("event broadcast")),
    range(0x50, 0x58, Other("event broadcast block")),
    range(0x60, 0x68, Other("event broadcast block")),
    range(0x70, 0x78, Other("event broadcast block")),
    range(0x80, 0x88, Other("event broadcast block")),
    range(0xd0, 0xd8, Other("trace control")),
    range(0xe0, 0xe4, Other("trace events")),
    range(0xf0, 0xfc, Other("timer")),
    range(0x100, 0x10c, Other("watch points")),
    range(0x200, 0x21c, Other("event status")),
    range(0x400, 0x408, Other("combined events")),
    range(0x500, 0x520, Other("event groups")),
];

/// The second broadcast network of memory and shim tiles.
const EVENTS_B: &[Range] = &[
    range(0x90, 0x98, Other("event broadcast block")),
    range(0xa0, 0xa8, Other("event broadcast block")),
    range(0xb0, 0xb8, Other("event broadcast block")),
    range(0xc0, 0xc8, Other("event broadcast block")),
];

const COUNTERS: &[Range] = &[
    range(0, 8, Other("performance control")),
    range(0x20, 0x2c, Other("performance counters")),
    range(0x80, 0x8c, Other("performance counter events")),
];

const CORE_OTHER: &[Range] = &[
    range(0x1_2000, 0x1_2000, Other("data memory ECC")),
    range(0x1_2110, 0x1_2110, Other("data memory ECC")),
    range(0x1_2120, 0x1_2124, Other("data memory ECC")),
    range(0x1_6000, 0x1_6000, Other("spare")),
    range(0x1_6010, 0x1_6010, Other("memory control")),
    range(0x2_4000, 0x2_4000, Other("program memory ECC")),
    range(0x3_0000, 0x3_14bc, Other("core registers")),
    range(0x3_6030, 0x3_6030, Other("tile control")),
    range(0x3_6040, 0x3_6040, Other("tile control")),
    range(0x3_6050, 0x3_6050, Other("spare")),
    range(0x3_6060, 0x3_6060, Other("accumulator control")),
    range(0x3_6070, 0x3_6070, Other("memory control")),
    range(0x4_0000, 0x4_3ffc, Other("lock request")),
    range(0x6_0000, 0x6_0000, Other("module clock")),
    range(0x6_0010, 0x6_0010, Other("module reset")),
    range(0x6_0020, 0x6_0020, Other("tile control")),
];

const MEMORY_MEMORIES: &[Range] = &[range(0, 0x7_fffc, Data)];

const MEMORY_DMA: &[Range] = &[
    range(0, 0x5fc, BufferDescriptor),
    every(0x600, 0x628, 8, Control(S2mm)),
    every(0x604, 0x62c, 8, Queue(S2mm)),
    every(0x630, 0x658, 8, Control(Mm2s)),
    every(0x634, 0x65c, 8, Queue(Mm2s)),
    range(0x660, 0x674, Other("S2MM status")),
    range(0x680, 0x694, Other("MM2S status")),
    range(0x6a0, 0x6a0, Other("DMA events")),
    range(0x6b0, 0x6dc, Other("S2MM counts")),
    range(0x6e0, 0x6f4, Other("MM2S padding")),
];

const LOCKS_64: &[Range] = &[
    every(0, 0x3f0, 16, Lock),
    range(0x400, 0x41c, Other("lock events")),
    range(0x420, 0x424, Other("lock overflow")),
    range(0x428, 0x42c, Other("lock underflow")),
];

const MEMORY_SWITCH: &[Range] = &[range(0, 0x40, Master), range(0x100, 0x144, Slave), range(0x200, 0x31c, Slot)];

const MEMORY_OTHER: &[Range] = &[
    range(0x9_2000, 0x9_2000, Other("data memory ECC")),
    range(0x9_2110, 0x9_2110, Other("data memory ECC")),
    range(0x9_2120, 0x9_2120, Other("data memory ECC")),
    range(0x9_4220, 0x9_422c, Other("event status")),
    range(0x9_6000, 0x9_6000, Other("spare")),
    range(0x9_6030, 0x9_6030, Other("tile control")),
    range(0x9_6040, 0x9_6040, Other("tile control")),
    range(0x9_6048, 0x9_6048, Other("memory control")),
    range(0xd_0000, 0xd_fffc, Other("lock request")),
    range(0xf_ff00, 0xf_ff00, Other("module clock")),
    range(0xf_ff10, 0xf_ff10, Other("module reset")),
    range(0xf_ff20, 0xf_ff20, Other("tile control")),
];

const SHIM_DMA: &[Range] = &[
    range(0, 0x1fc, BufferDescriptor),
    every(0x200, 0x208, 8, Control(S2mm)),
    every(0x204, 0x20c, 8, Queue(S2mm)),
    every(0x210, 0x218, 8, Control(Mm2s)),
    every(0x214, 0x21c, 8, Queue(Mm2s)),
    range(0x220, 0x224, Other("S2MM status")),
    range(0x228, 0x22c, Other("MM2S status")),
    range(0x230, 0x23c, Other("S2MM counts")),
];

const SHIM_LOCKS: &[Range] = &[
    every(0, 0xf0, 16, Lock),
    range(0x100, 0x114, Other("lock events")),
    range(0x120, 0x120, Other("lock overflow")),
    range(0x128, 0x128, Other("lock underflow")),
];

const SHIM_SWITCH: &[Range] = &[range(0, 0x54, Master), range(0x100, 0x158, Slave), range(0x200, 0x36c, Slot)];

const SHIM_OTHER: &[Range] = &[
    range(0x1_5000, 0x1_5010, Other("second interrupt controller")),
    range(0x1_6000, 0x1_6000, Other("spare")),
    range(0x1_e008, 0x1_e014, Other("interface to host memory")),
    range(0x1_e020, 0x1_e020, Other("interface to host memory")),
    range(0x1_f000, 0x1_f000, ShimMux),
    range(0x1_f004, 0x1_f004, ShimDemux),
    range(0x3_3000, 0x3_300c, Other("interface to programmable logic")),
    range(0x3_5000, 0x3_5020, Other("first interrupt controller")),
    range(0x3_5030, 0x3_5050, Other("first interrupt controller")),
    range(0x3_6000, 0x3_6000, Other("memory repair")),
    range(0x3_6008, 0x3_6008, Other("memory repair")),
    range(0x3_6010, 0x3_602c, Other("memory repair")),
    range(0x3_6030, 0x3_6030, Other("tile control")),
    range(0x4_0000, 0x4_3ffc, Other("lock request")),
    range(0xf_ff00, 0xf_ff04, Other("module clock")),
    range(0xf_ff10, 0xf_ff14, Other("module reset")),
    range(0xf_ff20, 0xf_ff20, Other("column clock")),
    range(0xf_ff24, 0xf_ff24, Other("tile control")),
    range(0xf_ff28, 0xf_ff28, Other("column reset")),
    range(0xf_ff30, 0xf_ff30, Other("spare")),
    range(0xf_ff40, 0xf_ff40, Other("tile control")),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(kind: TileKind, offset: u32, expected: &str) {
        let register = Register::at(kind, offset).map_or("nothing".to_owned(), |register| register.to_string());
        assert_eq!(register, expected, "{kind}, {offset:#x}");
    }

    #[test]
    fn a_core_tile_has_its_registers() {
        let check = |offset, expected: &str| check(TileKind::Core, offset, expected);
        check(0, "data memory 0x0");
        check(0xfffc, "data memory 0xfffc");
        check(0x2, "nothing");
        check(0x1_0000, "nothing");
        check(0x2_0000, "program memory 0x0");
        check(0x2_3ffc, "program memory 0x3ffc");
        check(0x2_4004, "nothing");
        check(0x1_f030, "lock 3");
        check(0x1_f004, "nothing");
        check(0x1_d034, "buffer descriptor 1, word 5");
        check(0x1_d038, "nothing");
        check(0x1_d1f4, "buffer descriptor 15, word 5");
        check(0x1_de0c, "S2MM 1 queue");
        check(0x1_de10, "MM2S 0 control");
        check(0x3_2000, "core control");
        check(0x3_f004, "stream master DMA 0");
        check(0x3_f15c, "stream slave trace 0");
        check(0x3_f218, "stream slave DMA 0, packet slot 2");
        check(0x3_f38c, "stream slave trace 1, packet slot 3");
        check(0x3_2110, "program memory ECC");
        check(0x1_4400, "combined events");
        check(0xf_fffc, "nothing");
    }

    #[test]
    fn a_memory_tile_has_its_registers() {
        let check = |offset, expected: &str| check(TileKind::Memory, offset, expected);
        check(0x7_fffc, "data memory 0x7fffc");
        check(0x8_0000, "nothing");
        check(0xa_05fc, "buffer descriptor 47, word 7");
        check(0xa_062c, "S2MM 5 queue");
        check(0xa_0634, "MM2S 0 queue");
        check(0xc_03f0, "lock 63");
        check(0xb_0040, "stream master north 5");
        check(0xb_0118, "stream slave control 0");
        check(0xa_06f4, "MM2S padding");
        check(0xb_0270, "stream slave south 0, packet slot 0");
        check(0x3_2000, "data memory 0x32000");
    }

    #[test]
    fn a_shim_tile_has_its_registers() {
        let check = |offset, expected: &str| check(TileKind::Shim, offset, expected);
        check(0, "nothing");
        check(0x1_4010, "lock 1");
        check(0x1_d01c, "buffer descriptor 0, word 7");
        check(0x1_d214, "MM2S 0 queue");
        check(0x1_f000, "shim multiplexer");
        check(0x1_f004, "shim demultiplexer");
        check(0x3_f030, "stream master north 0");
        check(0x3_f114, "stream slave south 3");
        check(0xf_ff20, "column clock");
    }

    #[test]
    fn runs_end_where_a_range_does() {
        let check = |kind, offset, expected| assert_eq!(contiguous_bytes(kind, offset), expected, "{offset:#x}");
        check(TileKind::Core, 0xff00, 0x100);
        check(TileKind::Core, 0x2_0000, 0x4000);
        check(TileKind::Core, 0x1_d008, 16);
        check(TileKind::Core, 0x1_d018, 0);
        check(TileKind::Core, 0x1_f000, 4);
        check(TileKind::Core, 0x1_0000, 0);
        check(TileKind::Memory, 0xa_0020, 32);
        check(TileKind::Shim, 0x3_f100, 0x5c);
    }

    proptest! {
        #[test]
        fn runs_hold_registers(row in 0_u8..6, offset in 0_u32..1 << 20) {
            let kind = super::super::Device::tile_kind(row).unwrap();
            let run = contiguous_bytes(kind, offset);
            prop_assert_eq!(run > 0, Register::at(kind, offset).is_some());
            prop_assert!(run == 0 || Register::at(kind, offset + run - 4).is_some());
        }
    }
}
