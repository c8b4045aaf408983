//! The logical device: its queue, its allocator, its timeline.

use std::{
    fmt,
    mem::ManuallyDrop,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use ash::vk;
use biga_hal::Counters;

use super::{
    facts::Facts,
    instance::{Instance, PhysicalDevice},
};

/// Bytes of push constants that every kernel may use: what Vulkan 1.3 guarantees.
pub(crate) const PUSH_BYTES: u32 = 128;

/// Counts of what was made, see [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct CounterCells {
    pub(super) submissions: AtomicU64,
    pub(super) objects_created: AtomicU64,
    pub(super) allocations: AtomicU64,
    pub(super) mappings: AtomicU64,
}

impl CounterCells {
    pub(super) fn count(cell: &AtomicU64) {
        cell.fetch_add(1, Ordering::Relaxed);
    }
}

/// The queue with the last value given to its timeline.
pub(super) struct QueueState {
    pub(super) raw: vk::Queue,
    pub(super) last_value: u64,
}

/// An open device. Everything made from it holds an `Arc` of it.
pub(crate) struct LogicalDevice {
    // Fields are destroyed by `Drop` in the order that Vulkan asks for; `instance` goes last.
    pub(super) raw: ash::Device,
    pub(super) allocator: ManuallyDrop<vk_mem::Allocator>,
    pub(super) queue: Mutex<QueueState>,
    pub(super) queue_family: u32,
    pub(super) timeline: vk::Semaphore,
    pub(super) layout: vk::PipelineLayout,
    pub(super) memory_host: Option<ash::ext::external_memory_host::Device>,
    /// Where pipelines keep what the compiler knows of them.
    pub(super) statistics: Option<ash::khr::pipeline_executable_properties::Device>,
    pub(super) facts: Facts,
    pub(super) counters: CounterCells,
    pub(super) _instance: Arc<Instance>,
}

impl fmt::Debug for LogicalDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalDevice").field("name", &self.facts.name).finish_non_exhaustive()
    }
}

/// A failed driver call: its name and its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallError {
    pub(crate) call: &'static str,
    pub(crate) result: vk::Result,
}

/// Result of a driver call.
pub(crate) type CallResult<T> = Result<T, CallError>;

/// Names the call in an error.
pub(super) fn named<T>(call: &'static str, result: Result<T, vk::Result>) -> CallResult<T> {
    result.map_err(|result| CallError { call, result })
}

impl PhysicalDevice {
    /// A family with compute; one without graphics is preferred, so that a display is not held up.
    fn compute_family(&self) -> Option<u32> {
        // SAFETY: the device was listed by the live instance.
        let families = unsafe { self.instance.raw.get_physical_device_queue_family_properties(self.raw) };
        let has = |family: &vk::QueueFamilyProperties, flag| family.queue_flags.contains(flag);
        let compute: Vec<usize> = (0..families.len()).filter(|&i| has(&families[i], vk::QueueFlags::COMPUTE)).collect();
        let dedicated = compute.iter().find(|&&i| !has(&families[i], vk::QueueFlags::GRAPHICS));
        dedicated.or(compute.first()).and_then(|&i| u32::try_from(i).ok())
    }

    /// Valid bits of the time stamps that its compute queue writes.
    pub(super) fn timestamp_bits(&self) -> u32 {
        let Some(family) = self.compute_family() else { return 0 };
        // SAFETY: the device was listed by the live instance.
        let families = unsafe { self.instance.raw.get_physical_device_queue_family_properties(self.raw) };
        families.get(family as usize).map_or(0, |family| family.timestamp_valid_bits)
    }

    /// Opens the device. The caller has checked that `facts.missing` is empty. With `statistics`, pipelines
    /// keep what the compiler knows of them, see [`super::statistics`].
    pub(crate) fn open(&self, facts: Facts, statistics: bool) -> CallResult<Arc<LogicalDevice>> {
        let instance = &self.instance.raw;
        let queue_family = self.compute_family().ok_or(CallError {
            call: "vkGetPhysicalDeviceQueueFamilyProperties",
            result: vk::Result::ERROR_FEATURE_NOT_PRESENT,
        })?;
        let can_import = facts.host_pointer_alignment.is_some();
        let has_budget = facts.has_extension(ash::ext::memory_budget::NAME);
        let mut extensions = Vec::new();
        if can_import {
            extensions.push(ash::ext::external_memory_host::NAME.as_ptr());
        }
        if has_budget {
            extensions.push(ash::ext::memory_budget::NAME.as_ptr());
        }
        // The kernels with matrix instructions are written for the memory model that these ask for.
        let has_matrices = !facts.matrix_f16.is_empty();
        let mut matrix = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
        if has_matrices {
            extensions.push(ash::khr::cooperative_matrix::NAME.as_ptr());
        }
        let mut executable =
            vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(statistics);
        if statistics {
            extensions.push(ash::khr::pipeline_executable_properties::NAME.as_ptr());
        }
        let mut v11 = vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(true);
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default()
            .storage_buffer8_bit_access(true)
            .buffer_device_address(true)
            .timeline_semaphore(true)
            .vulkan_memory_model(has_matrices)
            .vulkan_memory_model_device_scope(has_matrices)
            .scalar_block_layout(true)
            .shader_float16(true)
            .shader_int8(true);
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default()
            .synchronization2(true)
            .maintenance4(true)
            .shader_integer_dot_product(true)
            .subgroup_size_control(true)
            .compute_full_subgroups(true);
        let priorities = [1.0];
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(queue_family).queue_priorities(&priorities)];
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .push_next(&mut v11)
            .push_next(&mut v12)
            .push_next(&mut v13);
        if has_matrices {
            info = info.push_next(&mut matrix);
        }
        if statistics {
            info = info.push_next(&mut executable);
        }
        // SAFETY: the device was listed by the live instance; features and extensions are those that it
        // offers, or the call fails; everything `info` points to lives until the call returns.
        let raw = named("vkCreateDevice", unsafe { instance.create_device(self.raw, &info, None) })?;
        let destroy_on_error = |error| {
            // SAFETY: nothing made from the device is left: this runs only before anything is.
            unsafe { raw.destroy_device(None) };
            error
        };

        let mut allocator = vk_mem::AllocatorCreateInfo::new(instance, &raw, self.raw);
        allocator.vulkan_api_version = vk::API_VERSION_1_3;
        allocator.flags = vk_mem::AllocatorCreateFlags::BUFFER_DEVICE_ADDRESS;
        if has_budget {
            allocator.flags |= vk_mem::AllocatorCreateFlags::EXT_MEMORY_BUDGET;
        }
        // SAFETY: instance and device are alive and outlive the allocator (see `Drop`).
        let allocator =
            named("vmaCreateAllocator", unsafe { vk_mem::Allocator::new(allocator) }).map_err(destroy_on_error)?;
        let memory_host = can_import.then(|| ash::ext::external_memory_host::Device::new(instance, &raw));
        let statistics = statistics.then(|| ash::khr::pipeline_executable_properties::Device::new(instance, &raw));
        // SAFETY: the family and the first queue of it were asked for at creation.
        let queue = unsafe { raw.get_device_queue(queue_family, 0) };
        let mut device = LogicalDevice {
            raw,
            allocator: ManuallyDrop::new(allocator),
            queue: Mutex::new(QueueState { raw: queue, last_value: 0 }),
            queue_family,
            // Null handles are valid to destroy, so that `Drop` is right at every stage of opening.
            timeline: vk::Semaphore::null(),
            layout: vk::PipelineLayout::null(),
            memory_host,
            statistics,
            facts,
            counters: CounterCells::default(),
            _instance: Arc::clone(&self.instance),
        };
        let mut kind =
            vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE).initial_value(0);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device is alive and its timelineSemaphore feature is on.
        device.timeline = named("vkCreateSemaphore", unsafe { device.raw.create_semaphore(&info, None) })?;
        let ranges = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(PUSH_BYTES)];
        let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&ranges);
        // SAFETY: the device is alive; 128 bytes of push constants are guaranteed.
        device.layout = named("vkCreatePipelineLayout", unsafe { device.raw.create_pipeline_layout(&info, None) })?;
        device.counters.objects_created.store(3, Ordering::Relaxed);
        Ok(Arc::new(device))
    }
}

impl LogicalDevice {
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn counters(&self) -> Counters {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Counters {
            submissions: read(&self.counters.submissions),
            objects_created: read(&self.counters.objects_created),
            allocations: read(&self.counters.allocations),
            mappings: read(&self.counters.mappings),
        }
    }

    pub(super) fn queue_state(&self) -> MutexGuard<'_, QueueState> {
        // A poisoned lock only means that another thread panicked between two driver calls; the value
        // inside is still the last one given out.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last value that a submission will signal.
    pub(crate) fn last_submitted(&self) -> u64 {
        self.queue_state().last_value
    }

    /// The last value reached.
    pub(crate) fn reached(&self) -> CallResult<u64> {
        // SAFETY: the timeline lives as long as the device.
        named("vkGetSemaphoreCounterValue", unsafe { self.raw.get_semaphore_counter_value(self.timeline) })
    }

    /// Waits for a value; false if the time ran out.
    pub(crate) fn wait(&self, value: u64, timeout_ns: u64) -> CallResult<bool> {
        let semaphores = [self.timeline];
        let values = [value];
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the timeline lives as long as the device; the arrays live until the call returns.
        match unsafe { self.raw.wait_semaphores(&info, timeout_ns) } {
            Ok(()) => Ok(true),
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => Err(CallError { call: "vkWaitSemaphores", result }),
        }
    }

    /// Waits until nothing submitted before may still touch a buffer. A lost device touches nothing.
    pub(super) fn settle(&self) {
        let last = self.last_submitted();
        if !matches!(self.reached(), Ok(reached) if reached >= last) {
            self.outwait(last);
        }
    }

    /// Waits for a value however long it takes, because what is destroyed next would be taken from under the
    /// device; a driver that runs on the CPU may need minutes for a long prompt. A device that hangs is lost
    /// in the end, which is an error and ends the wait.
    pub(super) fn outwait(&self, value: u64) {
        const REPORT_NS: u64 = 60_000_000_000;
        while let Ok(false) = self.wait(value, REPORT_NS) {
            tracing::warn!(device = self.facts.name, value, "still waiting for work to end before freeing its memory");
        }
    }
}

impl Drop for LogicalDevice {
    fn drop(&mut self) {
        // SAFETY: this is the last `Arc`, so every buffer, pipeline and recording is gone; the queue is
        // idle after the wait (or the device lost, when nothing runs either); the allocator goes before
        // its device and is not used again.
        unsafe {
            let _ = self.raw.device_wait_idle();
            self.raw.destroy_pipeline_layout(self.layout, None);
            self.raw.destroy_semaphore(self.timeline, None);
            ManuallyDrop::drop(&mut self.allocator);
            self.raw.destroy_device(None);
        }
    }
}
