//! Times loading a weight (q4_0) from host memory into a device, by the host's own stores and by copies, with more
//! and more threads, and allocating the memory before.
//!
//! `cargo run --release -p biga-vulkan --example load_speed -- [device name part] [MiB]`

use std::{
    env,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use biga_hal::{
    Accessors, Backend, BufferDesc, BufferSlice, DType, Device, LOADED_ROWS, Result, WeightRole, WeightShape,
};
use biga_vulkan::{VulkanBackend, VulkanOptions};

const COLUMNS: usize = 4096;
const DTYPE: DType = DType::Q4_0;
/// Rows that a thread loads at once: about 4 MiB.
const PART_ROWS: usize = 1792 / LOADED_ROWS * LOADED_ROWS;
const RUNS: usize = 3;

/// Parts of the weight for threads to take.
struct Parts<'a> {
    shape: WeightShape,
    source: &'a [u8],
    next: AtomicUsize,
}

impl Parts<'_> {
    fn rows(&self) -> Option<Range<usize>> {
        let start = self.next.fetch_add(PART_ROWS, Ordering::Relaxed);
        (start < self.shape.rows).then(|| start..self.shape.rows.min(start + PART_ROWS))
    }

    fn load(&self, device: &dyn Device, place: &BufferSlice) -> Result<()> {
        let row_bytes = self.source.len() / self.shape.rows;
        while let Some(rows) = self.rows() {
            let source = &self.source[rows.start * row_bytes..rows.end * row_bytes];
            device.load_rows(&self.shape, DTYPE, rows, source, place)?;
        }
        Ok(())
    }
}

fn load(
    device: &Arc<dyn Device>,
    shape: WeightShape,
    source: &[u8],
    n_threads: usize,
    place: &BufferSlice,
) -> Result<()> {
    let parts = Parts { shape, source, next: AtomicUsize::new(0) };
    let loaded: Vec<Result<()>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(|| parts.load(&**device, place))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no part panics")).collect()
    });
    loaded.into_iter().collect::<Result<()>>()?;
    // Copies may still be under way: this one comes behind them.
    let last = place.slice(place.size_bytes() - 16, 16)?;
    device.read(&last, &mut [0; 16])
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let wanted = arguments.next().unwrap_or_default().to_lowercase();
    let size_mib: usize = arguments.next().map_or(Ok(1024), |word| word.parse())?;
    let row_bytes = DTYPE.row_bytes(COLUMNS).ok_or("whole blocks")?;
    let rows = ((size_mib << 20) / row_bytes).max(1);
    let shape = WeightShape { role: WeightRole::Matrix, rows, columns: COLUMNS };
    // Written, so that it is memory and not one page of zeros.
    let source: Vec<u8> = (0..rows * row_bytes).map(|i| (i * 7 + i / 4093) as u8).collect();
    let cores = thread::available_parallelism()?.get();
    for copies in [false, true] {
        let backend = VulkanBackend::with_options(VulkanOptions { copies, ..VulkanOptions::default() });
        let infos = backend.probe()?;
        let info = infos.iter().find(|info| info.name.to_lowercase().contains(&wanted)).ok_or("no such device")?;
        let device = backend.open(info.id)?;
        let desc = BufferDesc {
            name: "weight".to_owned(),
            size_bytes: device.weight_size_bytes(&shape, DTYPE),
            accessors: Accessors::default(),
        };
        let start = Instant::now();
        let place = device.allocate(&desc)?.whole();
        let way = if copies { "copies" } else { "stores" };
        println!("{}, {way}: {size_mib} MiB allocated in {:.2} ms", info.name, start.elapsed().as_secs_f64() * 1e3);
        let mut n_threads = 1;
        while n_threads <= cores {
            let mut best_s = f64::INFINITY;
            for _ in 0..RUNS {
                let start = Instant::now();
                load(&device, shape, &source, n_threads, &place)?;
                best_s = best_s.min(start.elapsed().as_secs_f64());
            }
            println!("  {n_threads:>3} threads  {:>7.2} GB/s", source.len() as f64 / best_s / 1e9);
            n_threads *= 2;
        }
    }
    Ok(())
}
