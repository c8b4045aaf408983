//! What a driver says of a physical device, as plain values.

use std::ffi::CStr;

use ash::vk;

use super::instance::PhysicalDevice;

/// Shared memory of the kernel that takes most, `matmul_tile`.
const KERNEL_SHARED_BYTES: u32 = 24 << 10;
/// Lanes of the largest workgroup.
const KERNEL_LANES: u32 = 256;
/// Lanes of the largest workgroup that does not shrink with its subgroups, that of `matmul_tile`.
const FIXED_LANES: u32 = 128;

/// A memory heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heap {
    pub(crate) size_bytes: u64,
    pub(crate) device_local: bool,
    /// What the driver lets this process take, where it says so.
    pub(crate) budget_bytes: Option<u64>,
}

/// A memory type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryType {
    pub(crate) flags: vk::MemoryPropertyFlags,
    pub(crate) heap: usize,
}

/// Everything the rest of the crate decides by.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) api_version: u32,
    pub(crate) device_type: vk::PhysicalDeviceType,
    pub(crate) vendor_id: u32,
    pub(crate) device_id: u32,
    pub(crate) name: String,
    pub(crate) driver_name: String,
    pub(crate) driver_info: String,
    pub(crate) driver_version: u32,
    pub(crate) extensions: Vec<String>,
    /// Required features that are absent, by the names of the specification.
    pub(crate) missing: Vec<&'static str>,
    pub(crate) heaps: Vec<Heap>,
    pub(crate) memory_types: Vec<MemoryType>,
    pub(crate) max_allocation_bytes: u64,
    pub(crate) max_buffer_bytes: u64,
    pub(crate) max_shared_bytes: u32,
    /// Of a time stamp of the queue that is used; 0 if it writes none.
    pub(crate) timestamp_bits: u32,
    /// Of one tick.
    pub(crate) timestamp_period_ns: f32,
    pub(crate) max_grid: [u32; 3],
    /// Invocations of a workgroup along its first axis.
    pub(crate) max_lanes: u32,
    pub(crate) subgroup_size: u32,
    pub(crate) min_subgroup_size: u32,
    pub(crate) max_subgroup_size: u32,
    /// Subgroups of a workgroup whose subgroup size is required.
    pub(crate) max_workgroup_subgroups: u32,
    pub(crate) can_require_subgroup_size: bool,
    pub(crate) dot_4x8_accelerated: Option<bool>,
    /// Alignment of imported host memory, where the import is offered.
    pub(crate) host_pointer_alignment: Option<u64>,
    /// `MxNxK a*b->c`, for the subgroup scope.
    pub(crate) matrix_shapes: Vec<String>,
    /// M, N and K of the products of halves with sums in f32, for the subgroup scope, if kernels may use them.
    pub(crate) matrix_f16: Vec<[u32; 3]>,
    /// Processors that each hold workgroups of their own, where the driver says so.
    pub(crate) compute_units: Option<u32>,
}

impl Facts {
    pub(crate) fn has_extension(&self, name: &CStr) -> bool {
        self.extensions.iter().any(|extension| extension.as_bytes() == name.to_bytes())
    }
}

pub(super) fn text(characters: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = characters.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl PhysicalDevice {
    /// Asks the driver for everything.
    pub(crate) fn facts(&self) -> Facts {
        let instance = &self.instance.raw;
        // SAFETY: `self.raw` was listed by `instance`, which `self` keeps alive; the same holds for all
        // calls in this function.
        let basic = unsafe { instance.get_physical_device_properties(self.raw) };
        // SAFETY: as above.
        let extensions = unsafe { instance.enumerate_device_extension_properties(self.raw) }.unwrap_or_default();
        let extensions: Vec<String> = extensions.iter().map(|e| text(&e.extension_name)).collect();
        let mut facts = Facts {
            api_version: basic.api_version,
            device_type: basic.device_type,
            vendor_id: basic.vendor_id,
            device_id: basic.device_id,
            name: text(&basic.device_name),
            driver_name: String::new(),
            driver_info: String::new(),
            driver_version: basic.driver_version,
            extensions,
            missing: Vec::new(),
            heaps: Vec::new(),
            memory_types: Vec::new(),
            max_allocation_bytes: 0,
            max_buffer_bytes: 0,
            max_shared_bytes: basic.limits.max_compute_shared_memory_size,
            timestamp_bits: self.timestamp_bits(),
            timestamp_period_ns: basic.limits.timestamp_period,
            max_grid: basic.limits.max_compute_work_group_count,
            max_lanes: {
                let limits = &basic.limits;
                limits.max_compute_work_group_invocations.min(limits.max_compute_work_group_size[0])
            },
            subgroup_size: 1,
            min_subgroup_size: 1,
            max_subgroup_size: 1,
            max_workgroup_subgroups: 1,
            can_require_subgroup_size: false,
            dot_4x8_accelerated: None,
            host_pointer_alignment: None,
            matrix_shapes: Vec::new(),
            matrix_f16: Vec::new(),
            compute_units: None,
        };
        self.ask_memory(&mut facts);
        if basic.api_version < vk::API_VERSION_1_3 {
            facts.missing.push("Vulkan 1.3");
            return facts;
        }
        // The tiles of the product for many tokens, and the lanes of the kernels that sum over a row.
        if facts.max_shared_bytes < KERNEL_SHARED_BYTES {
            facts.missing.push("24 KiB of shared memory for a workgroup");
        }
        if facts.max_lanes < KERNEL_LANES {
            facts.missing.push("workgroups of 256");
        }
        self.ask_properties(&mut facts);
        self.ask_compute_units(&mut facts);
        self.ask_matrix_shapes(&mut facts);
        self.ask_features(&mut facts);
        facts
    }

    fn ask_memory(&self, facts: &mut Facts) {
        let has_budget = facts.has_extension(ash::ext::memory_budget::NAME);
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceMemoryProperties2::default();
        if has_budget {
            properties = properties.push_next(&mut budget);
        }
        // SAFETY: the device was listed by the live instance; the chain holds only a structure whose
        // extension the device offers.
        unsafe { self.instance.raw.get_physical_device_memory_properties2(self.raw, &mut properties) };
        let memory = properties.memory_properties;
        facts.heaps = memory
            .memory_heaps_as_slice()
            .iter()
            .enumerate()
            .map(|(i, heap)| Heap {
                size_bytes: heap.size,
                device_local: heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL),
                budget_bytes: (has_budget && budget.heap_budget[i] > 0).then_some(budget.heap_budget[i]),
            })
            .collect();
        facts.memory_types = memory
            .memory_types_as_slice()
            .iter()
            .map(|t| MemoryType { flags: t.property_flags, heap: t.heap_index as usize })
            .collect();
    }

    fn ask_properties(&self, facts: &mut Facts) {
        let mut v11 = vk::PhysicalDeviceVulkan11Properties::default();
        let mut v12 = vk::PhysicalDeviceVulkan12Properties::default();
        let mut v13 = vk::PhysicalDeviceVulkan13Properties::default();
        let mut host = vk::PhysicalDeviceExternalMemoryHostPropertiesEXT::default();
        let can_import = facts.has_extension(ash::ext::external_memory_host::NAME);
        let mut all =
            vk::PhysicalDeviceProperties2::default().push_next(&mut v11).push_next(&mut v12).push_next(&mut v13);
        if can_import {
            all = all.push_next(&mut host);
        }
        // SAFETY: the device offers Vulkan 1.3 and each extension whose structure is in the chain.
        unsafe { self.instance.raw.get_physical_device_properties2(self.raw, &mut all) };
        facts.driver_name = text(&v12.driver_name);
        facts.driver_info = text(&v12.driver_info);
        facts.max_allocation_bytes = v11.max_memory_allocation_size;
        facts.max_buffer_bytes = v13.max_buffer_size;
        facts.subgroup_size = v11.subgroup_size;
        facts.min_subgroup_size = v13.min_subgroup_size;
        facts.max_subgroup_size = v13.max_subgroup_size;
        facts.max_workgroup_subgroups = v13.max_compute_workgroup_subgroups;
        facts.can_require_subgroup_size = v13.required_subgroup_size_stages.contains(vk::ShaderStageFlags::COMPUTE);
        facts.dot_4x8_accelerated = Some(v13.integer_dot_product4x8_bit_packed_signed_accelerated == vk::TRUE);
        facts.host_pointer_alignment = can_import.then_some(host.min_imported_host_pointer_alignment);
        let wanted = vk::SubgroupFeatureFlags::BASIC
            | vk::SubgroupFeatureFlags::VOTE
            | vk::SubgroupFeatureFlags::ARITHMETIC
            | vk::SubgroupFeatureFlags::BALLOT
            | vk::SubgroupFeatureFlags::SHUFFLE;
        if !v11.subgroup_supported_operations.contains(wanted)
            || !v11.subgroup_supported_stages.contains(vk::ShaderStageFlags::COMPUTE)
        {
            facts.missing.push("subgroup vote, arithmetic, ballot and shuffle in compute shaders");
        }
        // Kernels size shared arrays by the subgroup's size, so it has to be known before they run.
        if facts.min_subgroup_size != facts.max_subgroup_size && !facts.can_require_subgroup_size {
            facts.missing.push("a choice of the subgroup size in compute shaders");
        }
        if facts.min_subgroup_size.saturating_mul(facts.max_workgroup_subgroups) < FIXED_LANES {
            facts.missing.push("workgroups of 128 in the smallest subgroups");
        }
    }

    fn ask_compute_units(&self, facts: &mut Facts) {
        let mut nvidia = vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV::default();
        let mut amd = vk::PhysicalDeviceShaderCoreProperties2AMD::default();
        let mut all = vk::PhysicalDeviceProperties2::default();
        if facts.has_extension(ash::nv::shader_sm_builtins::NAME) {
            all = all.push_next(&mut nvidia);
        }
        if facts.has_extension(ash::amd::shader_core_properties2::NAME) {
            all = all.push_next(&mut amd);
        }
        // SAFETY: the chain holds only structures whose extensions the device offers.
        unsafe { self.instance.raw.get_physical_device_properties2(self.raw, &mut all) };
        let count = nvidia.shader_sm_count.max(amd.active_compute_unit_count);
        facts.compute_units = (count > 0).then_some(count);
    }

    fn ask_features(&self, facts: &mut Facts) {
        let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
        let mut matrix = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
        let mut all =
            vk::PhysicalDeviceFeatures2::default().push_next(&mut v11).push_next(&mut v12).push_next(&mut v13);
        if facts.has_extension(ash::khr::cooperative_matrix::NAME) {
            all = all.push_next(&mut matrix);
        }
        // SAFETY: the device offers Vulkan 1.3 and each extension whose structure is in the chain.
        unsafe { self.instance.raw.get_physical_device_features2(self.raw, &mut all) };
        let required = [
            ("storageBuffer16BitAccess", v11.storage_buffer16_bit_access),
            ("storageBuffer8BitAccess", v12.storage_buffer8_bit_access),
            ("bufferDeviceAddress", v12.buffer_device_address),
            ("timelineSemaphore", v12.timeline_semaphore),
            ("scalarBlockLayout", v12.scalar_block_layout),
            ("shaderFloat16", v12.shader_float16),
            ("shaderInt8", v12.shader_int8),
            ("synchronization2", v13.synchronization2),
            ("maintenance4", v13.maintenance4),
            ("shaderIntegerDotProduct", v13.shader_integer_dot_product),
            ("subgroupSizeControl", v13.subgroup_size_control),
            ("computeFullSubgroups", v13.compute_full_subgroups),
        ];
        facts.missing.extend(required.iter().filter(|(_, has)| *has == vk::FALSE).map(|(name, _)| *name));
        // With the memory model on, kernels that count across workgroups need its device scope.
        let has_model = v12.vulkan_memory_model == vk::TRUE && v12.vulkan_memory_model_device_scope == vk::TRUE;
        if matrix.cooperative_matrix == vk::FALSE || !has_model {
            facts.matrix_f16.clear();
        }
    }

    fn ask_matrix_shapes(&self, facts: &mut Facts) {
        if !facts.has_extension(ash::khr::cooperative_matrix::NAME) {
            return;
        }
        let calls = ash::khr::cooperative_matrix::Instance::new(&self.instance.entry, &self.instance.raw);
        // SAFETY: the device was listed by the live instance and offers the extension.
        let shapes = unsafe { calls.get_physical_device_cooperative_matrix_properties(self.raw) }.unwrap_or_default();
        let of_subgroup = || shapes.iter().filter(|shape| shape.scope == vk::ScopeKHR::SUBGROUP);
        facts.matrix_f16 = of_subgroup()
            .filter(|s| [s.a_type, s.b_type] == [vk::ComponentTypeKHR::FLOAT16; 2])
            .filter(|s| [s.c_type, s.result_type] == [vk::ComponentTypeKHR::FLOAT32; 2])
            .map(|s| [s.m_size, s.n_size, s.k_size])
            .collect();
        facts.matrix_shapes = of_subgroup()
            .map(|s| {
                let (a, b, c) = (component(s.a_type), component(s.b_type), component(s.result_type));
                format!("{}x{}x{} {a}*{b}->{c}", s.m_size, s.n_size, s.k_size)
            })
            .collect();
    }
}

fn component(kind: vk::ComponentTypeKHR) -> String {
    match kind {
        vk::ComponentTypeKHR::FLOAT16 => "f16".to_owned(),
        vk::ComponentTypeKHR::FLOAT32 => "f32".to_owned(),
        vk::ComponentTypeKHR::FLOAT64 => "f64".to_owned(),
        vk::ComponentTypeKHR::SINT8 => "s8".to_owned(),
        vk::ComponentTypeKHR::UINT8 => "u8".to_owned(),
        vk::ComponentTypeKHR::SINT32 => "s32".to_owned(),
        vk::ComponentTypeKHR::UINT32 => "u32".to_owned(),
        other => format!("type {}", other.as_raw()),
    }
}
