//! What one tile holds, as a list beside its picture.

use super::{
    layout::Layout,
    size,
    svg::{Point, Svg, text_width},
};
use crate::array::{BufferDescriptor, Place, Program, Tile, TileKind};

const LINE: f64 = 13.0;

/// Draws the list; returns its right and lower ends.
pub(super) fn draw(svg: &mut Svg, layout: &Layout, program: &Program, place: Place) -> Point {
    let (right, _) = layout.end();
    let (x, mut y) = (right + 32.0, layout.top() + 10.0);
    let lines = program.tile(place).map_or_else(|| vec!["nothing is written to it".to_owned()], lines);
    let widest = lines.iter().map(|line| text_width(line, 9.5)).fold(0.0, f64::max);
    svg.open("detail", "");
    for line in &lines {
        svg.text((x, y), "mono", line);
        y += LINE;
    }
    svg.close();
    (x + widest, y)
}

fn lines(tile: &Tile) -> Vec<String> {
    let mut lines = Vec::new();
    let locks: Vec<String> = tile.locks().map(|(lock, value)| format!("{lock}={value}")).collect();
    for locks in locks.chunks(8) {
        lines.push(format!("locks {}", locks.join(" ")));
    }
    let channels = tile.channels_of_descriptors();
    for descriptor in tile.descriptors() {
        let channels = channels.get(&descriptor.index).map_or(&[][..], Vec::as_slice);
        let channels: Vec<String> =
            channels.iter().map(|(direction, channel)| format!("{direction} {channel}")).collect();
        lines.push(format!(
            "descriptor {:2}  {}  {}",
            descriptor.index,
            channels.join(", "),
            describe(tile.kind(), &descriptor)
        ));
    }
    for connection in tile.connections() {
        let packets = connection.packets.map_or(String::new(), |packets| format!("  {packets}"));
        lines.push(format!("stream  {} -> {}{packets}", connection.slave, connection.master));
    }
    lines
}

fn describe(kind: TileKind, descriptor: &BufferDescriptor) -> String {
    let mut parts = vec![format!("{:#07x} {}", descriptor.address, size(descriptor.length_bytes))];
    match descriptor.neighbour {
        Some(-1) => parts.push("in the column before".to_owned()),
        Some(1) => parts.push("in the next column".to_owned()),
        Some(_) => {}
        None => parts.push("in no memory".to_owned()),
    }
    let walk: Vec<String> = descriptor
        .dimensions
        .iter()
        .filter(|dimension| dimension.n_elements > 0 || dimension.step_words > 1)
        .map(|dimension| match dimension.n_elements {
            0 => format!("by {}", dimension.step_words),
            count => format!("{count} by {}", dimension.step_words),
        })
        .collect();
    if !walk.is_empty() {
        parts.push(format!("walks {}", walk.join(", ")));
    }
    if let Some(lock) = descriptor.acquire {
        let relation = if lock.value < 0 { ">=" } else { "=" };
        parts.push(format!("acquires {}{relation}{}", lock_name(kind, lock.lock), lock.value.unsigned_abs()));
    }
    if let Some(lock) = descriptor.release {
        parts.push(format!("releases {}{:+}", lock_name(kind, lock.lock), lock.value));
    }
    if let Some(id) = descriptor.packet_id {
        parts.push(format!("packets {id}"));
    }
    if let Some(next) = descriptor.next {
        parts.push(format!("then {next}"));
    }
    if !descriptor.is_valid {
        parts.push("not valid".to_owned());
    }
    parts.join("  ")
}

/// A lock as the list of its tile has it: a memory tile's descriptors count through three columns.
fn lock_name(kind: TileKind, lock: u8) -> String {
    let of_column = u8::checked_rem(lock, kind.n_locks()).unwrap_or(lock);
    match lock.checked_div(kind.n_locks()).filter(|_| kind == TileKind::Memory) {
        Some(0) => format!("{of_column} of the column before"),
        Some(1) => of_column.to_string(),
        Some(2) => format!("{of_column} of the next column"),
        _ => lock.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_have_the_numbers_of_their_tile() {
        let check = |kind, lock, expected: &str| assert_eq!(lock_name(kind, lock), expected);
        check(TileKind::Core, 15, "15");
        check(TileKind::Memory, 63, "63 of the column before");
        check(TileKind::Memory, 64, "0");
        check(TileKind::Memory, 130, "2 of the next column");
        check(TileKind::Memory, 192, "192");
    }
}
