//! Wrong on purpose: what a validation layer must report if it is at work. `cargo xtask test` runs this
//! under the layers before it trusts their silence. Nothing here harms a driver that does not check.
//!
//! Each test runs only if `BIGA_TEST_MISUSE` is set: without layers there is nothing to see.

use std::{env, ffi::CStr};

use ash::vk;

/// An instance and a device of the first driver, made for one misuse and destroyed after it.
struct Bed {
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    device: ash::Device,
    queue: vk::Queue,
    _entry: ash::Entry,
}

impl Bed {
    /// `None`, with the reason printed, if no misuse is asked for.
    fn new() -> Option<Bed> {
        if env::var_os("BIGA_TEST_MISUSE").is_none() {
            println!("skipped: BIGA_TEST_MISUSE is not set");
            return None;
        }
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        let priorities = [1.0];
        let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&priorities)];
        let mut v11 = vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(true);
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default()
            .buffer_device_address(true)
            .storage_buffer8_bit_access(true)
            .scalar_block_layout(true)
            .shader_float16(true)
            .shader_int8(true);
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default().maintenance4(true);
        let device_info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .push_next(&mut v11)
            .push_next(&mut v12)
            .push_next(&mut v13);
        // SAFETY: the loader is a Vulkan loader, the structures live until the calls return, and the features
        // are those that this project asks of every device.
        unsafe {
            let entry = ash::Entry::load().unwrap();
            let instance = entry.create_instance(&info, None).unwrap();
            let physical = instance.enumerate_physical_devices().unwrap()[0];
            let device = instance.create_device(physical, &device_info, None).unwrap();
            let queue = device.get_device_queue(0, 0);
            Some(Bed { instance, physical, device, queue, _entry: entry })
        }
    }

    /// A buffer of `size_bytes` at the start of twice that memory, whose first type the host sees on lavapipe.
    fn buffer(&self, size_bytes: u64) -> (vk::Buffer, vk::DeviceMemory) {
        let usage = vk::BufferUsageFlags::TRANSFER_DST | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        let info = vk::BufferCreateInfo::default().size(size_bytes).usage(usage);
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        // SAFETY: the device is alive; the memory is of a type that the buffer may have and large enough.
        unsafe {
            let buffer = self.device.create_buffer(&info, None).unwrap();
            let needs = self.device.get_buffer_memory_requirements(buffer);
            let memory = vk::MemoryAllocateInfo::default()
                .allocation_size(2 * needs.size)
                .memory_type_index(needs.memory_type_bits.trailing_zeros())
                .push_next(&mut flags);
            let memory = self.device.allocate_memory(&memory, None).unwrap();
            self.device.bind_buffer_memory(buffer, memory, 0).unwrap();
            (buffer, memory)
        }
    }

    fn address(&self, buffer: vk::Buffer) -> u64 {
        let info = vk::BufferDeviceAddressInfo::default().buffer(buffer);
        // SAFETY: the buffer is alive and bound.
        unsafe { self.device.get_buffer_device_address(&info) }
    }

    /// Records, submits and waits.
    fn submit(&self, record: impl FnOnce(vk::CommandBuffer)) {
        // SAFETY: everything belongs to the live device; the pool goes when its buffer has run.
        unsafe {
            let pool = self.device.create_command_pool(&vk::CommandPoolCreateInfo::default(), None).unwrap();
            let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
            let commands = self.device.allocate_command_buffers(&info).unwrap();
            self.device.begin_command_buffer(commands[0], &vk::CommandBufferBeginInfo::default()).unwrap();
            record(commands[0]);
            self.device.end_command_buffer(commands[0]).unwrap();
            let submits = [vk::SubmitInfo::default().command_buffers(&commands)];
            self.device.queue_submit(self.queue, &submits, vk::Fence::null()).unwrap();
            self.device.queue_wait_idle(self.queue).unwrap();
            self.device.destroy_command_pool(pool, None);
        }
    }

    fn destroy(&self, (buffer, memory): (vk::Buffer, vk::DeviceMemory)) {
        // SAFETY: the queue is idle after `submit`, and neither is used again.
        unsafe {
            self.device.destroy_buffer(buffer, None);
            self.device.free_memory(memory, None);
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // SAFETY: everything made from them is destroyed.
        unsafe {
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// For core validation.
#[test]
fn a_limit_is_passed() {
    let Some(bed) = Bed::new() else { return };
    // SAFETY: the device is alive; the size that passes its limit makes the layer speak and nothing else, as
    // no memory is bound.
    unsafe {
        let limits = bed.instance.get_physical_device_properties(bed.physical).limits;
        let ranges = [vk::PushConstantRange::default()
            .stage_flags(vk::ShaderStageFlags::COMPUTE)
            .size(limits.max_push_constants_size + 4)];
        let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&ranges);
        if let Ok(layout) = bed.device.create_pipeline_layout(&info, None) {
            bed.device.destroy_pipeline_layout(layout, None);
        }
    }
}

/// For synchronisation validation.
#[test]
fn two_fills_have_no_barrier_between() {
    let Some(bed) = Bed::new() else { return };
    let buffer = bed.buffer(4096);
    // SAFETY: the command buffer is recording and the range lies in the buffer.
    bed.submit(|commands| unsafe {
        bed.device.cmd_fill_buffer(commands, buffer.0, 0, 4096, 1);
        bed.device.cmd_fill_buffer(commands, buffer.0, 0, 4096, 2);
    });
    bed.destroy(buffer);
}

/// For GPU-assisted validation.
#[test]
fn a_kernel_reads_behind_a_buffer() {
    let Some(bed) = Bed::new() else { return };
    let (from, to) = (bed.buffer(4096), bed.buffer(4096));
    let spirv = biga_shaders::Kernel::ReadBandwidth.spirv().unwrap();
    // As many 16 bytes as are in the memory, twice what is in the buffer.
    let quads: u64 = 2 * 4096 / 16;
    let words: Vec<u8> = [bed.address(from.0), bed.address(to.0), quads].iter().flat_map(|x| x.to_le_bytes()).collect();
    const ENTRY: &CStr = c"main";
    let entries = [0, 1].map(|id| vk::SpecializationMapEntry { constant_id: id, offset: 4 * id, size: 4 });
    let constants: Vec<u8> = [64_u32, 8].iter().flat_map(|x| x.to_le_bytes()).collect();
    let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&constants);
    let ranges = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(24)];
    let layout_info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&ranges);
    // SAFETY: all objects belong to the live device and are destroyed after the queue is idle; the kernel reads
    // behind the buffer, but inside the memory that it is bound to.
    unsafe {
        let layout = bed.device.create_pipeline_layout(&layout_info, None).unwrap();
        let module = vk::ShaderModuleCreateInfo::default().code(spirv);
        let module = bed.device.create_shader_module(&module, None).unwrap();
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(ENTRY)
            .specialization_info(&specialization);
        let infos = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
        let pipelines = bed.device.create_compute_pipelines(vk::PipelineCache::null(), &infos, None).unwrap();
        bed.submit(|commands| {
            bed.device.cmd_bind_pipeline(commands, vk::PipelineBindPoint::COMPUTE, pipelines[0]);
            bed.device.cmd_push_constants(commands, layout, vk::ShaderStageFlags::COMPUTE, 0, &words);
            bed.device.cmd_dispatch(commands, 1, 1, 1);
        });
        bed.device.destroy_pipeline(pipelines[0], None);
        bed.device.destroy_shader_module(module, None);
        bed.device.destroy_pipeline_layout(layout, None);
    }
    bed.destroy(from);
    bed.destroy(to);
}
