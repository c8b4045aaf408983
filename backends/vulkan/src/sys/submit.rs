//! Recordings and their submission.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ash::vk;

use super::{
    device::{CallError, CallResult, CounterCells, LogicalDevice, PUSH_BYTES, named},
    memory::Memory,
    pipeline::Pipeline,
    timing::Queries,
};

/// One thing to record.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// A kernel launch.
    Launch {
        /// The kernel.
        pipeline: Arc<Pipeline>,
        /// Push constants, at most [`PUSH_BYTES`].
        push: Vec<u32>,
        /// Workgroups.
        grid: [u32; 3],
    },
    /// Everything before is finished and visible to everything after.
    Barrier,
    /// Fills a buffer with zeros.
    Zero(Arc<Memory>),
    /// Copies bytes.
    Copy { from: Arc<Memory>, from_offset: u64, to: Arc<Memory>, to_offset: u64, size_bytes: u64 },
}

/// A recorded command buffer that can be submitted any number of times, also while it still runs.
pub(crate) struct Recording {
    device: Arc<LogicalDevice>,
    pool: vk::CommandPool,
    buffer: vk::CommandBuffer,
    last_value: AtomicU64,
    /// Keeps pipelines and memory alive.
    commands: Vec<Command>,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("last_value", &self.last_value).finish_non_exhaustive()
    }
}

const WORK: vk::PipelineStageFlags2 = vk::PipelineStageFlags2::from_raw(
    vk::PipelineStageFlags2::COMPUTE_SHADER.as_raw() | vk::PipelineStageFlags2::ALL_TRANSFER.as_raw(),
);
const WRITES: vk::AccessFlags2 =
    vk::AccessFlags2::from_raw(vk::AccessFlags2::SHADER_WRITE.as_raw() | vk::AccessFlags2::TRANSFER_WRITE.as_raw());
const READS: vk::AccessFlags2 =
    vk::AccessFlags2::from_raw(vk::AccessFlags2::SHADER_READ.as_raw() | vk::AccessFlags2::TRANSFER_READ.as_raw());

impl Recording {
    /// Records the commands between a barrier that makes earlier submissions' writes visible and one
    /// that makes its own visible to the host. (The host's writes are visible by being submitted after.)
    pub(crate) fn new(device: &Arc<LogicalDevice>, commands: Vec<Command>) -> CallResult<Recording> {
        Recording::make(device, commands, None)
    }

    /// The same, with a time stamp before the first launch and after each, the launches one after another.
    pub(super) fn timed(
        device: &Arc<LogicalDevice>,
        commands: Vec<Command>,
        queries: &Queries,
        count: u32,
    ) -> CallResult<Recording> {
        Recording::make(device, commands, Some((queries, count)))
    }

    fn make(
        device: &Arc<LogicalDevice>,
        commands: Vec<Command>,
        queries: Option<(&Queries, u32)>,
    ) -> CallResult<Recording> {
        if let Some(words) = commands.iter().find_map(|command| match command {
            Command::Launch { push, .. } if push.len() * 4 > PUSH_BYTES as usize => Some(push.len()),
            _ => None,
        }) {
            tracing::error!(words, "push constants too long");
            return Err(CallError { call: "vkCmdPushConstants", result: vk::Result::ERROR_UNKNOWN });
        }
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(device.queue_family);
        // SAFETY: the device is alive and has that family.
        let pool = named("vkCreateCommandPool", unsafe { device.raw.create_command_pool(&info, None) })?;
        let mut recording = Recording {
            device: Arc::clone(device),
            pool,
            buffer: vk::CommandBuffer::null(),
            last_value: AtomicU64::new(0),
            commands: Vec::new(),
        };
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .level(vk::CommandBufferLevel::PRIMARY)
            .command_buffer_count(1);
        // SAFETY: the pool was just made from this device.
        let buffers = named("vkAllocateCommandBuffers", unsafe { device.raw.allocate_command_buffers(&info) })?;
        recording.buffer = buffers[0];
        CounterCells::count(&device.counters.objects_created);
        CounterCells::count(&device.counters.objects_created);
        recording.record(&commands, queries)?;
        recording.commands = commands;
        Ok(recording)
    }

    fn record(&self, commands: &[Command], queries: Option<(&Queries, u32)>) -> CallResult<()> {
        let raw = &self.device.raw;
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::SIMULTANEOUS_USE);
        // SAFETY: the buffer is new, so in the initial state.
        named("vkBeginCommandBuffer", unsafe { raw.begin_command_buffer(self.buffer, &begin) })?;
        if let Some((queries, count)) = queries {
            // SAFETY: the buffer is recording, and the pool has `count` queries.
            unsafe { raw.cmd_reset_query_pool(self.buffer, queries.raw, 0, count) };
        }
        self.barrier(WORK, READS | WRITES);
        let mut stamps = 0;
        self.stamp(queries, &mut stamps);
        let mut bound: Option<&Arc<Pipeline>> = None;
        for command in commands {
            // SAFETY: the buffer is recording; pipelines, layout and buffers belong to the same device and
            // are kept by `commands`; push constants fit the layout's range (checked in `new`); offsets
            // and grids were checked by the callers against sizes and limits.
            unsafe {
                match command {
                    Command::Launch { pipeline, push, grid } => {
                        if !bound.is_some_and(|last| Arc::ptr_eq(last, pipeline)) {
                            raw.cmd_bind_pipeline(self.buffer, vk::PipelineBindPoint::COMPUTE, pipeline.raw);
                            bound = Some(pipeline);
                        }
                        let bytes: &[u8] = bytemuck::cast_slice(push);
                        let stage = vk::ShaderStageFlags::COMPUTE;
                        raw.cmd_push_constants(self.buffer, self.device.layout, stage, 0, bytes);
                        raw.cmd_dispatch(self.buffer, grid[0], grid[1], grid[2]);
                        self.stamp(queries, &mut stamps);
                    }
                    Command::Barrier => self.barrier(WORK, READS | WRITES),
                    Command::Zero(memory) => raw.cmd_fill_buffer(self.buffer, memory.raw, 0, vk::WHOLE_SIZE, 0),
                    Command::Copy { from, from_offset, to, to_offset, size_bytes } => {
                        let region =
                            vk::BufferCopy { src_offset: *from_offset, dst_offset: *to_offset, size: *size_bytes };
                        raw.cmd_copy_buffer(self.buffer, from.raw, to.raw, &[region]);
                    }
                }
            }
        }
        self.barrier(vk::PipelineStageFlags2::HOST, vk::AccessFlags2::HOST_READ | vk::AccessFlags2::HOST_WRITE);
        // SAFETY: the buffer is recording.
        named("vkEndCommandBuffer", unsafe { raw.end_command_buffer(self.buffer) })
    }

    /// A time stamp when all work so far is done, which later work waits for.
    fn stamp(&self, queries: Option<(&Queries, u32)>, stamps: &mut u32) {
        let Some((queries, _)) = queries else { return };
        self.barrier(WORK, READS | WRITES);
        // SAFETY: the buffer is recording, synchronization2 is on, and the pool has a query for each launch and one.
        unsafe {
            let stage = vk::PipelineStageFlags2::ALL_COMMANDS;
            self.device.raw.cmd_write_timestamp2(self.buffer, stage, queries.raw, *stamps);
        }
        *stamps += 1;
    }

    pub(super) fn device(&self) -> &Arc<LogicalDevice> {
        &self.device
    }

    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// A barrier from all work so far to `stage` and `access`.
    fn barrier(&self, stage: vk::PipelineStageFlags2, access: vk::AccessFlags2) {
        let barriers = [vk::MemoryBarrier2::default()
            .src_stage_mask(WORK)
            .src_access_mask(WRITES)
            .dst_stage_mask(stage)
            .dst_access_mask(access)];
        let info = vk::DependencyInfo::default().memory_barriers(&barriers);
        // SAFETY: the buffer is recording and synchronization2 is on.
        unsafe { self.device.raw.cmd_pipeline_barrier2(self.buffer, &info) };
    }

    /// True if it was recorded for this device.
    pub(crate) fn belongs_to(&self, device: &Arc<LogicalDevice>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    /// Submits; the device's timeline reaches the returned value when it is done.
    pub(crate) fn submit(&self) -> CallResult<u64> {
        let mut queue = self.device.queue_state();
        let value = queue.last_value + 1;
        let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(self.buffer)];
        let signals = [vk::SemaphoreSubmitInfo::default()
            .semaphore(self.device.timeline)
            .value(value)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)];
        let submits = [vk::SubmitInfo2::default().command_buffer_infos(&buffers).signal_semaphore_infos(&signals)];
        // SAFETY: the queue is locked; buffer and timeline belong to its device; the recording waits for
        // its last value before it is destroyed.
        named("vkQueueSubmit2", unsafe { self.device.raw.queue_submit2(queue.raw, &submits, vk::Fence::null()) })?;
        queue.last_value = value;
        self.last_value.store(value, Ordering::Release);
        CounterCells::count(&self.device.counters.submissions);
        Ok(value)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let last = self.last_value.load(Ordering::Acquire);
        if last > 0 {
            self.device.outwait(last);
        }
        // SAFETY: the last submission has finished, or the device is lost; the pool frees its buffer.
        unsafe { self.device.raw.destroy_command_pool(self.pool, None) };
    }
}
