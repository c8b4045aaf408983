//! Resident weights: read in place where the device can, else read once into the device's buffers.

use std::{collections::BTreeMap, sync::Arc};

use biga_hal::{Accessors, BoundWeight, Buffer, BufferDesc, BufferSlice, Device};

use super::reach;
use crate::{
    Result,
    load::{Model, Progress, graph::WeightId},
    plan::Plan,
};

/// Every weight starts at a multiple of this in its buffer.
const ALIGNMENT: u64 = 256;

/// Weights are gathered into buffers of about this size: few allocations, none so large that it fails.
const POOL_BYTES: u64 = 256 << 20;

pub(super) fn load(
    devices: &[Arc<dyn Device>],
    model: &Model,
    plan: &Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<BoundWeight>> {
    let places = places(devices, model, plan)?;
    let total_bytes = model.weights.size_bytes();
    let mut done_bytes = 0;
    let mut bound = Vec::with_capacity(places.len());
    let mut imported: Vec<(usize, Buffer, Buffer)> = Vec::new();
    for (home, place) in plan.weights.iter().zip(places) {
        let device = &*devices[home.device];
        let weight = model.weights.get(home.weight);
        let slice = match place {
            Some(slice) => {
                model.weights.prefetch(home.weight);
                device.load_weight(&weight.shape, weight.dtype, model.weights.bytes(home.weight), &slice)?;
                slice
            }
            None => in_place(device, home.device, &weight.slice, &mut imported)?,
        };
        bound.push(BoundWeight { slice, dtype: weight.dtype, rows: weight.shape.rows, columns: weight.shape.columns });
        done_bytes += weight.slice.size_bytes();
        progress(Progress { done_bytes, total_bytes });
    }
    model.weights.check()?;
    Ok(bound)
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
            let buffer = devices[device].allocate(&desc)?;
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
