//! How weights lie in device memory.
//!
//! GGUF's quant blocks are odd multiples of two bytes (18, 22, 34, 210), which no wide load can read.
//! They are taken apart when a weight is loaded: all quants of the weight first, then all scales, each a
//! *plane*. The size stays that of the file. Rows of plain formats are padded with zeros to whole chunks
//! of 32 columns, which changes nothing where the width is a multiple of 32. Tables and matrices lie
//! alike, so that tied embeddings need one copy. `shaders/glsl/weights.glsl` draws the planes and reads them.

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

/// Hands the weight over in the device's layout, as runs of bytes with their offsets. `source` is the
/// file's layout, of the right size. At most about a MiB is held at a time.
pub(crate) fn repack<E>(
    shape: &WeightShape,
    dtype: DType,
    source: &[u8],
    mut store: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    const RUN_BYTES: usize = 1 << 20;
    let padded = shape.columns.next_multiple_of(CHUNK);
    if shape.role == WeightRole::Vector || (!dtype.is_quantised() && padded == shape.columns) {
        return store(0, source);
    }
    let mut run = Vec::with_capacity(RUN_BYTES.min(source.len().max(CHUNK * 4)));
    if !dtype.is_quantised() {
        let row_bytes = shape.columns * dtype.block_bytes();
        let padded_bytes = padded * dtype.block_bytes();
        for (i, row) in source.chunks_exact(row_bytes).enumerate() {
            run.clear();
            run.extend_from_slice(row);
            run.resize(padded_bytes, 0);
            store((i * padded_bytes) as u64, &run)?;
        }
        return Ok(());
    }
    let block_bytes = dtype.block_bytes();
    let blocks_per_run = RUN_BYTES / block_bytes;
    let offsets = plane_offsets(shape.rows, shape.columns, dtype);
    for (i, blocks) in source.chunks(blocks_per_run * block_bytes).enumerate() {
        for (&(first, count), plane) in planes(dtype).iter().zip(offsets) {
            run.clear();
            for block in blocks.chunks_exact(block_bytes) {
                run.extend_from_slice(&block[first..first + count]);
            }
            store(plane + (i * blocks_per_run * count) as u64, &run)?;
        }
    }
    Ok(())
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
            let shape = matrix(300, 1024);
            let size = size_bytes(&shape, dtype).unwrap();
            let source: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251) as u8).collect();
            let mut written = vec![0u8; size];
            let mut stored = vec![0u8; size];
            repack(&shape, dtype, &source, |offset, bytes| {
                let start = offset as usize;
                stored[start..start + bytes.len()].copy_from_slice(bytes);
                written[start..start + bytes.len()].iter_mut().for_each(|n| *n += 1);
                Ok::<(), Infallible>(())
            })
            .unwrap();
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
        repack(&shape, DType::F16, &[1; 12], |offset, bytes| {
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
