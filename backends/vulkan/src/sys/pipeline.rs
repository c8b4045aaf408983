//! Compute pipelines.

use std::{fmt, sync::Arc};

use ash::vk;

use super::device::{CallResult, CounterCells, LogicalDevice, named};

/// A compiled kernel with its specialisation constants.
pub(crate) struct Pipeline {
    pub(super) device: Arc<LogicalDevice>,
    pub(super) raw: vk::Pipeline,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Compiles `spirv` with `constants[i]` as specialisation constant `i`. `subgroup_size` is required
    /// where the device can; constant 0, the workgroup's size, is then a multiple of it.
    pub(crate) fn new(
        device: &Arc<LogicalDevice>,
        spirv: &[u32],
        constants: &[u32],
        subgroup_size: u32,
    ) -> CallResult<Pipeline> {
        let entries: Vec<vk::SpecializationMapEntry> = (0u32..)
            .zip(constants)
            .map(|(id, _)| vk::SpecializationMapEntry { constant_id: id, offset: id * 4, size: 4 })
            .collect();
        let bytes: Vec<u8> = constants.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&bytes);
        // SAFETY: the SPIR-V is one of the crate's own kernels, valid for Vulkan 1.3.
        let module = named("vkCreateShaderModule", unsafe {
            device.raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(spirv), None)
        })?;
        let mut required =
            vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default().required_subgroup_size(subgroup_size);
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main")
            .specialization_info(&specialization);
        let whole = constants.first().is_some_and(|lanes| lanes % subgroup_size == 0);
        if whole {
            stage = stage.flags(vk::PipelineShaderStageCreateFlags::REQUIRE_FULL_SUBGROUPS);
        }
        if device.facts.can_require_subgroup_size {
            stage = stage.push_next(&mut required);
        }
        let mut info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(device.layout);
        if device.statistics.is_some() {
            info = info.flags(super::statistics::CAPTURE);
        }
        let infos = [info];
        // SAFETY: module and layout belong to the live device; everything pointed to lives until the
        // call returns.
        let made = unsafe { device.raw.create_compute_pipelines(vk::PipelineCache::null(), &infos, None) };
        // SAFETY: a module may be destroyed once its pipelines are made.
        unsafe { device.raw.destroy_shader_module(module, None) };
        let raw = named("vkCreateComputePipelines", made.map_err(|(_, result)| result))?;
        CounterCells::count(&device.counters.objects_created);
        CounterCells::count(&device.counters.objects_created);
        Ok(Pipeline { device: Arc::clone(device), raw: raw[0] })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // SAFETY: recordings hold an `Arc` of their pipelines until their last submission has finished.
        unsafe { self.device.raw.destroy_pipeline(self.raw, None) };
    }
}
