//! How weights lie in device memory.
//!
//! GGUF's quant blocks are odd multiples of two bytes (18, 22, 34, 210), which no wide load can read.
//! They are taken apart when a weight is loaded: all quants of the weight first, then all scales, each a
//! *plane*. The size stays that of the file. Rows of plain formats are padded with zeros to whole chunks
//! of 32 columns, which changes nothing where the width is a multiple of 32. Tables and matrices lie
//! alike, so that tied embeddings need one copy. `shaders/glsl/weights.glsl` draws the planes and reads them.

use std::ops::Range;

use biga_hal::{DType, WeightRole, WeightShape};

/// Columns that a kernel decodes at once.
pub(crate) const CHUNK: usize = 32;

/// The bytes of a quant block that go to one plane: first byte and count.
type Piece = (usize, usize);

/// The planes of a quantised format; empty for plain ones.
const fn planes(dtype: DType) -> &'static [Piece] {
    match dtype {
        DType::Q8_0 => &[(2, 32), (0, 2)],
        DType::Q4_0 => &[(2, 16), (0, 2)],
        DType::Q4_1 => &[(4, 16), (0, 4)],
        DType::Q5_0 => &[(6, 16), (2, 4), (0, 2)],
        DType::Q5_1 => &[(8, 16), (4, 4), (0, 4)],
        DType::Q4_K => &[(16, 128), (4, 12), (0, 4)],
        DType::Q5_K => &[(48, 128), (16, 32), (4, 12), (0, 4)],
        DType::Q6_K => &[(0, 128), (128, 64), (192, 16), (208, 2)],
        _ => &[],
    }
}

/// Chunks of a row.
pub(crate) const fn chunks(columns: usize) -> usize {
    columns.div_ceil(CHUNK)
}

/// Bytes of a weight on the device, or `None` if that overflows or a row is no whole number of quant blocks.
pub(crate) fn size_bytes(shape: &WeightShape, dtype: DType) -> Option<usize> {
    let columns = match (shape.role, dtype.is_quantised()) {
        (WeightRole::Table | WeightRole::Matrix, false) => shape.columns.checked_next_multiple_of(CHUNK)?,
        _ => shape.columns,
    };
    dtype.row_bytes(columns)?.checked_mul(shape.rows)
}

/// Where each plane starts, from the weight's first byte; planes that a format lacks start at its end.
pub(crate) fn plane_offsets(rows: usize, columns: usize, dtype: DType) -> [u64; 4] {
    let blocks = (rows * (columns / dtype.block_len())) as u64;
    let mut offsets = [0; 4];
    let mut end = 0;
    for (i, offset) in offsets.iter_mut().enumerate() {
        *offset = end;
        end += planes(dtype).get(i).map_or(0, |&(_, count)| count as u64 * blocks);
    }
    offsets
}

/// Bytes of a run, about: it stays in a core's own cache until it is stored.
const RUN_BYTES: usize = 256 << 10;

/// Hands rows of the weight over in the device's layout, as runs of bytes with their offsets from the weight's
/// first byte. `source` is those rows in the file's layout, of the right size.
pub(crate) fn repack<E>(
    shape: &WeightShape,
    dtype: DType,
    rows: Range<usize>,
    source: &[u8],
    store: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    if source.is_empty() {
        return Ok(());
    }
    if shape.role != WeightRole::Vector && dtype.is_quantised() {
        return take_apart(shape, dtype, rows.start, source, store);
    }
    let row_bytes = source.len() / rows.len();
    let padded_bytes = shape.columns.next_multiple_of(CHUNK) * dtype.block_bytes();
    let stored_bytes = if shape.role == WeightRole::Vector { row_bytes } else { padded_bytes };
    pad(source, row_bytes, stored_bytes, rows.start, store)
}

/// Plain rows, each followed by zeros up to its size on the device.
fn pad<E>(
    source: &[u8],
    row_bytes: usize,
    stored_bytes: usize,
    first_row: usize,
    mut store: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let start = (first_row * stored_bytes) as u64;
    if row_bytes == stored_bytes {
        return store(start, source);
    }
    let rows_per_run = (RUN_BYTES / stored_bytes).max(1);
    let mut run = vec![0; rows_per_run * stored_bytes];
    for (i, rows) in source.chunks(rows_per_run * row_bytes).enumerate() {
        for (to, row) in run.chunks_exact_mut(stored_bytes).zip(rows.chunks_exact(row_bytes)) {
            to[..row_bytes].copy_from_slice(row);
        }
        store(start + (i * run.len()) as u64, &run[..rows.len() / row_bytes * stored_bytes])?;
    }
    Ok(())
}

/// Quant blocks, plane by plane.
fn take_apart<E>(
    shape: &WeightShape,
    dtype: DType,
    first_row: usize,
    source: &[u8],
    mut store: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let block_bytes = dtype.block_bytes();
    let blocks_per_run = RUN_BYTES / block_bytes;
    let mut run = vec![0; blocks_per_run * planes(dtype).iter().map(|&(_, count)| count).max().unwrap_or(0)];
    let mut block = first_row * (shape.columns / dtype.block_len());
    let offsets = plane_offsets(shape.rows, shape.columns, dtype);
    for blocks in source.chunks(blocks_per_run * block_bytes) {
        let n_blocks = blocks.len() / block_bytes;
        for (&(first, count), plane) in planes(dtype).iter().zip(offsets) {
            let run = &mut run[..n_blocks * count];
            // Copies of a size that the compiler knows are single moves.
            match count {
                2 => gather::<2>(blocks, block_bytes, first, run),
                4 => gather::<4>(blocks, block_bytes, first, run),
                12 => gather::<12>(blocks, block_bytes, first, run),
                16 => gather::<16>(blocks, block_bytes, first, run),
                32 => gather::<32>(blocks, block_bytes, first, run),
                64 => gather::<64>(blocks, block_bytes, first, run),
                _ => gather::<128>(blocks, block_bytes, first, run),
            }
            store(plane + (block * count) as u64, run)?;
        }
        block += n_blocks;
    }
    Ok(())
}

/// The `N` bytes of each block from its byte `first` on.
fn gather<const N: usize>(blocks: &[u8], block_bytes: usize, first: usize, run: &mut [u8]) {
    for (to, block) in run.as_chunks_mut::<N>().0.iter_mut().zip(blocks.chunks_exact(block_bytes)) {
        if let Some(piece) = block[first..].first_chunk() {
            *to = *piece;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::{DType, WeightRole, WeightShape, plane_offsets, planes, repack, size_bytes};

    fn matrix(rows: usize, columns: usize) -> WeightShape {
        WeightShape { role: WeightRole::Matrix, rows, columns }
    }

    #[test]
    fn planes_hold_every_byte_of_a_block_once() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            let mut seen = vec![0; dtype.block_bytes()];
            for &(first, count) in planes(dtype) {
                seen[first..first + count].iter_mut().for_each(|n| *n += 1);
            }
            assert!(seen.iter().all(|&n| n == 1), "{dtype}");
        }
    }

    #[test]
    fn repacking_moves_every_byte_once() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            let shape = matrix(700, 1024);
            let size = size_bytes(&shape, dtype).unwrap();
            let source: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251) as u8).collect();
            let mut written = vec![0u8; size];
            let mut stored = vec![0u8; size];
            // In parts that are loaded last to first.
            for rows in [640..700, 64..640, 0..64] {
                let part = &source[size / 700 * rows.start..size / 700 * rows.end];
                repack(&shape, dtype, rows, part, |offset, bytes| {
                    let start = offset as usize;
                    stored[start..start + bytes.len()].copy_from_slice(bytes);
                    written[start..start + bytes.len()].iter_mut().for_each(|n| *n += 1);
                    Ok::<(), Infallible>(())
                })
                .unwrap();
            }
            // Blocks lie in their planes in the order of the file.
            for (&(first, count), plane) in planes(dtype).iter().zip(plane_offsets(700, 1024, dtype)) {
                let block = 12_345 % (size / dtype.block_bytes());
                let at = plane as usize + block * count;
                let piece = &source[block * dtype.block_bytes() + first..][..count];
                assert_eq!(&stored[at..at + count], piece, "{dtype}");
            }
            assert!(written.iter().all(|&n| n == 1), "{dtype}");
            // The last scale of the file is the last of its plane.
            let (first, count) = *planes(dtype).last().unwrap();
            let last_block = &source[size - dtype.block_bytes()..];
            assert_eq!(stored[size - count..], last_block[first..first + count], "{dtype}");
        }
    }

    #[test]
    fn plain_rows_are_padded_with_zeros() {
        let shape = matrix(2, 3);
        assert_eq!(size_bytes(&shape, DType::F16), Some(128));
        let mut stored = [0xFF; 128];
        repack(&shape, DType::F16, 0..2, &[1; 12], |offset, bytes| {
            stored[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            Ok::<(), Infallible>(())
        })
        .unwrap();
        assert_eq!(stored[..6], [1; 6]);
        assert_eq!(stored[6..64], [0; 58]);
        assert_eq!(stored[64..70], [1; 6]);
    }

    #[test]
    fn planes_start_where_wide_loads_may() {
        for dtype in DType::ALL.into_iter().filter(|dtype| dtype.is_quantised()) {
            let offsets = plane_offsets(3, 256, dtype);
            for (&(_, count), offset) in planes(dtype).iter().zip(offsets) {
                let alignment = if count >= 16 { 16 } else { count.min(4) as u64 };
                assert_eq!(offset % alignment, 0, "{dtype}");
            }
        }
    }
}
