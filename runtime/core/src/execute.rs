//! Execute: one step of the engine. A step is a ragged list of (sequence, tokens, rows that want
//! logits); prefill, decode, mixed batches and verification of drafts are values of it.
//!
//! In steady state a step allocates nothing, creates nothing and maps nothing: it writes one small
//! buffer per device, submits recorded segments, waits once, and reads the logits.

mod batch;
mod decode;
mod profile;
mod stats;

use std::sync::Arc;

use biga_hal::{BufferSlice, FencePoint, STEP_TIMEOUT, StepLayout};

use crate::{Engine, Error, Result};

pub use biga_kv::SlotId as SequenceId;
pub use decode::{DecodeItem, SampledOn};
pub use profile::LaunchTime;
pub use stats::{FallbackCount, Stats};

/// Which rows of an item want logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: the middle of a prompt.
    None,
    /// The last token's: prefill's end, decode.
    Last,
    /// Every token's: perplexity, verification of drafts.
    All,
}

/// New tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct StepItem<'a> {
    /// The sequence, at whose end they are appended.
    pub sequence: SequenceId,
    /// The tokens.
    pub tokens: &'a [u32],
    /// Which of them want logits.
    pub wanted: Wanted,
}

/// The logits of a step, in the order of its items.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    rows: &'a [f32],
    vocab: usize,
}

impl<'a> Logits<'a> {
    /// Count of rows.
    pub fn len(&self) -> usize {
        self.rows.len() / self.vocab
    }

    /// True if no row was wanted.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One row, `[vocab]`.
    ///
    /// # Panics
    /// If `index` is not below [`Logits::len`].
    pub fn row(&self, index: usize) -> &'a [f32] {
        &self.rows[index * self.vocab..][..self.vocab]
    }

    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = &'a [f32]> {
        self.rows.chunks_exact(self.vocab)
    }
}

/// What steps reuse.
#[derive(Debug)]
pub(crate) struct StepState {
    pub(crate) layout: StepLayout,
    /// By device; `None` for one that runs nothing.
    pub(crate) buffers: Vec<Option<BufferSlice>>,
    /// Results rings by device; `None` for one that runs nothing.
    rings: Vec<Option<BufferSlice>>,
    /// Of the next step that samples.
    number: u32,
    /// One step's results: as stored, and their tokens.
    results: Vec<u8>,
    tokens: Vec<u32>,
    /// The part of the step buffer before the block tables, the same on every device.
    image: Vec<u8>,
    /// `[max_outputs, vocab]`
    logits: Vec<f32>,
    vocab: usize,
    /// By device: its last submission that nobody has waited for yet. Empty between steps, except after a
    /// step that failed.
    points: Vec<Option<FencePoint>>,
    waits: Vec<FencePoint>,
    staging: Vec<u8>,
    /// By phase of the plan.
    n_steps: Vec<u64>,
}

impl StepState {
    pub(crate) fn new(
        layout: StepLayout,
        (buffers, rings): (Vec<Option<BufferSlice>>, Vec<Option<BufferSlice>>),
        n_devices: usize,
        n_phases: usize,
        vocab: usize,
        copy_bytes: usize,
    ) -> Result<StepState> {
        let n_logits = layout.limits.max_outputs.checked_mul(vocab).filter(|n| n.checked_mul(4).is_some());
        let n_logits = n_logits.ok_or_else(|| Error::Invalid("logits of all outputs overflow".to_owned()))?;
        Ok(StepState {
            image: vec![0; layout.tables],
            results: vec![0; layout.result_bytes()],
            tokens: Vec::with_capacity(layout.limits.max_outputs),
            layout,
            buffers,
            rings,
            // A ring begins as zeros, which are the results of no step.
            number: 1,
            logits: vec![0.0; n_logits],
            vocab,
            points: vec![None; n_devices],
            waits: Vec::with_capacity(n_devices),
            staging: vec![0; copy_bytes],
            n_steps: vec![0; n_phases],
        })
    }
}

impl Engine {
    /// Starts an empty sequence.
    ///
    /// # Errors
    /// [`biga_kv::KvError::NoSlot`] if as many as planned for are in use.
    pub fn open_sequence(&mut self) -> Result<SequenceId> {
        Ok(self.kv.open()?)
    }

    /// Ends a sequence.
    ///
    /// # Errors
    /// If it is not in use.
    pub fn close_sequence(&mut self, sequence: SequenceId) -> Result<()> {
        Ok(self.kv.close(sequence)?)
    }

    /// Tokens of a sequence so far.
    ///
    /// # Errors
    /// If it is not in use.
    pub fn sequence_len(&self, sequence: SequenceId) -> Result<usize> {
        Ok(self.kv.len(sequence)?)
    }

    /// Forgets the tokens of a sequence from `len` on.
    ///
    /// # Errors
    /// If it is shorter, or its sliding windows have moved too far.
    pub fn truncate(&mut self, sequence: SequenceId, len: usize) -> Result<()> {
        Ok(self.kv.truncate(sequence, len)?)
    }

    /// Runs one step and returns the logits that its items want. On an error the sequences are as before.
    ///
    /// # Errors
    /// A bound of the plan, a full KV cache, a lost device, a model file that changed under its mapping.
    pub fn step(&mut self, items: &[StepItem<'_>]) -> Result<Logits<'_>> {
        let size = batch::check(items, &self.plan.limits, self.step.vocab)?;
        let phase = self.choose_phase(size)?;
        // What a failed step left running still reads and writes what this one is about to change.
        settle(&mut self.step.points)?;
        for (done, item) in items.iter().enumerate() {
            if let Err(error) = self.append(item) {
                self.roll_back(&items[..done]);
                return Err(error);
            }
        }
        match self.run(items, size, phase) {
            Ok(()) => Ok(Logits { rows: &self.step.logits[..size.outputs * self.step.vocab], vocab: self.step.vocab }),
            Err(error) => {
                self.roll_back(items);
                Err(error)
            }
        }
    }

    fn choose_phase(&self, size: batch::Size) -> Result<usize> {
        let buckets = self.phases.iter().map(|phase| (phase.phase, phase.bucket));
        size.smallest_of(buckets).ok_or(Error::Limit {
            what: "rows in one step",
            asked: size.tokens,
            most: self.plan.limits.max_tokens,
        })
    }

    /// Makes room in the KV cache and writes new block addresses where each device looks for them. On an
    /// error the sequence is as before.
    fn append(&mut self, item: &StepItem<'_>) -> Result<()> {
        let mut failed = Ok(());
        let Engine { kv, kv_memory, devices, step, .. } = self;
        kv.append(item.sequence, item.tokens.len(), |entry| {
            for (index, device) in devices.iter().enumerate() {
                let Some(buffer) = &step.buffers[index] else { continue };
                let Some(address) = kv_memory.address(index, entry.group, entry.block) else { continue };
                let offset = step.layout.table_row(entry.group, entry.slot.0) + entry.column * 8;
                let written =
                    buffer.slice(offset as u64, 8).and_then(|slice| device.write(&slice, &address.to_le_bytes()));
                if failed.is_ok() {
                    failed = written;
                }
            }
        })?;
        if failed.is_err() {
            // The cache has the item already, and an address that no device was told of must not stay in it.
            self.roll_back(std::slice::from_ref(item));
        }
        Ok(failed?)
    }

    fn roll_back(&mut self, items: &[StepItem<'_>]) {
        for item in items.iter().rev() {
            let len = self.kv.len(item.sequence).unwrap_or(0).saturating_sub(item.tokens.len());
            // A sequence that cannot go back is useless; closing it is what its owner would do.
            if self.kv.truncate(item.sequence, len).is_err() {
                let _ = self.kv.close(item.sequence);
            }
        }
    }

    fn run(&mut self, items: &[StepItem<'_>], size: batch::Size, phase: usize) -> Result<()> {
        let Engine { kv, step, devices, phases, model, .. } = self;
        batch::write_image(&mut step.image, &step.layout, 0, items, |sequence| kv.len(sequence));
        let compiled = &phases[phase];
        for (device, buffer) in devices.iter().zip(&step.buffers) {
            let Some(buffer) = buffer else { continue };
            device.write(&buffer.slice(0, step.image.len() as u64)?, &step.image)?;
        }
        for segment in &compiled.segments {
            for copy in &segment.copies {
                wait(&step.points[copy.maker])?;
                let bytes = &mut step.staging[..copy.source.size_bytes() as usize];
                devices[copy.from].read(&copy.source, bytes)?;
                wait(&step.points[copy.to])?;
                devices[copy.to].write(&copy.destination, bytes)?;
            }
            step.waits.clear();
            let others = step.points.iter().enumerate().filter(|(device, _)| *device != segment.device);
            step.waits.extend(others.filter_map(|(_, point)| point.clone()));
            let point = devices[segment.device].submit(&*segment.executable, &step.waits)?;
            step.points[segment.device] = Some(point);
        }
        settle(&mut step.points)?;
        if size.outputs > 0 {
            let rows = &mut step.logits[..size.outputs * step.vocab];
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(rows);
            devices[compiled.logits_device].read(&compiled.logits.slice(0, bytes.len() as u64)?, bytes)?;
        }
        step.n_steps[phase] += 1;
        Ok(model.weights.check_lost()?)
    }

    /// What ran so far.
    pub fn stats(&self) -> Stats {
        stats::collect(&self.plan, &self.devices, &self.step.n_steps)
    }

    /// The devices of the plan, in its order.
    pub fn devices(&self) -> &[Arc<dyn biga_hal::Device>] {
        &self.devices
    }
}

/// Waits for every submission and forgets those that are over.
fn settle(points: &mut [Option<FencePoint>]) -> Result<()> {
    for point in points {
        wait(point)?;
        *point = None;
    }
    Ok(())
}

fn wait(point: &Option<FencePoint>) -> Result<()> {
    match point {
        Some(point) => Ok(point.wait(STEP_TIMEOUT)?),
        None => Ok(()),
    }
}
