//! Weights that several threads load at the same time, in parts.

use std::{ops::Range, thread};

use biga_hal::{Accessors, BufferDesc, BufferSlice, DType, Device, LOADED_ROWS, WeightRole, WeightShape};

use crate::{
    Report,
    data::{Random, matrix},
    rig::contents,
};

type Outcome = Result<(), String>;

/// Threads, more than most machines of CI have cores.
const N_THREADS: usize = 5;
/// What stands between and behind weights before they are loaded.
const GUARD_BYTE: u8 = 0xA5;
const GUARD: u64 = 256;

/// A weight with its bytes in the file's layout.
struct Loaded {
    shape: WeightShape,
    dtype: DType,
    bytes: Vec<u8>,
}

impl Loaded {
    fn new(random: &mut Random, dtype: DType, rows: usize, columns: usize) -> Loaded {
        let shape = WeightShape { role: WeightRole::Matrix, rows, columns };
        Loaded { shape, dtype, bytes: matrix(random, dtype, rows, columns) }
    }

    fn row_bytes(&self) -> usize {
        self.bytes.len() / self.shape.rows
    }

    /// Rows in parts of unlike sizes.
    fn parts(&self) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let mut start = 0;
        while start < self.shape.rows {
            let end = self.shape.rows.min(start + LOADED_ROWS * (1 + parts.len() % 3));
            parts.push(start..end);
            start = end;
        }
        parts
    }

    fn load(&self, device: &dyn Device, rows: Range<usize>, place: &BufferSlice) -> biga_hal::Result<()> {
        let source = &self.bytes[rows.start * self.row_bytes()..rows.end * self.row_bytes()];
        device.load_rows(&self.shape, self.dtype, rows, source, place)
    }
}

/// What loading promises.
pub(crate) fn run(device: &dyn Device, seed: u64, report: &mut Report) {
    let mut random = Random::new(seed);
    let mut weight = |dtype, rows, columns| Loaded::new(&mut random, dtype, rows, columns);
    let weights = [
        weight(DType::Q4_0, 5 * LOADED_ROWS + 7, 1024),
        weight(DType::Q6_K, 3 * LOADED_ROWS, 512),
        // Rows that a layout may pad, and more bytes than a device may carry at once.
        weight(DType::F16, 2 * LOADED_ROWS + 1, 40),
        weight(DType::F32, 12 * LOADED_ROWS + 1, 2048),
        weight(DType::Q8_0, LOADED_ROWS - 1, 64),
    ];
    report.enter("threads load parts of several weights at once", at_once(device, &weights));
    report.enter("rows that are no part are refused", refusals(device, &weights[0]));
}

/// A buffer with room for every weight, guards around them, and the place of each.
fn places(device: &dyn Device, weights: &[Loaded]) -> biga_hal::Result<(BufferSlice, Vec<BufferSlice>)> {
    let mut ends = GUARD;
    let mut ranges = Vec::new();
    for weight in weights {
        let size_bytes = device.weight_size_bytes(&weight.shape, weight.dtype);
        ranges.push((ends, size_bytes));
        ends = (ends + size_bytes + GUARD).next_multiple_of(GUARD);
    }
    let desc = BufferDesc { name: "weights".into(), size_bytes: ends, accessors: Accessors::default() };
    let whole = device.allocate_unwritten(&desc)?.slice(0, ends)?;
    device.write(&whole, &vec![GUARD_BYTE; ends as usize])?;
    let places = ranges.into_iter().map(|(start, size_bytes)| whole.slice(start, size_bytes));
    let places = places.collect::<biga_hal::Result<Vec<_>>>()?;
    Ok((whole, places))
}

fn at_once(device: &dyn Device, weights: &[Loaded]) -> Outcome {
    let text = |error: biga_hal::Error| error.to_string();
    let (expected, in_turn) = places(device, weights).map_err(text)?;
    for (weight, place) in weights.iter().zip(&in_turn) {
        device.load_weight(&weight.shape, weight.dtype, &weight.bytes, place).map_err(text)?;
    }
    let (seen, together) = places(device, weights).map_err(text)?;
    let parts: Vec<(&Loaded, &BufferSlice, Range<usize>)> = weights
        .iter()
        .zip(&together)
        .flat_map(|(weight, place)| weight.parts().into_iter().rev().map(move |rows| (weight, place, rows)))
        .collect();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..N_THREADS)
            .map(|first| {
                let own = parts.iter().skip(first).step_by(N_THREADS);
                scope.spawn(move || {
                    own.into_iter().try_for_each(|(weight, place, rows)| weight.load(device, rows.clone(), place))
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(loaded) => loaded.map_err(text),
            Err(_) => Err("a loading thread panicked".to_owned()),
        })
    })?;
    let (expected, seen) = (contents(device, &expected).map_err(text)?, contents(device, &seen).map_err(text)?);
    match expected.iter().zip(&seen).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => {
            Err(format!("byte {at} is {:#x}, it was {:#x} when weights were loaded in turn", seen[at], expected[at]))
        }
    }
}

fn refusals(device: &dyn Device, weight: &Loaded) -> Outcome {
    let text = |error: biga_hal::Error| error.to_string();
    let (whole, places) = places(device, std::slice::from_ref(weight)).map_err(text)?;
    let (n, row_bytes) = (weight.shape.rows, weight.row_bytes());
    let bad = [1..n, 0..1, 0..n + LOADED_ROWS, n + LOADED_ROWS..n, usize::MAX - 63..usize::MAX];
    for rows in bad {
        let source = vec![0; rows.len().min(2 * n) * row_bytes];
        if device.load_rows(&weight.shape, weight.dtype, rows.clone(), &source, &places[0]).is_ok() {
            return Err(format!("rows {rows:?} of {n} were taken"));
        }
    }
    let touched = contents(device, &whole).map_err(text)?.iter().any(|&byte| byte != GUARD_BYTE);
    if touched { Err("what was refused has left bytes".to_owned()) } else { Ok(()) }
}
