//! What a driver's compiler makes of the kernels, for checks: nothing is allocated and nothing runs, so that
//! a driver without its hardware will do.

use std::collections::HashSet;

use biga_hal::{DeviceId, Result, Segment};
use biga_shaders::Kernel;

use crate::{
    device::{VulkanBackend, driver_error},
    executable::{Pipelines, Target},
    lower,
};

/// Where launches are told that scratch memory lies.
const SCRATCH: u64 = 1 << 56;

/// A kernel as a driver compiled it, by the choices that the backend makes for the device.
#[derive(Clone, Debug)]
pub struct CompiledKernel {
    /// Which.
    pub kernel: Kernel,
    /// Its specialisation constants, from 0 on.
    pub constants: Vec<u32>,
    /// Invocations in a subgroup.
    pub subgroup_size: u32,
    /// Figures by the driver's own names: registers, spills, bytes of shared and scratch memory.
    pub statistics: Vec<(String, f64)>,
    /// The kernel in the driver's own forms, as (name, text), the last stage last.
    pub texts: Vec<(String, String)>,
}

impl VulkanBackend {
    /// Compiles every pipeline that these segments would run on a device, and that which asks it how matrices lie, each
    /// once. The segments' buffers need be no more than addresses.
    ///
    /// # Errors
    /// [`biga_hal::Error::InvalidSegment`] as for a device's own compiler; [`biga_hal::Error::Driver`] if the device lacks a
    /// feature, or `VK_KHR_pipeline_executable_properties`.
    pub fn inspect(&self, id: DeviceId, segments: &[Segment]) -> Result<Vec<CompiledKernel>> {
        let (physical, facts, tuning) = self.find(id)?;
        let failed = |error| driver_error(id, error);
        let logical = physical.open(facts, true).map_err(failed)?;
        let target = Target { id, logical: &logical, subgroup: tuning.subgroup };
        let mut pipelines = Pipelines::default();
        let mut seen = HashSet::new();
        let mut compiled = Vec::new();
        let mut add = |kernel: Kernel, constants: &[u32]| -> Result<()> {
            if !seen.insert((kernel, constants.to_vec())) {
                return Ok(());
            }
            let pipeline = pipelines.get(target, kernel, constants)?;
            let description = pipeline.describe().map_err(failed)?;
            compiled.push(CompiledKernel {
                kernel,
                constants: constants.to_vec(),
                subgroup_size: description.subgroup_size,
                statistics: description.statistics,
                texts: description.texts,
            });
            Ok(())
        };
        for segment in segments {
            // Any addresses will do: no kernel runs.
            let tables = lower::constant_tables(segment).into_iter().zip((1u64..).map(|i| i << 40)).collect::<Vec<_>>();
            for launch in lower::lower(segment, &tuning, &tables, SCRATCH)? {
                add(launch.kernel, &launch.constants)?;
            }
        }
        let (kernel, constants) = tuning.reading();
        add(kernel, &constants)?;
        if let Some(constants) = tuning.asking() {
            add(Kernel::MatrixLayout, &constants)?;
        }
        Ok(compiled)
    }
}
