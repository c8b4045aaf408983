//! What the runtime patches in control packets, from the JSON of the tool that made them.
//!
//! Two forms exist (`Xilinx/aiebu:src/cpp/aiebu/src/preprocessor/aie2/aie2_blob_preprocessor_input.cpp`):
//! `external_buffers` of the AIE compiler and of mlir-aie, `ctrl_pkt_patch_info` of the DMA compiler.

use std::collections::BTreeMap;

use super::{
    Schema,
    relocate::{Names, Patch},
};
use crate::{
    error::{Error, Result},
    section::json::{At, Tree},
};

/// Before the place that the JSON names, so that patches of control packets and of streams start at the same word.
const PACKET_HEADER_BYTES: u32 = 8;

/// Bytes of an address.
const ADDRESS_BYTES: u32 = 6;

/// The highest argument that the JSON may name.
const ARGUMENT_MAX: u64 = 32;

/// What is called `control-packet` rather than by its number.
const CONTROL: &str = "control-packet";

/// The names of arguments, and the patches of control packets of `size_bytes`. `before` is how many arguments the
/// kernel has before its first buffer.
pub(super) fn read(json: Option<&str>, size_bytes: u32, before: u64) -> Result<(Names, Vec<Patch>)> {
    let mut reading = Reading { names: Names { before, given: BTreeMap::new() }, size_bytes, patches: Vec::new() };
    if let Some(json) = json {
        let tree = Tree::parse(json)?;
        let root = At::root(&tree);
        if let Some(buffers) = root.find("external_buffers") {
            for buffer in buffers.items() {
                reading.buffer(&buffer)?;
            }
        } else if let Some(patches) = root.find("ctrl_pkt_patch_info") {
            reading.dma_compiler(&root, &patches)?;
        }
    }
    Ok((reading.names, reading.patches))
}

struct Reading {
    names: Names,
    size_bytes: u32,
    patches: Vec<Patch>,
}

impl Reading {
    fn buffer(&mut self, buffer: &At<'_>) -> Result<()> {
        let id = buffer.get("xrt_id")?;
        let argument = self.argument(&id)?;
        let is_control = buffer.find("ctrl_pkt_buffer").is_some_and(|at| matches!(at.text(), Ok("1" | "true")));
        let name = self.name(argument);
        let given = if is_control { CONTROL.to_owned() } else { name.clone() };
        self.names.given.entry(argument).or_insert(given);
        let Some(parts) = buffer.find("coalesed_buffers") else { return self.locations(buffer, &name) };
        let size_bytes: u32 = buffer.get("size_in_bytes")?.decimal()?;
        for part in parts.items() {
            let offset = part.get("offset_in_bytes")?;
            if offset.decimal::<u32>()? > size_bytes {
                return Err(offset.error(offset.text()?, format!("the buffer has {size_bytes} bytes")));
            }
            self.locations(&part, &name)?;
        }
        Ok(())
    }

    fn locations(&mut self, part: &At<'_>, name: &str) -> Result<()> {
        let addend = part.find("offset_in_bytes").map_or(Ok(0), |at| at.decimal())?;
        let Some(locations) = part.find("control_packet_patch_locations") else { return Ok(()) };
        for location in locations.items() {
            self.location(&location.get("offset")?, name.to_owned(), addend)?;
        }
        Ok(())
    }

    fn location(&mut self, at: &At<'_>, name: String, addend: u32) -> Result<()> {
        let place: u32 = at.decimal()?;
        let fits = place.checked_add(ADDRESS_BYTES).is_some_and(|end| end <= self.size_bytes);
        let offset = place.checked_sub(PACKET_HEADER_BYTES).filter(|_| fits).ok_or_else(|| {
            let bound = format!(
                "{ADDRESS_BYTES} bytes behind {PACKET_HEADER_BYTES} of a header, in the {} bytes of control \
                packets",
                self.size_bytes
            );
            at.error(place, bound)
        })?;
        self.patches.push(Patch { name, offset, schema: Schema::CONTROL_PACKET_48, addend, size: 0 });
        Ok(())
    }

    fn dma_compiler(&mut self, root: &At<'_>, patches: &At<'_>) -> Result<()> {
        if self.names.before == 0 {
            let bound = "aiebu calls arguments 0 to 4 of a full file 3 to 7 then; use `external_buffers`";
            return Err(Error::refused("patch information", "ctrl_pkt_patch_info", bound));
        }
        for argument in 0..5 {
            let name = self.name(argument);
            self.names.given.insert(argument, name);
        }
        let control = root.find("ctrl_pkt_xrt_arg_idx").map_or(Ok(4), |at| self.argument(&at))?;
        self.names.given.insert(control, CONTROL.to_owned());
        for patch in patches.items() {
            let argument = self.argument(&patch.get("xrt_arg_idx")?)?;
            let addend = patch.get("bo_offset")?.decimal()?;
            self.location(&patch.get("offset")?, self.name(argument), addend)?;
        }
        Ok(())
    }

    fn argument(&self, at: &At<'_>) -> Result<u64> {
        let argument = at.decimal()?;
        if argument > ARGUMENT_MAX {
            return Err(at.error(argument, format!("an argument, at most {ARGUMENT_MAX}")));
        }
        Ok(argument)
    }

    fn name(&self, argument: u64) -> String {
        argument.saturating_add(self.names.before).to_string()
    }
}
