//! What threads load: rows of weights, handed out in the order in which their places become known.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc::Sender},
};

use biga_hal::{BufferSlice, Device, LOADED_ROWS};

use crate::{
    Error, Result,
    load::{
        graph::WeightId,
        weights::{Weight, Weights},
    },
};

/// Bytes of the file in a part, about: long enough for a device's copies, short enough that threads end together.
const PART_BYTES: usize = 4 << 20;

/// Rows of a weight that a thread loads at once.
pub(super) struct Part<'a> {
    device: &'a dyn Device,
    id: WeightId,
    rows: Range<usize>,
    /// Of the weight's bytes in the file.
    bytes: Range<usize>,
    /// Of the whole weight.
    destination: BufferSlice,
}

impl<'a> Part<'a> {
    /// All parts of a weight.
    pub(super) fn of(device: &'a dyn Device, id: WeightId, weight: &Weight, place: &BufferSlice) -> Vec<Part<'a>> {
        let row_bytes = weight.slice.size_bytes() as usize / weight.shape.rows.max(1);
        let part = |rows: Range<usize>| {
            let bytes = rows.start * row_bytes..rows.end * row_bytes;
            Part { device, id, rows, bytes, destination: place.clone() }
        };
        cut(weight.shape.rows, row_bytes).map(part).collect()
    }

    fn load(&self, weights: &Weights) -> Result<()> {
        let weight = weights.get(self.id);
        let source = &weights.bytes(self.id)[self.bytes.clone()];
        self.device.load_rows(&weight.shape, weight.dtype, self.rows.clone(), source, &self.destination)?;
        weights.release(self.id, &self.bytes);
        Ok(weights.check_lost()?)
    }
}

/// Rows in parts of about [`PART_BYTES`], as devices take them.
fn cut(rows: usize, row_bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let step = (PART_BYTES / row_bytes.max(1) / LOADED_ROWS).max(1) * LOADED_ROWS;
    (0..rows).step_by(step).map(move |first| first..rows.min(first + step))
}

/// Parts to be loaded, and the error that ends it.
#[derive(Default)]
pub(super) struct Queue<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<'a> {
    parts: VecDeque<Part<'a>>,
    /// Nothing comes any more.
    closed: bool,
    /// The first.
    error: Option<Error>,
}

impl<'a> Queue<'a> {
    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who adds parts; once it is dropped, none follows.
    pub(super) fn feeder(&self) -> Feeder<'_, 'a> {
        Feeder(self)
    }

    /// Threads end after the parts that they have.
    pub(super) fn stop(&self) {
        self.fail(None);
    }

    fn fail(&self, error: Option<Error>) {
        let mut state = self.lock();
        state.closed = true;
        state.parts.clear();
        state.error = state.error.take().or(error);
        drop(state);
        self.changed.notify_all();
    }

    /// The first error of any thread.
    pub(super) fn into_error(self) -> Option<Error> {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).error
    }

    /// The next part; the kernel is asked for the one that is `ahead` parts behind it.
    fn next(&self, ahead: usize, weights: &Weights) -> Option<Part<'a>> {
        let mut state = self.lock();
        loop {
            if let Some(part) = state.parts.pop_front() {
                let later = state.parts.get(ahead.saturating_sub(1)).map(|later| (later.id, later.bytes.clone()));
                drop(state);
                if let Some((id, bytes)) = later {
                    weights.prefetch(id, &bytes);
                }
                return Some(part);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Loads parts until none is left or one fails, as one of so many threads; tells the bytes of each.
    pub(super) fn work(&self, n_threads: usize, weights: &Weights, loaded: &Sender<usize>) {
        while let Some(part) = self.next(n_threads, weights) {
            if let Err(error) = part.load(weights) {
                self.fail(Some(error));
                return;
            }
            // The receiver outlives the threads.
            let _ = loaded.send(part.bytes.len());
        }
    }
}

/// Adds parts. Threads wait for more until it is dropped, which it is also if its owner panics.
pub(super) struct Feeder<'q, 'a>(&'q Queue<'a>);

impl<'a> Feeder<'_, 'a> {
    /// Adds parts behind the others.
    pub(super) fn push(&self, parts: impl IntoIterator<Item = Part<'a>>) {
        self.0.lock().parts.extend(parts);
        self.0.changed.notify_all();
    }
}

impl Drop for Feeder<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{LOADED_ROWS, PART_BYTES, cut};

    #[test]
    fn parts_are_whole_and_hold_each_row_once() {
        for (rows, row_bytes) in [(1, 4), (63, 18), (64, 18), (262_144, 3024), (5376, 12_096), (130, 1 << 20)] {
            let parts: Vec<_> = cut(rows, row_bytes).collect();
            assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, rows));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{parts:?}");
            assert!(parts.iter().all(|part| part.start % LOADED_ROWS == 0 && !part.is_empty()), "{parts:?}");
            let least = LOADED_ROWS * row_bytes;
            assert!(parts.iter().all(|part| part.len() * row_bytes <= least.max(PART_BYTES)), "{parts:?}");
        }
        assert_eq!(cut(0, 18).count(), 0);
    }
}
