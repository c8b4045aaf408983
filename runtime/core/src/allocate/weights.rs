//! Resident weights: read in place where the device can, else read once into the device's buffers.
//!
//! Weights that are read are cut into parts, which several threads load at the same time, in the order of the
//! file. Nothing but pages of the file and what a device holds of one part is in host memory meanwhile.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Instant,
};

use biga_hal::{Accessors, BoundWeight, Buffer, BufferDesc, BufferSlice, Device, LOADED_ROWS};

use super::reach;
use crate::{
    Result,
    load::{
        Model, Progress,
        graph::WeightId,
        weights::{Weight, Weights},
    },
    plan::Plan,
};

/// Every weight starts at a multiple of this in its buffer.
const ALIGNMENT: u64 = 256;

/// Weights are gathered into buffers of about this size: few allocations, none so large that it fails.
const POOL_BYTES: u64 = 256 << 20;

/// Bytes of the file in a part, about: long enough for a device's copies, short enough that threads end together.
const PART_BYTES: usize = 4 << 20;

/// Loads the weights and runs `meanwhile`, which may use their places but not their bytes. Progress grows and
/// ends at the total.
///
/// # Errors
/// The first of a device or the file, which ends all threads; else that of `meanwhile`.
pub(super) fn load<T: Send>(
    devices: &[Arc<dyn Device>],
    model: &Model,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
    meanwhile: impl FnOnce(&[BoundWeight]) -> Result<T> + Send,
) -> Result<(Vec<BoundWeight>, T)> {
    let start = Instant::now();
    let weights = &model.weights;
    let places = places(devices, model, plan)?;
    let total_bytes = weights.size_bytes();
    let mut bound = Vec::with_capacity(places.len());
    let mut parts = Vec::new();
    let mut imported: Vec<(usize, Buffer, Buffer)> = Vec::new();
    for (home, place) in plan.weights.iter().zip(places) {
        let device = &*devices[home.device];
        let weight = weights.get(home.weight);
        let slice = match place {
            Some(slice) => {
                parts.extend(Part::all_of(device, home.weight, weight, &slice));
                slice
            }
            None => in_place(device, home.device, &weight.slice, &mut imported)?,
        };
        bound.push(BoundWeight { slice, dtype: weight.dtype, rows: weight.shape.rows, columns: weight.shape.columns });
    }
    parts.sort_by_key(|part| part.source(weights).as_ptr().addr());
    let to_load: usize = parts.iter().map(|part| part.bytes.len()).sum();
    let mut done_bytes = total_bytes.saturating_sub(to_load as u64);
    progress(Progress { done_bytes, total_bytes });
    let allocated = start.elapsed();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let loading = Loading { weights, parts, next: AtomicUsize::new(0), stop: AtomicBool::new(false) };
    let n_threads = cores.min(loading.parts.len());
    let first_error = Mutex::new(None);
    let other = thread::scope(|scope| {
        let (sender, loaded) = mpsc::channel();
        for _ in 0..n_threads {
            let (sender, loading, first_error) = (sender.clone(), &loading, &first_error);
            scope.spawn(move || {
                if let Err(error) = loading.run(n_threads, &sender) {
                    loading.stop.store(true, Ordering::Relaxed);
                    first_error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            });
        }
        drop(sender);
        let other = scope.spawn(|| meanwhile(&bound).inspect_err(|_| loading.stop.store(true, Ordering::Relaxed)));
        for bytes in loaded {
            done_bytes += bytes as u64;
            progress(Progress { done_bytes, total_bytes });
        }
        let (seconds, allocation_s) = (start.elapsed().as_secs_f64(), allocated.as_secs_f64());
        tracing::info!(bytes = to_load, n_threads, seconds, allocation_s, "weights loaded");
        other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if let Some(error) = first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    weights.check()?;
    Ok((bound, other?))
}

/// Rows of a weight that a thread loads at once.
struct Part<'a> {
    device: &'a dyn Device,
    id: WeightId,
    rows: Range<usize>,
    /// Of the weight's bytes in the file.
    bytes: Range<usize>,
    /// Of the whole weight.
    destination: BufferSlice,
}

impl<'a> Part<'a> {
    fn all_of(device: &'a dyn Device, id: WeightId, weight: &Weight, place: &BufferSlice) -> Vec<Part<'a>> {
        let (rows, size_bytes) = (weight.shape.rows, weight.slice.size_bytes() as usize);
        let row_bytes = size_bytes / rows.max(1);
        let step = (PART_BYTES / row_bytes.max(1) / LOADED_ROWS).max(1) * LOADED_ROWS;
        let part = |first: usize| {
            let rows = first..rows.min(first + step);
            let bytes = rows.start * row_bytes..rows.end * row_bytes;
            Part { device, id, rows, bytes, destination: place.clone() }
        };
        (0..rows).step_by(step).map(part).collect()
    }

    fn source<'w>(&self, weights: &'w Weights) -> &'w [u8] {
        &weights.bytes(self.id)[self.bytes.clone()]
    }
}

/// What the threads share.
struct Loading<'a> {
    weights: &'a Weights,
    /// In the order of the file.
    parts: Vec<Part<'a>>,
    next: AtomicUsize,
    /// Set by the first that fails.
    stop: AtomicBool,
}

impl Loading<'_> {
    /// Loads parts until none is left. The kernel is asked for as many further parts as there are threads.
    fn run(&self, n_threads: usize, loaded: &Sender<usize>) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = self.parts.get(index) else { break };
            if let Some(ahead) = self.parts.get(index + n_threads) {
                self.weights.prefetch(ahead.id, &ahead.bytes);
            }
            let weight = self.weights.get(part.id);
            let source = part.source(self.weights);
            part.device.load_rows(&weight.shape, weight.dtype, part.rows.clone(), source, &part.destination)?;
            self.weights.release(part.id, &part.bytes);
            self.weights.check_lost()?;
            // The receiver outlives the threads.
            let _ = loaded.send(part.bytes.len());
        }
        Ok(())
    }
}

/// The file's own bytes as the device reaches them. A file is imported once.
fn in_place(
    device: &dyn Device,
    index: usize,
    slice: &BufferSlice,
    imported: &mut Vec<(usize, Buffer, Buffer)>,
) -> Result<BufferSlice> {
    let known = imported.iter().find(|(owner, file, _)| *owner == index && file.same_memory(slice.buffer()));
    let buffer = match known {
        Some((_, _, buffer)) => buffer.clone(),
        None => {
            let buffer = reach(device, slice.buffer())?;
            imported.push((index, slice.buffer().clone(), buffer.clone()));
            buffer
        }
    };
    Ok(buffer.slice(slice.offset(), slice.size_bytes())?)
}

/// A place in a device's buffer for each weight that is not read in place.
fn places(devices: &[Arc<dyn Device>], model: &Model, plan: &Plan) -> Result<Vec<Option<BufferSlice>>> {
    let mut pools: BTreeMap<usize, Vec<Pool>> = BTreeMap::new();
    for home in &plan.weights {
        let device = &*devices[home.device];
        if device.reads_weights_in_place() {
            continue;
        }
        let weight = model.weights.get(home.weight);
        let size_bytes = device.weight_size_bytes(&weight.shape, weight.dtype);
        let pool_bytes = device.info().max_allocation_bytes.min(POOL_BYTES);
        let pools = pools.entry(home.device).or_default();
        match pools.last_mut().filter(|pool| pool.end() + size_bytes <= pool_bytes) {
            Some(pool) => pool.add(home.weight, size_bytes),
            None => {
                pools.push(Pool::default());
                if let Some(pool) = pools.last_mut() {
                    pool.add(home.weight, size_bytes);
                }
            }
        }
    }
    let mut places = vec![None; plan.weights.len()];
    for (device, pools) in pools {
        for (number, pool) in pools.iter().enumerate() {
            let name = format!("weights {number}");
            let desc = BufferDesc { name, size_bytes: pool.end(), accessors: Accessors::default() };
            let buffer = devices[device].allocate_unwritten(&desc)?;
            for &(weight, offset, size_bytes) in &pool.members {
                places[weight.0] = Some(buffer.slice(offset, size_bytes)?);
            }
        }
    }
    Ok(places)
}

#[derive(Default)]
struct Pool {
    /// Weight, offset, size.
    members: Vec<(WeightId, u64, u64)>,
}

impl Pool {
    fn end(&self) -> u64 {
        self.members.last().map_or(0, |&(_, offset, size)| (offset + size).next_multiple_of(ALIGNMENT))
    }

    fn add(&mut self, weight: WeightId, size_bytes: u64) {
        self.members.push((weight, self.end(), size_bytes));
    }
}
