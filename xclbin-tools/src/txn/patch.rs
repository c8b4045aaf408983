//! Changes to a stream.

use super::{
    Builder, DDR_APERTURE, Header, Stream, TRANSLATED_ARGUMENTS,
    op::{Op, Sync},
};
use crate::words::Words;
use crate::{
    array::Address,
    error::{Error, Result},
};

/// A change. Each is refused where the stream has nothing that it would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Gives the patches of arguments other arguments, all at once: from the first of each pair to the second, counted
    /// from 0 (`bo0`). The folding of [`Edit::Fold`] stays as it is.
    Renumber(Vec<(u64, u64)>),
    /// Sets the byte offset of an argument's patches.
    SetOffset {
        /// Whose patches.
        argument: u64,
        /// The offset.
        offset_bytes: u64,
    },
    /// Moves the byte offset of an argument's patches.
    AddOffset {
        /// Whose patches.
        argument: u64,
        /// How far.
        by_bytes: i64,
    },
    /// Adds a patch right behind the operation that writes the register.
    AddPatch {
        /// The register that the patch changes.
        place: Place,
        /// The argument, counted from 0 (`bo0`).
        argument: u64,
        /// Added to the buffer's address.
        offset_bytes: u64,
    },
    /// Sets the value that a register is written with or polled for.
    SetWord {
        /// Which register.
        place: Place,
        /// Its value.
        value: u32,
    },
    /// Sets the mask that a register is written or polled with.
    SetMask {
        /// Which register.
        place: Place,
        /// Its mask.
        mask: u32,
    },
    /// Sets the number of columns in the header.
    SetColumns(u8),
    /// Moves everything to other columns, which the header must have.
    ShiftColumns(i8),
    /// Sets the generation of the array in the header.
    SetGeneration(u8),
    /// Adds [`DDR_APERTURE`] to the offsets of arguments from [`TRANSLATED_ARGUMENTS`] on: from the form of ELF files
    /// to that of instruction buffers.
    Fold,
    /// Takes what [`Edit::Fold`] adds away.
    Unfold,
}

/// A register that one operation writes or polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the register.
    pub address: Address,
    /// The operation, where several have the register.
    pub index: Option<u32>,
}

impl Stream<'_> {
    /// The stream with a change.
    ///
    /// # Errors
    /// A change of something that does not occur, or occurs more than once where the place does not say which; a value
    /// outside its field.
    pub fn edited(&self, edit: &Edit) -> Result<Vec<u8>> {
        match *edit {
            Edit::Renumber(ref pairs) => self.renumber(pairs),
            Edit::SetOffset { argument, offset_bytes } => self.patches(Some(argument), |_, _| Ok(offset_bytes)),
            Edit::AddOffset { argument, by_bytes } => self.patches(Some(argument), |_, offset| {
                let bound = format!("the offset is {offset:#x}, and stays within 64 bits");
                offset.checked_add_signed(by_bytes).ok_or_else(|| Error::refused("offset", by_bytes, bound))
            }),
            Edit::AddPatch { place, argument, offset_bytes } => self.add_patch(place, argument, offset_bytes),
            Edit::SetWord { place, value } => self.set_word(place, value),
            Edit::SetMask { place, mask } => self.set_mask(place, mask),
            Edit::SetColumns(columns) => self.with_header(Header { columns, ..self.header() }),
            Edit::ShiftColumns(by) => self.shift_columns(by),
            Edit::SetGeneration(generation) => self.with_header(Header { generation, ..self.header() }),
            Edit::Fold => self.patches(None, fold),
            Edit::Unfold => self.patches(None, unfold),
        }
    }

    fn with_header(&self, header: Header) -> Result<Vec<u8>> {
        let mut builder = Builder::new(header);
        for placed in self.operations() {
            builder.push(&placed.operation)?;
        }
        builder.finish()
    }

    fn renumber(&self, pairs: &[(u64, u64)]) -> Result<Vec<u8>> {
        let mut builder = Builder::new(self.header());
        for (from, _) in pairs {
            // Refuses an argument that does not occur.
            self.patches(Some(*from), |_, offset| Ok(offset))?;
        }
        for placed in self.operations() {
            let mut operation = placed.operation;
            if let Op::Patch { argument, .. } = &mut operation.op
                && let Some((_, to)) = pairs.iter().find(|(from, _)| from == argument)
            {
                *argument = *to;
            }
            builder.push(&operation)?;
        }
        builder.finish()
    }

    /// Changes the offsets in the patches of an argument, or of all that the firmware does not translate.
    fn patches(&self, of: Option<u64>, change: impl Fn(u64, u64) -> Result<u64>) -> Result<Vec<u8>> {
        let mut builder = Builder::new(self.header());
        let mut n_changed = 0_u32;
        for placed in self.operations() {
            let mut operation = placed.operation;
            if let Op::Patch { argument, offset_bytes, .. } = &mut operation.op
                && of.map_or(*argument >= TRANSLATED_ARGUMENTS, |of| of == *argument)
            {
                n_changed = n_changed.saturating_add(1);
                *offset_bytes = change(*argument, *offset_bytes)?;
            }
            builder.push(&operation).map_err(|error| error.within(format!("operation {}", placed.index)))?;
        }
        match of.filter(|_| n_changed == 0) {
            Some(of) => Err(Error::refused("argument", of, format!("the patches are of {}", self.arguments()))),
            // Where the firmware translates all arguments there is nothing to do.
            None => builder.finish(),
        }
    }

    /// The arguments of all patches, for a message.
    fn arguments(&self) -> String {
        let of = |op: &Op<'_>| if let Op::Patch { argument, .. } = op { Some(*argument) } else { None };
        let set: std::collections::BTreeSet<u64> =
            self.operations().filter_map(|placed| of(&placed.operation.op)).collect();
        let names: Vec<String> = set.iter().map(u64::to_string).collect();
        if names.is_empty() { "no argument".to_owned() } else { format!("arguments {}", names.join(", ")) }
    }

    /// The one operation of a place; `what` says what is looked for.
    fn find(&self, place: Place, what: &str, is_it: impl Fn(&Op<'_>) -> bool) -> Result<u32> {
        let Place { address, index } = place;
        let mut found = self.operations().filter(|placed| is_it(&placed.operation.op)).map(|placed| placed.index);
        if let Some(index) = index {
            let bound = format!("operation {index} is not one that {what} it");
            let is_there = found.any(|other| other == index);
            return is_there.then_some(index).ok_or_else(|| Error::refused("address", address, bound));
        }
        let (first, others) = (found.next(), found.count());
        match (first, others) {
            (Some(first), 0) => Ok(first),
            (Some(first), others) => {
                let bound = format!("operation {first} {what} it, and {others} more: say which, as INDEX:ADDRESS");
                Err(Error::refused("address", address, bound))
            }
            (None, _) => Err(Error::refused("address", address, format!("no operation {what} it"))),
        }
    }

    fn add_patch(&self, place: Place, argument: u64, offset_bytes: u64) -> Result<Vec<u8>> {
        let at = self.find(place, "writes", |op| writes(op, place.address))?;
        let mut builder = Builder::new(self.header());
        for placed in self.operations() {
            builder.push(&placed.operation)?;
            if placed.index == at {
                builder.push_op(Op::Patch { address: place.address, argument, offset_bytes })?;
            }
        }
        builder.finish()
    }

    fn set_word(&self, place: Place, new: u32) -> Result<Vec<u8>> {
        let has_it = |op: &Op<'_>| writes(op, place.address) || masked(op) == Some(place.address);
        let at = self.find(place, "writes or polls", has_it)?;
        let mut builder = Builder::new(self.header());
        for placed in self.operations() {
            let mut bytes = Vec::new();
            let mut operation = placed.operation;
            if placed.index != at {
                builder.push(&operation)?;
                continue;
            }
            match &mut operation.op {
                Op::Write { value, .. }
                | Op::MaskWrite { value, .. }
                | Op::MaskPoll { value, .. }
                | Op::MaskPollBusy { value, .. } => *value = new,
                Op::BlockWrite { address, data } => {
                    bytes.extend_from_slice(data.as_bytes());
                    let start = u32::from(place.address).wrapping_sub((*address).into()) as usize;
                    if let Some(word) = bytes.get_mut(start..).and_then(|bytes| bytes.get_mut(..4)) {
                        word.copy_from_slice(&new.to_le_bytes());
                    }
                    *data = Words::new(&bytes);
                }
                _ => {}
            }
            builder.push(&operation)?;
        }
        builder.finish()
    }

    fn set_mask(&self, place: Place, new: u32) -> Result<Vec<u8>> {
        let at = self.find(place, "has a mask for", |op| masked(op) == Some(place.address))?;
        let mut builder = Builder::new(self.header());
        for placed in self.operations() {
            let mut operation = placed.operation;
            if let Op::MaskWrite { mask, .. } | Op::MaskPoll { mask, .. } | Op::MaskPollBusy { mask, .. } =
                &mut operation.op
                && placed.index == at
            {
                *mask = new;
            }
            builder.push(&operation)?;
        }
        builder.finish()
    }

    fn shift_columns(&self, by: i8) -> Result<Vec<u8>> {
        let columns = self.header().columns;
        let shifted = |column: u8| {
            let bound = format!("a column below the {columns} of the header: set those first");
            let to = column.checked_add_signed(by).filter(|to| *to < columns);
            to.ok_or_else(|| Error::refused("column", i16::from(column).saturating_add(by.into()), bound))
        };
        let mut builder = Builder::new(self.header());
        for placed in self.operations() {
            let mut operation = placed.operation;
            if let Some(address) = address_mut(&mut operation.op) {
                address.column = shifted(address.column)?;
            } else if let Op::Sync(Sync { column, .. }) = &mut operation.op {
                *column = shifted(*column)?;
            }
            builder.push(&operation)?;
        }
        builder.finish()
    }
}

fn fold(argument: u64, offset: u64) -> Result<u64> {
    let folded = offset.checked_add(DDR_APERTURE).filter(|_| offset < DDR_APERTURE);
    let bound = format!("argument {argument} is folded already");
    folded.ok_or_else(|| Error::refused("offset", format!("{offset:#x}"), bound))
}

fn unfold(argument: u64, offset: u64) -> Result<u64> {
    let bound = format!("argument {argument} is not folded: the offset is below {DDR_APERTURE:#x}");
    offset.checked_sub(DDR_APERTURE).ok_or_else(|| Error::refused("offset", format!("{offset:#x}"), bound))
}

/// Whether an operation writes a register; of masked ones [`masked`] tells.
fn writes(op: &Op<'_>, register: Address) -> bool {
    match op {
        Op::Write { address, .. } | Op::MaskWrite { address, .. } => *address == register,
        Op::BlockWrite { address, data } => {
            let within = u32::from(register).checked_sub((*address).into());
            within.is_some_and(|within| within.is_multiple_of(4) && (within as usize) < data.as_bytes().len())
        }
        _ => false,
    }
}

/// The register that an operation writes or polls with a mask.
fn masked(op: &Op<'_>) -> Option<Address> {
    match op {
        Op::MaskWrite { address, .. } | Op::MaskPoll { address, .. } | Op::MaskPollBusy { address, .. } => {
            Some(*address)
        }
        _ => None,
    }
}

fn address_mut<'o>(op: &'o mut Op<'_>) -> Option<&'o mut Address> {
    match op {
        Op::Write { address, .. }
        | Op::BlockWrite { address, .. }
        | Op::MaskWrite { address, .. }
        | Op::MaskPoll { address, .. }
        | Op::MaskPollBusy { address, .. }
        | Op::UpdateRegister { address, .. }
        | Op::Patch { address, .. } => Some(address),
        _ => None,
    }
}
