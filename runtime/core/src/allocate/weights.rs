//! Resident weights: read in place where the device can, else read once into the device's buffers.
//!
//! Weights that are read are cut into parts, which every core loads, in the order of the file and as soon as
//! their buffer is there. Nothing but pages of the file and what a device holds of its copies is in host memory
//! meanwhile.

mod parts;

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use biga_hal::{Accessors, BoundWeight, Buffer, BufferDesc, BufferSlice, Device};

use super::reach;
use crate::{
    Error, Result,
    load::{Model, Progress, graph::WeightId},
    plan::Plan,
};
use parts::{Part, Queue};

/// Every weight starts at a multiple of this in its buffer.
const ALIGNMENT: u64 = 256;

/// Weights are gathered into buffers of about this size: few allocations, none so large that it fails.
const POOL_BYTES: u64 = 256 << 20;

/// Loads the weights; once it is known where each will lie, `meanwhile` runs, which may not use their bytes.
/// Progress grows and ends at the total.
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
    let mut places = in_place(devices, model, plan)?;
    let total_bytes = model.weights.size_bytes();
    let to_load = plan.weights.iter().zip(&places).filter(|(_, place)| place.is_none());
    let to_load: u64 = to_load.map(|(home, _)| model.weights.get(home.weight).slice.size_bytes()).sum();
    let mut done = Progress { done_bytes: total_bytes - to_load, total_bytes };
    progress(done);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let n_threads = if to_load > 0 { cores } else { 0 };
    let queue = Queue::default();
    let made: Result<_> = thread::scope(|scope| {
        let feeder = queue.feeder();
        let (sender, loaded) = mpsc::channel();
        for _ in 0..n_threads {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || queue.work(n_threads, &model.weights, &sender));
        }
        drop(sender);
        let mut tell = |bytes: usize| {
            done.done_bytes += bytes as u64;
            progress(done);
        };
        let filled = pools(devices, model, plan).try_for_each(|pool| {
            loaded.try_iter().for_each(&mut tell);
            feeder.push(pool.allocate(&*devices[pool.device], model, &mut places)?);
            Ok(())
        });
        let bound = filled.and_then(|()| bind(model, plan, places)).inspect_err(|_| queue.stop())?;
        drop(feeder);
        let allocation_s = start.elapsed().as_secs_f64();
        let stop = &queue;
        let other = scope.spawn(move || {
            let other = meanwhile(&bound).inspect_err(|_| stop.stop());
            (bound, other)
        });
        loaded.iter().for_each(tell);
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(bytes = to_load, n_threads, seconds, allocation_s, "weights loaded");
        Ok(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    if let Some(error) = queue.into_error() {
        return Err(error);
    }
    let (bound, other) = made?;
    model.weights.check()?;
    Ok((bound, other?))
}

/// The weights that devices read where they lie in host memory; others are `None`. A file is imported once.
fn in_place(devices: &[Arc<dyn Device>], model: &Model, plan: &Plan) -> Result<Vec<Option<BufferSlice>>> {
    let mut imported: Vec<(usize, Buffer, Buffer)> = Vec::new();
    let mut places = Vec::with_capacity(plan.weights.len());
    for home in &plan.weights {
        let (device, slice) = (&*devices[home.device], &model.weights.get(home.weight).slice);
        if !device.reads_weights_in_place() {
            places.push(None);
            continue;
        }
        let file = slice.buffer();
        let known = imported.iter().find(|(owner, known, _)| *owner == home.device && known.same_memory(file));
        let buffer = match known {
            Some((_, _, buffer)) => buffer.clone(),
            None => {
                let buffer = reach(device, file)?;
                imported.push((home.device, file.clone(), buffer.clone()));
                buffer
            }
        };
        places.push(Some(buffer.slice(slice.offset(), slice.size_bytes())?));
    }
    Ok(places)
}

fn bind(model: &Model, plan: &Plan, places: Vec<Option<BufferSlice>>) -> Result<Vec<BoundWeight>> {
    let bound = plan.weights.iter().zip(places).map(|(home, place)| {
        let weight = model.weights.get(home.weight);
        let slice = place.ok_or_else(|| Error::Invalid(format!("plan: weight {} has no place", weight.name)))?;
        Ok(BoundWeight { slice, dtype: weight.dtype, rows: weight.shape.rows, columns: weight.shape.columns })
    });
    bound.collect()
}

/// Weights that share a buffer.
struct Pool {
    device: usize,
    number: usize,
    /// Weight, offset, size.
    members: Vec<(WeightId, u64, u64)>,
}

/// The buffers of the weights that are not read in place.
fn pools(devices: &[Arc<dyn Device>], model: &Model, plan: &Plan) -> impl Iterator<Item = Pool> {
    let mut pools: Vec<Pool> = Vec::new();
    for home in plan.weights.iter().filter(|home| !devices[home.device].reads_weights_in_place()) {
        let device = &*devices[home.device];
        let weight = model.weights.get(home.weight);
        let size_bytes = device.weight_size_bytes(&weight.shape, weight.dtype);
        let most_bytes = device.info().max_allocation_bytes.min(POOL_BYTES);
        let of_device = || pools.iter().filter(|pool| pool.device == home.device);
        let number = of_device().count();
        let last = pools.iter_mut().rev().find(|pool| pool.device == home.device);
        match last.filter(|pool| pool.end() + size_bytes <= most_bytes) {
            Some(pool) => pool.add(home.weight, size_bytes),
            None => pools.push(Pool { device: home.device, number, members: vec![(home.weight, 0, size_bytes)] }),
        }
    }
    pools.into_iter()
}

impl Pool {
    fn end(&self) -> u64 {
        self.members.last().map_or(0, |&(_, offset, size)| (offset + size).next_multiple_of(ALIGNMENT))
    }

    fn add(&mut self, weight: WeightId, size_bytes: u64) {
        self.members.push((weight, self.end(), size_bytes));
    }

    /// Takes the memory, notes where each weight lies, and returns what is to be loaded, in the order of the file.
    fn allocate<'a>(
        &self,
        device: &'a dyn Device,
        model: &Model,
        places: &mut [Option<BufferSlice>],
    ) -> Result<Vec<Part<'a>>> {
        let name = format!("weights {}", self.number);
        let desc = BufferDesc { name, size_bytes: self.end(), accessors: Accessors::default() };
        let buffer = device.allocate_unwritten(&desc)?;
        let mut members = self.members.clone();
        members.sort_by_key(|&(id, _, _)| model.weights.bytes(id).as_ptr().addr());
        let mut parts = Vec::new();
        for (id, offset, size_bytes) in members {
            let place = buffer.slice(offset, size_bytes)?;
            parts.extend(Part::of(device, id, model.weights.get(id), &place));
            places[id.0] = Some(place);
        }
        Ok(parts)
    }
}
