//! What the runtime patches in a stream, from the stream's own operations.
//!
//! aiebu looks at the block writes before a [`Op::Patch`] for the one that holds the register's buffer descriptor, and
//! has the runtime patch its payload there; the operation stays in the stream
//! (`Xilinx/aiebu:src/cpp/aiebu/src/preprocessor/aie2/aie2_blob_preprocessor_input.cpp`, `process_txn`).

use std::collections::BTreeMap;

use super::Schema;
use crate::{
    array::{Address, Register, TileKind},
    error::{Error, Result},
    txn::{Op, Stream, Version},
};

/// A place to patch, before it has a symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// Of what is patched in.
    pub(super) name: String,
    /// In its section.
    pub(super) offset: u32,
    pub(super) schema: Schema,
    pub(super) addend: u32,
    /// The symbol's: bytes of the buffer, or a mask.
    pub(super) size: u32,
}

/// How arguments are called.
pub(super) struct Names {
    /// Added to an argument's number: what the kernel has before its first buffer.
    pub(super) before: u64,
    /// Names of arguments that have others.
    pub(super) given: BTreeMap<u64, String>,
}

impl Names {
    fn number(&self, argument: u64) -> String {
        argument.saturating_add(self.before).to_string()
    }

    fn name(&self, argument: u64) -> String {
        self.given.get(&argument).cloned().unwrap_or_else(|| self.number(argument))
    }
}

/// The stream's bytes with the addresses that are patched set to zero, and its patches. `pdis` are the ids that the
/// stream may load.
pub(super) fn relocate(stream: &Stream<'_>, names: &Names, pdis: &[u16]) -> Result<(Vec<u8>, Vec<Patch>)> {
    let mut relocating = Relocating { version: stream.header().version, names, descriptors: BTreeMap::new() };
    let mut bytes = stream.bytes().to_vec();
    let mut patches = Vec::new();
    for placed in stream.operations() {
        let offset = u32::try_from(placed.offset).unwrap_or(u32::MAX);
        let found = relocating.operation(&placed.operation.op, offset, pdis);
        let Some(patch) = found.map_err(|error| error.within(format!("operation {}", placed.index)))? else { continue };
        if patch.schema == Schema::SHIM_DMA_48 {
            clear_address(&mut bytes, patch.offset);
        }
        patches.push(patch);
    }
    Ok((bytes, patches))
}

/// Zeros bits 2 to 47 of the address in a shim tile's buffer descriptor; the runtime adds to what stands there.
fn clear_address(bytes: &mut [u8], descriptor: u32) {
    let words = bytes.get_mut(descriptor as usize..).and_then(|bytes| bytes.get_mut(4..10));
    if let Some([low, rest @ ..]) = words {
        *low &= 3;
        rest.fill(0);
    }
}

struct Relocating<'n> {
    version: Version,
    names: &'n Names,
    /// For each 32 bytes that a block write has written last: where they stand in the stream, and how many words of
    /// the payload there are from there on.
    descriptors: BTreeMap<u32, Descriptor>,
}

#[derive(Clone, Copy)]
struct Descriptor {
    offset: u32,
    n_words: usize,
    first_word: u32,
}

const DESCRIPTOR_BYTES: u32 = 32;

impl Relocating<'_> {
    fn operation(&mut self, op: &Op<'_>, offset: u32, pdis: &[u16]) -> Result<Option<Patch>> {
        match *op {
            Op::BlockWrite { address, data } => {
                let header_bytes = if self.version == Version::V0_1 { 16 } else { 12 };
                let mut place = (u32::from(address), offset.saturating_add(header_bytes));
                for index in (0..data.len()).step_by(8) {
                    let n_words = data.len().saturating_sub(index);
                    let first_word = data.get(index).unwrap_or(0);
                    self.descriptors.insert(place.0, Descriptor { offset: place.1, n_words, first_word });
                    place = (place.0.wrapping_add(DESCRIPTOR_BYTES), place.1.saturating_add(DESCRIPTOR_BYTES));
                }
                Ok(None)
            }
            Op::Patch { address, argument, offset_bytes } => self.patch(address, argument, offset_bytes).map(Some),
            Op::LoadPdi { id, size_bytes, .. } => {
                if !pdis.contains(&id) {
                    return Err(Error::refused("PDI", id, "the file has none of this id to load"));
                }
                let name = format!(".pdi.{id}");
                // Behind kind and size.
                let offset = offset.saturating_add(8);
                Ok(Some(Patch { name, offset, schema: Schema::ADDRESS_64, addend: 0, size: size_bytes }))
            }
            Op::CreateScratchpad { size_bytes, .. } => {
                let name = "scratch-pad-ctrl".to_owned();
                let offset = offset.saturating_add(8);
                Ok(Some(Patch { name, offset, schema: Schema::ADDRESS_64, addend: 0, size: size_bytes }))
            }
            Op::Preempt { .. } => {
                let bound = "aiebu adds code of its own here that saves and restores the array, which is not made here";
                Err(Error::refused("operation", "preempt", bound))
            }
            _ => Ok(None),
        }
    }

    fn patch(&self, address: Address, argument: u64, offset_bytes: u64) -> Result<Patch> {
        let addend = u32::try_from(offset_bytes).map_err(|_| {
            Error::refused("offset", format!("{offset_bytes:#x}"), "an ELF file's patches have 32 bits for it")
        })?;
        let descriptor = self.descriptors.get(&(u32::from(address) & !0xf)).copied().ok_or_else(|| {
            Error::refused("address", address, "no block write before it writes this buffer descriptor")
        })?;
        let (n_words, patch) = match (address.tile_kind(), address.register()) {
            (Some(kind), Some(Register::BufferDescriptor { word, .. })) => {
                self.descriptor_word(kind, word, descriptor, argument, addend)
            }
            _ => None,
        }
        .ok_or_else(|| {
            let bound =
                "addresses and lengths in buffer descriptors of shim and memory tiles are patched, nothing else";
            Error::refused("address", address, bound)
        })?;
        if descriptor.n_words < n_words {
            let bound =
                format!("the block write has {} words of this descriptor, {n_words} are patched", descriptor.n_words);
            return Err(Error::refused("address", address, bound));
        }
        Ok(patch)
    }

    /// How many words of a descriptor the patch of one of them needs, and the patch.
    fn descriptor_word(
        &self,
        kind: TileKind,
        word: u8,
        descriptor: Descriptor,
        argument: u64,
        addend: u32,
    ) -> Option<(usize, Patch)> {
        let Descriptor { offset, first_word, .. } = descriptor;
        let scalar = |offset, mask| Patch {
            name: self.names.number(argument),
            offset,
            schema: Schema::SCALAR_32,
            addend,
            size: mask,
        };
        Some(match (kind, word) {
            (TileKind::Memory, 0) => (1, scalar(offset, 0x1_ffff)),
            (TileKind::Memory, 1) => (2, scalar(offset.saturating_add(4), 0x7_ffff)),
            (TileKind::Shim, 0) => (1, scalar(offset, u32::MAX)),
            (TileKind::Shim, 1) => {
                let size = first_word.wrapping_mul(4);
                (3, Patch { name: self.names.name(argument), offset, schema: Schema::SHIM_DMA_48, addend, size })
            }
            _ => return None,
        })
    }
}
