//! What commands and operations write to the array.

use crate::{array::Address, cdo::Command, txn::Op};

/// A command, as far as the array sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A word of which the bits of a mask change.
    Write {
        /// Which.
        address: Address,
        /// All ones for the whole word.
        mask: u32,
        /// The new bits.
        value: u32,
    },
    /// Words at rising addresses.
    Block {
        /// Of the first word.
        address: Address,
        /// Little-endian; what is behind the last whole word is left out.
        words: &'a [u8],
    },
    /// The host address of a kernel argument, put into a shim tile's buffer descriptor when a launch begins.
    Argument {
        /// Of the descriptor's word that takes the lower half.
        address: Address,
        /// The buffer, counted from 0 (`bo0`).
        index: u64,
    },
}

impl<'a> Event<'a> {
    /// Where it begins to write.
    #[must_use]
    pub fn address(&self) -> Address {
        match *self {
            Event::Write { address, .. } | Event::Block { address, .. } | Event::Argument { address, .. } => address,
        }
    }

    /// What a PDI's command writes; none for others, and for addresses beyond 32 bits.
    #[must_use]
    pub fn of_command(command: &Command<'a>) -> Option<Event<'a>> {
        let place = |address: u64| u32::try_from(address).ok().map(Address::from);
        match *command {
            Command::MaskWrite { address, mask, value, .. } => {
                Some(Event::Write { address: place(address)?, mask, value })
            }
            Command::Write { address, value, .. } => {
                Some(Event::Write { address: place(address)?, mask: u32::MAX, value })
            }
            Command::DmaWrite { address, data } => {
                Some(Event::Block { address: place(address)?, words: data.as_bytes() })
            }
            _ => None,
        }
    }

    /// What an instruction stream's operation writes; none for others.
    #[must_use]
    pub fn of_operation(op: &Op<'a>) -> Option<Event<'a>> {
        match *op {
            Op::Write { address, value } => Some(Event::Write { address, mask: u32::MAX, value }),
            Op::MaskWrite { address, value, mask } => Some(Event::Write { address, mask, value }),
            Op::BlockWrite { address, data } => Some(Event::Block { address, words: data.as_bytes() }),
            Op::Patch { address, argument, .. } => Some(Event::Argument { address, index: argument }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Words;

    #[test]
    fn commands_and_operations_write_alike() {
        let address = Address { column: 1, row: 2, offset: 0x1_f010 };
        let far = u64::from(u32::from(address));
        let words = [1, 2, 3, 4];
        let check = |command: Option<Command>, op: Option<Op>, expected: Option<Event>| {
            assert_eq!(command.and_then(|command| Event::of_command(&command)), expected);
            assert_eq!(op.and_then(|op| Event::of_operation(&op)), expected);
        };
        check(
            Some(Command::Write { address: far, value: 5, wide: false }),
            Some(Op::Write { address, value: 5 }),
            Some(Event::Write { address, mask: u32::MAX, value: 5 }),
        );
        check(
            Some(Command::MaskWrite { address: far, mask: 6, value: 5, wide: true }),
            Some(Op::MaskWrite { address, value: 5, mask: 6 }),
            Some(Event::Write { address, mask: 6, value: 5 }),
        );
        check(
            Some(Command::DmaWrite { address: far, data: Words::new(&words) }),
            Some(Op::BlockWrite { address, data: Words::new(&words) }),
            Some(Event::Block { address, words: &words }),
        );
        check(Some(Command::Delay { delay_us: 1 }), Some(Op::Noop), None);
        check(Some(Command::Write { address: 1 << 32, value: 5, wide: true }), None, None);
    }
}
