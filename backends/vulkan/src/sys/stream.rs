//! Copies that go past the cache.

/// Bytes of a cache line, and of a transaction on the way to a device.
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Copies bytes with stores of whole lines that bypass the cache. They are seen by whoever sees what this thread
/// stores afterwards.
///
/// # Safety
/// - `to` is valid for writes of `from.len()` bytes.
/// - They do not overlap `from`, and nobody holds a reference to them.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn copy(from: &[u8], to: *mut u8) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const VECTOR_BYTES: usize = size_of::<__m128i>();

    let before = to.align_offset(LINE_BYTES).min(from.len());
    let whole = (from.len() - before) / LINE_BYTES * LINE_BYTES;
    let (head, rest) = from.split_at(before);
    let (lines, tail) = rest.split_at(whole);
    // SAFETY: head, lines and tail follow each other in the destination as in the source, whose length the
    // caller vouches for; the lines start at a multiple of 64, so each vector at one of 16; SSE2 is part of x86-64.
    unsafe {
        std::ptr::copy_nonoverlapping(head.as_ptr(), to, head.len());
        let to = to.add(before);
        for (i, vector) in lines.chunks_exact(VECTOR_BYTES).enumerate() {
            let value = _mm_loadu_si128(vector.as_ptr().cast());
            _mm_stream_si128(to.add(i * VECTOR_BYTES).cast(), value);
        }
        std::ptr::copy_nonoverlapping(tail.as_ptr(), to.add(whole), tail.len());
        // Such stores are not ordered with others: not with the one that tells the device to go.
        _mm_sfence();
    }
}

/// Copies bytes.
///
/// # Safety
/// - `to` is valid for writes of `from.len()` bytes.
/// - They do not overlap `from`, and nobody holds a reference to them.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn copy(from: &[u8], to: *mut u8) {
    // SAFETY: as the caller vouches.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_byte_arrives_whatever_the_alignment() {
        let from: Vec<u8> = (0..1000_u32).map(|i| (i * 31 % 251) as u8).collect();
        for (offset, count) in [(0, 0), (0, 1), (3, 60), (0, 64), (1, 64), (7, 200), (64, 512), (63, 900)] {
            let mut to = vec![0xEE; 1100];
            // SAFETY: the destination has room for offset + count bytes and is borrowed by nobody else.
            unsafe { super::copy(&from[..count], to.as_mut_ptr().add(offset)) };
            assert_eq!(to[offset..offset + count], from[..count]);
            assert!(to[..offset].iter().chain(&to[offset + count..]).all(|&byte| byte == 0xEE), "{offset} {count}");
        }
    }
}
