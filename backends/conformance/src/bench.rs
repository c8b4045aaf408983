//! The memory of a case: buffers between guard bytes, written and read as a whole.
//!
//! With it a launch's declarations are put to the proof ([`Bench::prove`]): bytes that nobody declares as
//! written stay as they are, and what a launch writes stays the same when every byte that it does not
//! declare as read is poison.

use std::ops::Range;

use biga_hal::{
    Access, Accessors, BoundWeight, BufferDesc, BufferSlice, ByteRange, DType, Device, Dispatch, Executable, Result,
    WeightShape,
};

use crate::{order::conflicts, rig::finish};

/// Bytes before and behind each value. A multiple of every alignment that a device asks of a value.
const GUARD: usize = 256;

/// What stands there.
const GUARD_BYTE: u8 = 0xA5;

/// What fills memory that is not declared as read: NaN in every float format, the largest number in others.
const POISON: u8 = 0xFF;

/// A block table's blocks, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Blocks {
    table: usize,
    block_bytes: usize,
}

/// One buffer.
#[derive(Debug)]
struct Place {
    /// With its guards.
    whole: BufferSlice,
    name: &'static str,
    /// Of what the guards enclose.
    size_bytes: usize,
    poison: u8,
    blocks: Option<Blocks>,
}

/// The bytes of every buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image(Vec<Vec<u8>>);

/// Which buffer of the bench.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Index(usize);

/// Everything that a case's segment may touch, on one device.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) device: &'a dyn Device,
    places: Vec<Place>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(device: &'a dyn Device) -> Bench<'a> {
        Bench { device, places: Vec::new() }
    }

    fn add(&mut self, name: &'static str, size_bytes: usize, host: Option<Access>) -> Result<BufferSlice> {
        let whole_bytes = GUARD + size_bytes.next_multiple_of(16) + GUARD;
        let accessors = Accessors { host, devices: Vec::new() };
        let desc = BufferDesc { name: name.into(), size_bytes: whole_bytes as u64, accessors };
        let whole = self.device.allocate(&desc)?.slice(0, whole_bytes as u64)?;
        self.device.write(&whole, &vec![GUARD_BYTE; whole_bytes])?;
        let inner = whole.slice(GUARD as u64, size_bytes as u64)?;
        self.places.push(Place { whole, name, size_bytes, poison: POISON, blocks: None });
        Ok(inner)
    }

    /// The buffer added last.
    pub(crate) fn last(&self) -> Index {
        Index(self.places.len() - 1)
    }

    /// A value.
    pub(crate) fn value(&mut self, name: &'static str, bytes: &[u8]) -> Result<BufferSlice> {
        let slice = self.add(name, bytes.len(), Some(Access::ReadWrite))?;
        self.device.write(&slice, bytes)?;
        Ok(slice)
    }

    /// A step buffer. Its poison is an empty step: other bytes would be followed as addresses.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<BufferSlice> {
        let slice = self.value("step", bytes)?;
        let Index(at) = self.last();
        self.places[at].poison = 0;
        Ok(slice)
    }

    /// The blocks of a block table.
    pub(crate) fn pool(&mut self, bytes: &[u8], table: usize, block_bytes: usize) -> Result<BufferSlice> {
        let slice = self.value("kv pool", bytes)?;
        let Index(at) = self.last();
        self.places[at].blocks = Some(Blocks { table, block_bytes });
        Ok(slice)
    }

    /// A weight in the device's layout.
    pub(crate) fn weight(&mut self, shape: &WeightShape, dtype: DType, bytes: &[u8]) -> Result<BoundWeight> {
        let size_bytes = self.device.weight_size_bytes(shape, dtype) as usize;
        let slice = self.add("weight", size_bytes, None)?;
        self.device.load_weight(shape, dtype, bytes, &slice)?;
        Ok(BoundWeight { slice, dtype, rows: shape.rows, columns: shape.columns })
    }

    /// What stands in memory now.
    pub(crate) fn image(&self) -> Result<Image> {
        let mut image = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let mut bytes = vec![0; place.whole.size_bytes() as usize];
            self.device.read(&place.whole, &mut bytes)?;
            image.push(bytes);
        }
        Ok(Image(image))
    }

    /// One buffer's bytes in an image, without its guards.
    pub(crate) fn bytes<'i>(&self, image: &'i Image, Index(at): Index) -> &'i [u8] {
        &image.0[at][GUARD..GUARD + self.places[at].size_bytes]
    }

    /// Runs on an image; the image afterwards.
    pub(crate) fn run(&self, executable: &dyn Executable, image: &Image) -> Result<Image> {
        for (place, bytes) in self.places.iter().zip(&image.0) {
            self.device.write(&place.whole, bytes)?;
        }
        finish(self.device, executable)?;
        self.image()
    }

    /// Holds an executable's launches against their declarations. `after` is what a run on `before` left.
    ///
    /// A launch's writes are judged where no later launch writes. What cannot be seen from outside: a launch
    /// that writes where a later one writes over it, and a write of the value that stood there.
    pub(crate) fn prove(
        &self,
        executable: &dyn Executable,
        before: &Image,
        after: &Image,
    ) -> std::result::Result<(), String> {
        let launches = executable.dispatches();
        if let Some(conflict) = conflicts(launches).first() {
            return Err(conflict.to_string());
        }
        let all_writes: Vec<ByteRange> = launches.iter().flat_map(|launch| launch.writes.iter().copied()).collect();
        self.untouched(&all_writes, before, after)?;
        for (index, launch) in launches.iter().enumerate() {
            let later: Vec<ByteRange> =
                launches[index + 1..].iter().flat_map(|launch| launch.writes.iter().copied()).collect();
            let judged: Vec<Spans> = (0..self.places.len())
                .map(|at| without(&self.spans(at, &launch.writes), &self.spans(at, &later)))
                .collect();
            if judged.iter().all(Vec::is_empty) {
                continue;
            }
            let at = |cause| format!("launch {index} ({}): {cause}", launch.name);
            let poisoned = self.poisoned(before, &needed(launches, index));
            let seen = self.run(executable, &poisoned);
            let seen = seen.map_err(|error| at(format!("it reads what it does not declare: {error}")))?;
            self.untouched(&all_writes, &poisoned, &seen).map_err(at)?;
            self.same_writes(&judged, [before, after], [&poisoned, &seen]).map_err(at)?;
        }
        Ok(())
    }

    /// Every element that is declared as written, other than in the cache, has another value afterwards.
    pub(crate) fn all_written(
        &self,
        executable: &dyn Executable,
        before: &Image,
        after: &Image,
    ) -> std::result::Result<(), String> {
        for (index, launch) in executable.dispatches().iter().enumerate() {
            for (at, place) in self.places.iter().enumerate().filter(|(_, place)| place.blocks.is_none()) {
                for span in self.spans(at, &launch.writes) {
                    let elements = before.0[at][span.clone()].chunks(4).zip(after.0[at][span.clone()].chunks(4));
                    if let Some(element) = { elements }.position(|(before, after)| before == after) {
                        let offset = place.offset(span.start + 4 * element);
                        let (name, place) = (&launch.name, place.name);
                        return Err(format!("launch {index} ({name}) declares {place}{offset:+} and leaves it alone"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The parts of a buffer that lie in some of the ranges.
    fn spans(&self, at: usize, ranges: &[ByteRange]) -> Spans {
        let place = &self.places[at];
        let mut spans = Vec::new();
        for range in ranges {
            place.spans(range, &mut spans);
        }
        merged(spans)
    }

    /// An image with poison in place of everything outside the ranges.
    fn poisoned(&self, image: &Image, needed: &[ByteRange]) -> Image {
        let mut image = image.clone();
        for (at, bytes) in image.0.iter_mut().enumerate() {
            let all = std::iter::once(0..bytes.len()).collect();
            for span in without(&all, &self.spans(at, needed)) {
                bytes[span].fill(self.places[at].poison);
            }
        }
        image
    }

    /// Nothing changed outside what is declared as written.
    fn untouched(&self, writes: &[ByteRange], before: &Image, after: &Image) -> std::result::Result<(), String> {
        for (at, (before, after)) in before.0.iter().zip(&after.0).enumerate() {
            let all = std::iter::once(0..before.len()).collect();
            for span in without(&all, &self.spans(at, writes)) {
                if let Some(byte) = first_difference(&before[span.clone()], &after[span.clone()]) {
                    let place = &self.places[at];
                    let offset = place.offset(span.start + byte);
                    return Err(format!("{}{offset:+} was written, and no launch declares it", place.name));
                }
            }
        }
        Ok(())
    }

    /// Each byte came out the same in both runs, or was left alone in both.
    fn same_writes(
        &self,
        judged: &[Spans],
        [before, after]: [&Image; 2],
        [poisoned, seen]: [&Image; 2],
    ) -> std::result::Result<(), String> {
        for (at, place) in self.places.iter().enumerate() {
            for byte in judged[at].iter().cloned().flatten() {
                let left_alone = seen.0[at][byte] == poisoned.0[at][byte] && after.0[at][byte] == before.0[at][byte];
                if seen.0[at][byte] != after.0[at][byte] && !left_alone {
                    let offset = place.offset(byte);
                    return Err(format!("{}{offset:+} depends on bytes that it does not declare as read", place.name));
                }
            }
        }
        Ok(())
    }
}

impl Place {
    /// From the first byte that the guards enclose.
    fn offset(&self, byte: usize) -> i64 {
        byte as i64 - GUARD as i64
    }

    /// Enters the parts of the buffer that lie in a range.
    fn spans(&self, range: &ByteRange, spans: &mut Spans) {
        let within = |first: u64, size_bytes: usize| {
            let start = range.address.clamp(first, first + size_bytes as u64) - first;
            let end = range.end().clamp(first, first + size_bytes as u64) - first;
            start as usize..end as usize
        };
        spans.push(within(self.whole.device_address(), self.whole.size_bytes() as usize));
        let Some(Blocks { table, block_bytes }) = self.blocks else { return };
        let first = ByteRange::KV_SPACE + table as u64 * ByteRange::KV_TABLE_BYTES;
        let part = within(first, block_bytes);
        let blocks = (GUARD..GUARD + self.size_bytes).step_by(block_bytes);
        spans.extend(blocks.map(|block| block + part.start..block + part.end));
    }
}

/// What a launch reads, and what the launches read that write any of it, and so on.
fn needed(launches: &[Dispatch], index: usize) -> Vec<ByteRange> {
    let mut needed = launches[index].reads.clone();
    for earlier in launches[..index].iter().rev() {
        if earlier.writes.iter().any(|write| needed.iter().any(|range| range.overlaps(write))) {
            needed.extend(&earlier.reads);
        }
    }
    needed
}

/// Parts of a buffer.
type Spans = Vec<Range<usize>>;

/// Sorted, without overlaps and empty parts.
fn merged(mut spans: Spans) -> Spans {
    spans.retain(|span| !span.is_empty());
    spans.sort_by_key(|span| span.start);
    let mut merged: Spans = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut().filter(|last| span.start <= last.end) {
            Some(last) => last.end = last.end.max(span.end),
            None => merged.push(span),
        }
    }
    merged
}

/// What lies in `spans` and not in `holes`; both as from [`merged`].
fn without(spans: &Spans, holes: &Spans) -> Spans {
    let mut left = Vec::new();
    for span in spans {
        let mut start = span.start;
        // The first hole that ends behind the span's start.
        let first = holes.partition_point(|hole| hole.end <= span.start);
        for hole in holes[first..].iter().take_while(|hole| hole.start < span.end) {
            left.push(start..hole.start.max(start));
            start = hole.end;
        }
        left.push(start..span.end.max(start));
    }
    left.retain(|span| !span.is_empty());
    left
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b { None } else { a.iter().zip(b).position(|(a, b)| a != b) }
}

#[cfg(test)]
mod tests {
    use biga_hal::{ByteRange, Dispatch};

    use super::{merged, needed, without};

    fn check_cut(spans: &[(usize, usize)], holes: &[(usize, usize)], expected: &[(usize, usize)]) {
        let ranges = |pairs: &[(usize, usize)]| pairs.iter().map(|&(start, end)| start..end).collect::<Vec<_>>();
        assert_eq!(without(&ranges(spans), &ranges(holes)), ranges(expected));
    }

    #[test]
    fn spans_are_merged_and_cut() {
        assert_eq!(merged(vec![5..9, 0..2, 7..12, 3..3, 2..4]), [0..4, 5..12]);
        check_cut(&[(0, 10), (20, 30)], &[(2, 4), (8, 22), (29, 40)], &[(0, 2), (4, 8), (22, 29)]);
        check_cut(&[(0, 10)], &[], &[(0, 10)]);
        check_cut(&[(0, 10)], &[(0, 10)], &[]);
    }

    #[test]
    fn a_launch_needs_what_its_makers_need() {
        let range = |address| ByteRange { address, size_bytes: 1 };
        let launch = |reads: &[u64], writes: &[u64]| Dispatch {
            reads: reads.iter().copied().map(range).collect(),
            writes: writes.iter().copied().map(range).collect(),
            ..Dispatch::default()
        };
        let launches = [launch(&[1], &[10]), launch(&[2], &[20]), launch(&[10], &[11]), launch(&[11, 3], &[12])];
        assert_eq!(needed(&launches, 3), [11, 3, 10, 1].map(range));
        assert_eq!(needed(&launches, 1), [range(2)]);
    }
}
