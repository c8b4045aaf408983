//! A tile's memories: banks in rows, what was loaded, and buffers in the colours of the flows that fill and drain them.

use std::ops::Range;

use super::{
    flows::{Flows, NEUTRAL},
    layout::{Layout, PROGRAM_ROW_BYTES, memory_rows},
    size,
    svg::{Rect, Svg, text_width},
};
use crate::array::{Buffer, Direction, Place, Program, Tile};

/// Draws a tile's data and program memory.
pub(super) fn draw(svg: &mut Svg, layout: &Layout, program: &Program, flows: &Flows, place: Place) {
    let Some(tile) = program.tile(place) else { return };
    let (n_rows, row_bytes) = memory_rows(tile.kind());
    for row in 0..n_rows {
        svg.rect(layout.memory_row(place, row), "bank", None);
    }
    for range in tile.data().iter() {
        let loaded = format!("{} loaded at {:#x}", size(length(&range)), range.start);
        svg.open("loaded", &loaded);
        for rect in rects(layout, place, &range, row_bytes) {
            svg.rect(rect, "initial", None);
        }
        svg.close();
    }
    for buffer in program.buffers(place) {
        draw_buffer(svg, layout, flows, place, &buffer, row_bytes);
    }
    draw_program(svg, layout, tile, place, n_rows);
}

fn draw_program(svg: &mut Svg, layout: &Layout, tile: &Tile, place: Place, row: u32) {
    if tile.kind().program_bytes() == 0 {
        return;
    }
    let bank = layout.memory_row(place, row);
    let loaded = u64::from(tile.program().n_bytes());
    svg.open("programs", &format!("program memory: {} of 16 KiB loaded", size(loaded)));
    svg.rect(bank, "bank", None);
    for range in tile.program().iter() {
        svg.rect(part(bank, &range, PROGRAM_ROW_BYTES), "program", None);
    }
    svg.close();
}

fn draw_buffer(svg: &mut Svg, layout: &Layout, flows: &Flows, place: Place, buffer: &Buffer, row_bytes: u32) {
    let colour = |direction| {
        let mut users = buffer.users.iter().filter_map(|user| user.channel.map(|channel| (user.place, channel)));
        users.find(|(_, channel)| channel.0 == direction).and_then(|(place, channel)| flows.of_channel(place, channel))
    };
    let (written, read) = (colour(Direction::S2mm), colour(Direction::Mm2s));
    let label = size(length(&buffer.range));
    svg.open("buffer", &tooltip(buffer));
    let rects = rects(layout, place, &buffer.range, row_bytes);
    for rect in &rects {
        let half = Rect { height: rect.height / 2.0, ..*rect };
        let lower = Rect { y: rect.y + half.height, ..half };
        let written = written.or(read).unwrap_or(NEUTRAL);
        // A frame would hide the colours of a small one.
        let is_small = rect.width < 3.0;
        let class = if is_small { "stripe small-stripe" } else { "stripe" };
        svg.rect(half, class, Some(written));
        svg.rect(lower, class, Some(read.unwrap_or(written)));
        if !is_small {
            svg.rect(*rect, "frame", None);
        }
    }
    let widest = rects.iter().max_by(|a, b| a.width.total_cmp(&b.width));
    if let Some(rect) = widest.filter(|rect| rect.width > text_width(&label, 7.5)) {
        svg.text((rect.x + rect.width / 2.0, rect.y + rect.height / 2.0 + 2.7), "label", &label);
    }
    svg.close();
}

fn tooltip(buffer: &Buffer) -> String {
    let mut text = format!("buffer at {:#x}, {}", buffer.range.start, size(length(&buffer.range)));
    for user in &buffer.users {
        let channel = match user.channel {
            Some((direction, channel)) => format!("{direction} {channel}"),
            None => "no channel".to_owned(),
        };
        text.push_str(&format!("\n{channel} of {}, descriptor {}", user.place, user.descriptor));
    }
    text
}

fn length(range: &Range<u32>) -> u64 {
    u64::from(range.end.saturating_sub(range.start))
}

/// A range of data memory, row by row.
fn rects(layout: &Layout, place: Place, range: &Range<u32>, row_bytes: u32) -> Vec<Rect> {
    let row_of = |at: u32| at.checked_div(row_bytes).unwrap_or(0);
    let rows = row_of(range.start)..=row_of(range.end.saturating_sub(1));
    rows.map(|row| {
        let first = row.saturating_mul(row_bytes);
        let start = range.start.saturating_sub(first);
        let end = range.end.saturating_sub(first).min(row_bytes);
        part(layout.memory_row(place, row), &(start..end), row_bytes)
    })
    .collect()
}

/// A range of a row of bytes; never too thin to see.
fn part(bank: Rect, range: &Range<u32>, row_bytes: u32) -> Rect {
    let scale = bank.width / f64::from(row_bytes);
    let width = (length(range) as f64 * scale).max(0.8);
    Rect { x: bank.x + f64::from(range.start) * scale, width, ..bank }
}
