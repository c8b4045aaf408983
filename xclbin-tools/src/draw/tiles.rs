//! A tile: its body, what it is called, its memories, the boxes of its channels.

use super::{
    buffers,
    flows::Flows,
    layout::{Boxes, Layout, Ports},
    size,
    svg::{Rect, Svg},
};
use crate::array::{Bundle, Direction, Place, Program, Start, Tile, TileKind};

/// Draws a tile.
pub(super) fn draw(svg: &mut Svg, layout: &Layout, program: &Program, flows: &Flows, place: Place) {
    let kind = crate::array::Device::tile_kind(place.row).unwrap_or(TileKind::Core);
    let class = match kind {
        TileKind::Shim => "shim",
        TileKind::Memory => "memory",
        TileKind::Core => "core",
    };
    let rect = layout.tile(place);
    let tile = program.tile(place).filter(|_| layout.is_open(place));
    let idle = if tile.is_none() { " idle" } else { "" };
    svg.open(&format!("tile {class}{idle}"), &tooltip(kind, place, tile));
    svg.rect(rect, "body", None);
    let name = format!("{kind} {place}");
    let Some(tile) = tile else {
        svg.text((rect.x + 12.0, rect.y + 19.0), "small unused", &name);
        svg.close();
        return;
    };
    svg.rect(layout.switch(place), "switch", None);
    let text_x = layout.memory_row(place, 0).x;
    svg.text((text_x, rect.y + 14.0), "name", &name);
    if kind == TileKind::Core {
        let state = if tile.is_core_enabled() { "runs" } else { "does not run" };
        let program = match tile.program().n_bytes() {
            0 => String::new(),
            loaded => format!("program {} · ", size(loaded.into())),
        };
        svg.text((rect.right() - 10.0, rect.y + 14.0), "right", &format!("{program}{state}"));
    }
    buffers::draw(svg, layout, program, flows, place);
    if kind == TileKind::Shim {
        draw_transfers(svg, layout, tile, place);
    }
    for boxes in layout.boxes(place) {
        draw_boxes(svg, flows, tile, place, &boxes);
    }
    svg.close();
}

fn tooltip(kind: TileKind, place: Place, tile: Option<&Tile>) -> String {
    let mut text = format!("{kind} {place}");
    let Some(tile) = tile else { return text };
    let locks: Vec<String> = tile.locks().map(|(lock, value)| format!("{lock} = {value}")).collect();
    if !locks.is_empty() {
        text.push_str(&format!("\nlocks at the start: {}", locks.join(", ")));
    }
    text.push_str(&format!("\n{} buffer descriptors", tile.descriptors().count()));
    text
}

/// What a shim tile's channels move, one line each: the instruction stream starts them.
fn draw_transfers(svg: &mut Svg, layout: &Layout, tile: &Tile, place: Place) {
    for (row, (direction, channel)) in (0..).zip(channels(tile)) {
        let bank = layout.memory_row(place, row);
        let transfers = transfers(tile, direction, channel);
        if !transfers.is_empty() {
            svg.text((bank.x, bank.y + 10.0), "small", &format!("{direction} {channel}: {transfers}"));
        }
    }
}

fn channels(tile: &Tile) -> impl Iterator<Item = (Direction, u8)> + use<> {
    let n_channels = tile.kind().n_channels();
    let directions = [Direction::S2mm, Direction::Mm2s].into_iter();
    directions.flat_map(move |direction| (0..n_channels).map(move |channel| (direction, channel)))
}

/// Bytes by buffer of the kernel: `bo0 64 KiB, bo1 2 KiB`.
fn transfers(tile: &Tile, direction: Direction, channel: u8) -> String {
    let of_channel = |start: &&Start| start.direction == direction && start.channel == channel;
    let mut by_argument = std::collections::BTreeMap::<Option<u64>, u64>::new();
    for start in tile.starts().iter().filter(of_channel) {
        let n_bytes = start.length_bytes.saturating_mul(start.n_times.into());
        let sum = by_argument.entry(start.argument).or_default();
        *sum = sum.saturating_add(n_bytes);
    }
    let name = |argument: Option<u64>| argument.map_or("memory".to_owned(), |argument| format!("bo{argument}"));
    let n_more = by_argument.len().saturating_sub(3);
    let mut parts: Vec<String> =
        by_argument.into_iter().take(3).map(|(argument, sum)| format!("{} {}", name(argument), size(sum))).collect();
    if n_more > 0 {
        parts.push(format!("and {n_more} more"));
    }
    parts.join(", ")
}

fn draw_boxes(svg: &mut Svg, flows: &Flows, tile: &Tile, place: Place, boxes: &Boxes) {
    let first = boxes.rect;
    let mut is_named = false;
    for index in 0..boxes.count {
        let rect = Rect { x: first.x + f64::from(index) * first.width, ..first };
        let (class, colour, tooltip) = match boxes.what {
            Ports::Dma(direction) => {
                let colour = flows.of_channel(place, (direction, index));
                ("port channel", colour, channel_tooltip(tile, direction, index))
            }
            Ports::Of(bundle) => ("port", flows.of_bundle(place, bundle), bundle_tooltip(bundle).to_owned()),
        };
        // A tile always has its channels; of the rest only what is used is drawn.
        if colour.is_none() && !matches!(boxes.what, Ports::Dma(_)) {
            continue;
        }
        is_named = true;
        svg.open(class, &tooltip);
        svg.rect(rect, "port", Some(colour.unwrap_or("#ffffff")));
        if boxes.count > 1 {
            let class = if colour.is_some() { "label on" } else { "label unused" };
            svg.text((rect.x + rect.width / 2.0, rect.y + 9.5), class, &index.to_string());
        }
        svg.close();
    }
    if is_named {
        svg.text((first.x + 0.5, first.y - 3.0), "group", boxes.name);
    }
}

fn bundle_tooltip(bundle: Bundle) -> &'static str {
    match bundle {
        Bundle::Core => "the core's streams",
        Bundle::Control => "control packets",
        Bundle::Trace => "trace packets",
        _ => "buffer of the stream switch",
    }
}

fn channel_tooltip(tile: &Tile, direction: Direction, channel: u8) -> String {
    let mut text = format!("{direction} {channel}");
    let descriptors = tile.channels_of_descriptors().into_iter();
    let mine = descriptors.filter(|(_, channels)| channels.contains(&(direction, channel)));
    let mine: Vec<String> = mine.map(|(descriptor, _)| descriptor.to_string()).collect();
    if !mine.is_empty() {
        text.push_str(&format!("\ndescriptors {}", mine.join(", ")));
    }
    let n_starts =
        tile.starts().iter().filter(|start| (start.direction, start.channel) == (direction, channel)).count();
    if n_starts > 0 {
        text.push_str(&format!("\nstarted {n_starts} times"));
    }
    text
}
