//! One command: its type and operands, from its payload and back.

use crate::words::Words;

/// A command. In an NPU's file an address is `column << 25 | row << 20 | offset`, its column counted from the
/// start of the partition.
///
/// Commands with a 32-bit and a 64-bit form are one variant; `wide` says which form. An id that has no variant,
/// or whose payload has a length that its variant has not, is [`Command::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command<'a> {
    /// Wait until `register & mask == value` (0x101; 0x106 if wide).
    MaskPoll {
        /// Register.
        address: u64,
        /// Bits that count.
        mask: u32,
        /// What they should be.
        value: u32,
        /// How long to wait, in microseconds.
        timeout_us: u32,
        /// What a timeout means; `None` in the short form.
        flags: Option<u32>,
        /// Reported at a timeout; only with `flags`.
        error_code: Option<u32>,
        /// Address of two words.
        wide: bool,
    },
    /// `register = register & !mask | value & mask` (0x102; 0x107 if wide).
    MaskWrite {
        /// Register.
        address: u64,
        /// Bits to change.
        mask: u32,
        /// Their new values.
        value: u32,
        /// Address of two words.
        wide: bool,
    },
    /// `register = value` (0x103; 0x108 if wide).
    Write {
        /// Register.
        address: u64,
        /// New value.
        value: u32,
        /// Address of two words.
        wide: bool,
    },
    /// Wait (0x104).
    Delay {
        /// Microseconds.
        delay_us: u32,
    },
    /// Copy words to consecutive addresses (0x105).
    DmaWrite {
        /// First word's destination.
        address: u64,
        /// What is copied.
        data: Words<'a>,
    },
    /// Copy between addresses (0x109).
    DmaTransfer {
        /// From.
        source: u64,
        /// To.
        destination: u64,
        /// Words.
        length_words: u32,
        /// Modes of the DMA.
        flags: u32,
    },
    /// Fill consecutive words with one value (0x10c).
    Set {
        /// First word's destination.
        address: u64,
        /// Words.
        length_words: u32,
        /// The value.
        value: u32,
    },
    /// Copy words through a window of addresses (0x10d).
    DmaWriteKeyhole {
        /// Start of the window.
        address: u64,
        /// Bytes of the window.
        size_bytes: u32,
        /// What is copied.
        data: Words<'a>,
    },
    /// Nothing; its payload is padding (0x111).
    Nop {
        /// Ignored.
        padding: Words<'a>,
    },
    /// A mark in a log (0x119).
    Marker {
        /// Kind of mark.
        value: u32,
        /// Its text, padded with zeros.
        text: Words<'a>,
    },
    /// Any other.
    Other {
        /// Kind of command.
        id: u16,
        /// All of its payload.
        payload: Words<'a>,
    },
}

pub(crate) const MASK_POLL: u16 = 0x101;
pub(crate) const MASK_WRITE: u16 = 0x102;
pub(crate) const WRITE: u16 = 0x103;
const DELAY: u16 = 0x104;
pub(crate) const DMA_WRITE: u16 = 0x105;
const MASK_POLL64: u16 = 0x106;
pub(crate) const MASK_WRITE64: u16 = 0x107;
pub(crate) const WRITE64: u16 = 0x108;
const DMA_XFER: u16 = 0x109;
const SET: u16 = 0x10c;
const DMA_WRITE_KEYHOLE: u16 = 0x10d;
pub(crate) const NOP: u16 = 0x111;
const MARKER: u16 = 0x119;

/// Names of the general commands, from 0x100 on, as `Xilinx/bootgen:cdo-binary.c` has them.
const NAMES: [&str; 36] = [
    "end_mark",
    "mask_poll",
    "mask_write",
    "write",
    "delay",
    "dma_write",
    "mask_poll64",
    "mask_write64",
    "write64",
    "dma_xfer",
    "init_seq",
    "cframe_read",
    "set",
    "dma_write_keyhole",
    "ssit_sync_master",
    "ssit_sync_slaves",
    "ssit_wait_slaves",
    "nop",
    "get_device_id",
    "event_logging",
    "set_board",
    "get_board",
    "set_plm_wdt",
    "log_string",
    "log_address",
    "marker",
    "proc",
    "block_begin",
    "block_end",
    "break",
    "ot_check",
    "psm_sequence",
    "plm_update",
    "scatter_write",
    "scatter_write2",
    "tamper_trigger",
];

/// The name of a general command, as bootgen's sources have it.
#[must_use]
pub fn name_of(id: u16) -> Option<&'static str> {
    NAMES.get(usize::from(id.checked_sub(0x100)?)).copied()
}

/// The id of a name.
pub(crate) fn id_of(name: &str) -> Option<u16> {
    let index = NAMES.iter().position(|known| *known == name)?;
    u16::try_from(index).ok()?.checked_add(0x100)
}

/// For each operand in front that is an address whether it has two words.
pub(super) fn addresses_of_id(id: u16) -> &'static [bool] {
    match id {
        MASK_POLL | MASK_WRITE | WRITE => &[false],
        MASK_POLL64 | MASK_WRITE64 | WRITE64 | DMA_WRITE | SET | DMA_WRITE_KEYHOLE => &[true],
        DMA_XFER => &[true, true],
        _ => &[],
    }
}

/// True if a variant has this id.
pub(super) fn is_typed(id: u16) -> bool {
    id == NOP || !addresses_of_id(id).is_empty() || !fields_of_id(id).is_empty()
}

/// The names of the operands behind the addresses, in the order of the file.
pub(super) fn fields_of_id(id: u16) -> &'static [&'static str] {
    match id {
        MASK_POLL | MASK_POLL64 => &["mask", "value", "timeout_us", "flags", "error_code"],
        MASK_WRITE | MASK_WRITE64 => &["mask", "value"],
        WRITE | WRITE64 | MARKER => &["value"],
        DELAY => &["delay_us"],
        DMA_XFER => &["words", "flags"],
        SET => &["words", "value"],
        DMA_WRITE_KEYHOLE => &["bytes"],
        _ => &[],
    }
}

/// The general commands, in the order of their ids: name, and operands as the text form has them.
pub fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.iter().zip(0x100..).map(|(name, id)| (*name, operands_of(id)))
}

/// The operands of a command, as its text has them.
fn operands_of(id: u16) -> &'static str {
    match id {
        MASK_POLL | MASK_POLL64 => "ADDRESS mask=M value=V timeout_us=T [flags=F [error_code=E]]",
        MASK_WRITE | MASK_WRITE64 => "ADDRESS mask=M value=V",
        WRITE | WRITE64 => "ADDRESS value=V",
        DELAY => "delay_us=T",
        DMA_WRITE => "ADDRESS WORD...",
        DMA_XFER => "FROM_ADDRESS TO_ADDRESS words=N flags=F",
        SET => "ADDRESS words=N value=V",
        DMA_WRITE_KEYHOLE => "ADDRESS bytes=N WORD...",
        MARKER => "value=V WORD...",
        _ => "WORD...",
    }
}

/// What an error says of a command with other operands.
pub(super) fn usage_of(id: u16) -> String {
    format!("its operands are {}", operands_of(id))
}

impl<'a> Command<'a> {
    /// What an id and its payload mean.
    pub(crate) fn new(id: u16, payload: Words<'a>) -> Command<'a> {
        Command::typed(id, payload).unwrap_or(Command::Other { id, payload })
    }

    fn typed(id: u16, payload: Words<'a>) -> Option<Command<'a>> {
        Some(match id {
            MASK_POLL => mask_poll(false, payload)?,
            MASK_POLL64 => mask_poll(true, payload)?,
            MASK_WRITE => {
                let [address, mask, value] = payload.exactly()?;
                Command::MaskWrite { address: address.into(), mask, value, wide: false }
            }
            MASK_WRITE64 => {
                let [high, low, mask, value] = payload.exactly()?;
                Command::MaskWrite { address: pair(high, low), mask, value, wide: true }
            }
            WRITE => {
                let [address, value] = payload.exactly()?;
                Command::Write { address: address.into(), value, wide: false }
            }
            WRITE64 => {
                let [high, low, value] = payload.exactly()?;
                Command::Write { address: pair(high, low), value, wide: true }
            }
            DELAY => {
                let [delay_us] = payload.exactly()?;
                Command::Delay { delay_us }
            }
            DMA_WRITE => {
                let ([high, low], data) = payload.split()?;
                Command::DmaWrite { address: pair(high, low), data }
            }
            DMA_XFER => {
                let [high, low, to_high, to_low, length_words, flags] = payload.exactly()?;
                let (source, destination) = (pair(high, low), pair(to_high, to_low));
                Command::DmaTransfer { source, destination, length_words, flags }
            }
            SET => {
                let [high, low, length_words, value] = payload.exactly()?;
                Command::Set { address: pair(high, low), length_words, value }
            }
            DMA_WRITE_KEYHOLE => {
                let ([high, low, size_bytes], data) = payload.split()?;
                Command::DmaWriteKeyhole { address: pair(high, low), size_bytes, data }
            }
            NOP => Command::Nop { padding: payload },
            MARKER => {
                let ([value], text) = payload.split()?;
                Command::Marker { value, text }
            }
            _ => return None,
        })
    }

    /// The id of its command word.
    #[must_use]
    pub fn id(&self) -> u16 {
        match self {
            Command::MaskPoll { wide: false, .. } => MASK_POLL,
            Command::MaskPoll { wide: true, .. } => MASK_POLL64,
            Command::MaskWrite { wide: false, .. } => MASK_WRITE,
            Command::MaskWrite { wide: true, .. } => MASK_WRITE64,
            Command::Write { wide: false, .. } => WRITE,
            Command::Write { wide: true, .. } => WRITE64,
            Command::Delay { .. } => DELAY,
            Command::DmaWrite { .. } => DMA_WRITE,
            Command::DmaTransfer { .. } => DMA_XFER,
            Command::Set { .. } => SET,
            Command::DmaWriteKeyhole { .. } => DMA_WRITE_KEYHOLE,
            Command::Nop { .. } => NOP,
            Command::Marker { .. } => MARKER,
            Command::Other { id, .. } => *id,
        }
    }

    /// Words that it writes: the first one's address, and how many. `None` where it writes none.
    #[must_use]
    pub fn written(&self) -> Option<(u64, u64)> {
        Some(match *self {
            Command::MaskWrite { address, .. } | Command::Write { address, .. } => (address, 1),
            Command::DmaWrite { address, data } => (address, data.len() as u64),
            Command::Set { address, length_words, .. } => (address, length_words.into()),
            Command::DmaTransfer { destination, length_words, .. } => (destination, length_words.into()),
            Command::DmaWriteKeyhole { address, size_bytes, .. } => (address, u64::from(size_bytes / 4)),
            _ => return None,
        })
    }

    /// True if the loader of NPU firmware knows the command; it stops at any other
    /// (`aie-pdi-transform/lib/cdo_cmd.c`, `XCdo_LoadCdo`).
    #[must_use]
    pub fn is_loadable(&self) -> bool {
        use Command::{DmaWrite, MaskWrite, Nop, Write};
        matches!(self, MaskWrite { .. } | Write { .. } | DmaWrite { .. } | Nop { .. })
    }

    /// The operands in front of the data, as words, and the data.
    pub(crate) fn payload(&self) -> (Vec<u32>, Words<'a>) {
        let none = Words::new(&[]);
        match *self {
            Command::MaskPoll { address, mask, value, timeout_us, flags, error_code, wide } => {
                let mut words = address_words(address, wide);
                words.extend([mask, value, timeout_us]);
                // The place of an error code is behind the flags.
                words.extend(flags.or(error_code.map(|_| 0)));
                words.extend(error_code);
                (words, none)
            }
            Command::MaskWrite { address, mask, value, wide } => {
                let mut words = address_words(address, wide);
                words.extend([mask, value]);
                (words, none)
            }
            Command::Write { address, value, wide } => {
                let mut words = address_words(address, wide);
                words.push(value);
                (words, none)
            }
            Command::Delay { delay_us } => (vec![delay_us], none),
            Command::DmaWrite { address, data } => (address_words(address, true), data),
            Command::DmaTransfer { source, destination, length_words, flags } => {
                let mut words = address_words(source, true);
                words.extend(address_words(destination, true));
                words.extend([length_words, flags]);
                (words, none)
            }
            Command::Set { address, length_words, value } => {
                let mut words = address_words(address, true);
                words.extend([length_words, value]);
                (words, none)
            }
            Command::DmaWriteKeyhole { address, size_bytes, data } => {
                let mut words = address_words(address, true);
                words.push(size_bytes);
                (words, data)
            }
            Command::Nop { padding } => (Vec::new(), padding),
            Command::Marker { value, text } => (vec![value], text),
            Command::Other { payload, .. } => (Vec::new(), payload),
        }
    }
}

fn mask_poll(wide: bool, payload: Words<'_>) -> Option<Command<'_>> {
    let (address, rest) = if wide {
        let ([high, low], rest) = payload.split()?;
        (pair(high, low), rest)
    } else {
        let ([address], rest) = payload.split()?;
        (address.into(), rest)
    };
    let ([mask, value, timeout_us], rest) = rest.split()?;
    let (flags, error_code) = match rest.len() {
        0 => (None, None),
        1 => (rest.iter().next(), None),
        2 => (rest.iter().next(), rest.iter().nth(1)),
        _ => return None,
    };
    Some(Command::MaskPoll { address, mask, value, timeout_us, flags, error_code, wide })
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// High word first; a narrow address has its low word alone.
fn address_words(address: u64, wide: bool) -> Vec<u32> {
    let low = (address & u64::from(u32::MAX)) as u32;
    if wide { vec![(address >> 32) as u32, low] } else { vec![low] }
}
