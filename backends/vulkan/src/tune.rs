//! Chooses tiles by measuring, and takes up what was chosen before.

use biga_hal::{Choices, DType, Device, DeviceId, DeviceKind, Result};

use crate::{
    device::VulkanDevice,
    measure::{compile, product, repeated, run},
    tile::{MatrixTile, TRIED},
    tuning::Tuning,
};

/// The name of the choice.
const PROMPT_TILE: &str = "prompt tile";

/// The fastest tile for prompts; nothing on a device without matrix instructions.
pub(crate) fn tune(device: &VulkanDevice, progress: &mut dyn FnMut(f64)) -> Result<Choices> {
    let tuning = *device.tuning();
    let usable: Vec<MatrixTile> = TRIED.into_iter().filter(|tile| tuning.fault_of(*tile).is_none()).collect();
    if usable.is_empty() {
        return Ok(Choices::new());
    }
    // Gate and up of a model of 8 billion parameters; a driver on the CPU would take minutes.
    let (tokens, size) = match device.info().kind {
        DeviceKind::SoftwareGpu => (128, [512, 256]),
        _ => (512, [14336, 4096]),
    };
    let bound = product(device, tokens, size, DType::Q4_0)?;
    let mut best: Option<(f64, MatrixTile)> = None;
    for (index, &tile) in usable.iter().enumerate() {
        let with = Tuning { tile: tuning.matrix.map(|shape| tile.scaled(shape)), ..tuning };
        let mut part = |part| progress((index as f64 + part) / usable.len() as f64);
        let seconds = repeated(&mut part, |products| {
            let executable = compile(device, &with, tokens, vec![bound.clone(); products])?;
            Ok(move || run(device, &executable))
        })?;
        tracing::debug!(device = %device.info().id, %tile, seconds, "tile measured");
        if best.is_none_or(|(least, _)| seconds < least) {
            best = Some((seconds, tile));
        }
    }
    Ok(best.map(|(_, tile)| (PROMPT_TILE.to_owned(), tile.to_string())).into_iter().collect())
}

impl Tuning {
    /// Takes up what was chosen on this device before.
    pub(crate) fn adopt(&mut self, id: DeviceId, choices: &Choices) {
        for (name, value) in choices {
            let tile = value.parse().ok().filter(|tile| TRIED.contains(tile) && self.fault_of(*tile).is_none());
            match tile.filter(|_| name == PROMPT_TILE) {
                Some(tile) => self.prompt_tile = Some(tile),
                // Opened with kernels that have no tiles.
                None if self.matrix.is_none() => {
                    tracing::debug!(device = %id, name, value, "no use for a stored choice")
                }
                None => tracing::warn!(
                    "{id}: stored choice {name:?} = {value:?} ignored, this version makes no such choice here; \
                     `biga probe --measure` makes new ones"
                ),
            }
        }
    }

    /// Why the device cannot run a tile, if it cannot.
    fn fault_of(&self, tile: MatrixTile) -> Option<String> {
        match self.matrix {
            Some(shape) => tile.scaled(shape).fault(shape, self.subgroup, self.max_lanes, self.max_shared_bytes),
            None => Some("the device has no matrix instructions".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use biga_hal::{Choices, DeviceId};

    use super::{PROMPT_TILE, Tuning};
    use crate::{
        options::{Kernels, VulkanOptions},
        probe::example_facts,
    };

    fn check(name: &str, value: &str, expected: Option<&str>) {
        let mut tuning =
            Tuning::new(&example_facts(), VulkanOptions { kernels: Kernels::Gpu, ..VulkanOptions::default() });
        tuning.adopt(DeviceId { backend: "vulkan", index: 0 }, &Choices::from([(name.to_owned(), value.to_owned())]));
        assert_eq!(tuning.prompt_tile.map(|tile| tile.to_string()).as_deref(), expected, "{name} {value}");
    }

    #[test]
    fn a_choice_that_the_device_cannot_run_is_ignored() {
        check(PROMPT_TILE, "64x128/64x32/0", Some("64x128/64x32/0"));
        check(PROMPT_TILE, "63x128/64x32/0", None);
        check(PROMPT_TILE, "1024x1024/64x64/2", None);
        check(PROMPT_TILE, "fast", None);
        // Tiles of other kernels, and some that no kernel has.
        for tile in ["128x16@32*4*1", "64x64@32*1*1024", "1x64/16x64/0", "32x16*4*0"] {
            check(PROMPT_TILE, tile, None);
        }
        check("another", "64x128/64x32/0", None);
    }
}
