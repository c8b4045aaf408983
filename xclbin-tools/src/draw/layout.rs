//! Where tiles, memories and ports are. Rows rise from the shim tiles at the bottom; a row in which nothing is used
//! is low.

use std::collections::BTreeSet;

use super::svg::{Point, Rect};
use crate::array::{Bundle, Device, Direction, EndKind, Place, Port, Program, Tile, TileKind};

/// Around the picture.
pub(super) const MARGIN: f64 = 24.0;
/// Bytes of a core tile's program memory in one row.
pub(super) const PROGRAM_ROW_BYTES: u32 = 0x4000;

const TOP: f64 = 58.0;
const TILE_WIDTH: f64 = 324.0;
const GAP: Point = (28.0, 24.0);
/// The wires to and from the tile above.
const LANE: f64 = 56.0;
const SWITCH_HEIGHT: f64 = 60.0;
const HEADER: f64 = 20.0;
/// Boxes of channels and their headings, above the switch.
const BOXES: f64 = 28.0;
const BOX_HEIGHT: f64 = 13.0;
const BOX_WIDTH: f64 = 15.0;
const IDLE_HEIGHT: f64 = 30.0;
const IDLE_WIDTH: f64 = 112.0;

/// The places of all that is drawn.
pub(super) struct Layout {
    n_columns: u8,
    only: Option<Place>,
    /// Top and height, from row 0 on.
    rows: [(f64, f64); Device::N_ROWS as usize],
    /// Left and width, from column 0 on.
    columns: Vec<(f64, f64)>,
    used: BTreeSet<Place>,
    bottom: f64,
}

/// A port at the edge of a switch.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    pub(super) point: Point,
    /// A step of length 1 into the switch.
    pub(super) inward: Point,
}

/// Ports of one kind beside each other.
pub(super) struct Boxes {
    pub(super) name: &'static str,
    pub(super) what: Ports,
    pub(super) count: u8,
    /// Of the first box.
    pub(super) rect: Rect,
}

/// What boxes are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    Dma(Direction),
    Of(Bundle),
}

impl Layout {
    pub(super) fn new(program: &Program, only: Option<Place>) -> Layout {
        let used = program.tiles().filter(|(_, tile)| is_used(tile)).map(|(place, _)| place);
        let used: BTreeSet<Place> = used.chain(only).collect();
        let mut x = MARGIN;
        let mut columns = Vec::new();
        for column in (0..program.n_columns()).filter(|column| only.is_none_or(|place| place.column == *column)) {
            let is_used = used.iter().any(|place| place.column == column);
            let width = if is_used { TILE_WIDTH } else { IDLE_WIDTH };
            columns.push((x, width));
            x += width + GAP.0;
        }
        let (mut rows, mut y) = ([(0.0, 0.0); Device::N_ROWS as usize], TOP);
        for row in (0..Device::N_ROWS).rev().filter(|row| only.is_none_or(|place| place.row == *row)) {
            let kind = Device::tile_kind(row).filter(|_| used.iter().any(|place| place.row == row));
            let has_starts = |(place, tile): (Place, &Tile)| place.row == row && !tile.starts().is_empty();
            let n_transfers = if program.tiles().any(has_starts) { 4.0 } else { 0.0 };
            let height = kind.map_or(IDLE_HEIGHT, |kind| height(kind, n_transfers));
            if let Some(place) = rows.get_mut(usize::from(row)) {
                *place = (y, height);
            }
            y += height + GAP.1;
        }
        Layout { n_columns: program.n_columns(), only, rows, columns, used, bottom: y - GAP.1 }
    }

    /// The tiles, from the left and from the bottom.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let (n_columns, only) = (self.n_columns, self.only);
        let all = (0..n_columns).flat_map(|column| (0..Device::N_ROWS).map(move |row| Place { column, row }));
        all.filter(move |place| only.is_none_or(|only| only == *place))
    }

    /// The right and lower ends of the tiles.
    pub(super) fn end(&self) -> Point {
        (self.columns.last().map_or(MARGIN, |(x, width)| x + width), self.bottom)
    }

    /// The upper end of the tiles.
    pub(super) fn top(&self) -> f64 {
        TOP
    }

    /// Whether legend or list stand beside the tiles, not below.
    pub(super) fn is_narrow(&self) -> bool {
        self.end().0 < 2.0 * (TILE_WIDTH + GAP.0) + MARGIN
    }

    /// Whether a tile is drawn with its contents.
    pub(super) fn is_open(&self, place: Place) -> bool {
        self.used.contains(&place) && self.only.is_none_or(|only| only == place)
    }

    /// The whole of a tile.
    pub(super) fn tile(&self, place: Place) -> Rect {
        let (y, height) = self.rows.get(usize::from(place.row)).copied().unwrap_or_default();
        let column = if self.only.is_some() { 0 } else { place.column };
        let (x, width) = self.columns.get(usize::from(column)).copied().unwrap_or_default();
        Rect { x, y, width, height }
    }

    /// Its stream switch.
    pub(super) fn switch(&self, place: Place) -> Rect {
        let tile = self.tile(place);
        Rect { y: tile.bottom() - SWITCH_HEIGHT, height: SWITCH_HEIGHT, ..tile }
    }

    /// The row of a memory, of which rows are `row_bytes` long.
    pub(super) fn memory_row(&self, place: Place, row: u32) -> Rect {
        let tile = self.tile(place);
        let height = row_height(place);
        let width = TILE_WIDTH - LANE - 10.0;
        Rect { x: tile.x + LANE, y: tile.y + HEADER + f64::from(row) * height, width, height: height - 1.5 }
    }

    /// The boxes above a tile's switch.
    pub(super) fn boxes(&self, place: Place) -> Vec<Boxes> {
        let Some(kind) = Device::tile_kind(place.row) else { return Vec::new() };
        let n_channels = kind.n_channels();
        let mut groups =
            vec![("S2MM", Ports::Dma(Direction::S2mm), n_channels), ("MM2S", Ports::Dma(Direction::Mm2s), n_channels)];
        let bundles =
            [("core", Bundle::Core), ("control", Bundle::Control), ("trace", Bundle::Trace), ("FIFO", Bundle::Fifo)];
        let has = |bundle| kind.slaves().iter().any(|(other, _)| *other == bundle);
        let bundles = bundles.into_iter().filter(|(_, bundle)| has(*bundle));
        groups.extend(bundles.map(|(name, bundle)| (name, Ports::Of(bundle), 1)));
        let switch = self.switch(place);
        let mut x = switch.x + LANE;
        let mut boxes = Vec::new();
        for (name, what, count) in groups {
            let width = if count == 1 { 26.0 } else { BOX_WIDTH };
            let rect = Rect { x, y: switch.y - BOX_HEIGHT, width, height: BOX_HEIGHT };
            boxes.push(Boxes { name, what, count, rect });
            x += f64::from(count) * width + 9.0;
        }
        boxes
    }

    /// Where a stream enters a switch.
    pub(super) fn slave(&self, program: &Program, place: Place, port: Port) -> Spot {
        match program.origin(place, port) {
            Some(EndKind::Dma(direction, channel)) => self.boxed(place, Ports::Dma(direction), channel, 0.0),
            _ => self.spot(place, port, false),
        }
    }

    /// Where a stream leaves a switch.
    pub(super) fn master(&self, program: &Program, place: Place, port: Port) -> Spot {
        match program.leads_to(place, port) {
            Err(EndKind::Dma(direction, channel)) => self.boxed(place, Ports::Dma(direction), channel, 0.0),
            _ => self.spot(place, port, true),
        }
    }

    fn spot(&self, place: Place, port: Port, is_master: bool) -> Spot {
        let switch = self.switch(place);
        let index = f64::from(port.index);
        // Wires to the north and to the east have the outer places.
        let outer = |is_outer: bool, first: f64, second: f64, step: f64| {
            if is_outer { first + index * step } else { second + index * step }
        };
        match port.bundle {
            Bundle::North => {
                Spot { point: (switch.x + outer(is_master, 7.0, 35.0, 4.4), switch.y), inward: (0.0, 1.0) }
            }
            Bundle::South => {
                // A shim tile has two more ways in, and nothing below to meet.
                let (first, second) = if place.row == 0 { (7.0, 60.0) } else { (7.0, 35.0) };
                let x = switch.x + outer(!is_master, first, second, 4.4);
                Spot { point: (x, switch.bottom()), inward: (0.0, -1.0) }
            }
            Bundle::West => {
                Spot { point: (switch.x, switch.y + outer(!is_master, 10.0, 34.0, 5.0)), inward: (1.0, 0.0) }
            }
            Bundle::East => {
                Spot { point: (switch.right(), switch.y + outer(is_master, 10.0, 34.0, 5.0)), inward: (-1.0, 0.0) }
            }
            // Both ways have one box.
            bundle => {
                let aside = if is_master { -5.0 } else { 5.0 - 5.0 * index };
                self.boxed(place, Ports::Of(bundle), 0, aside)
            }
        }
    }

    fn boxed(&self, place: Place, what: Ports, index: u8, aside: f64) -> Spot {
        let boxes = self.boxes(place);
        let rect = boxes.iter().find(|boxes| boxes.what == what).map(|boxes| boxes.rect).unwrap_or_default();
        let x = rect.x + (f64::from(index) + 0.5) * rect.width + aside;
        Spot { point: (x, rect.bottom()), inward: (0.0, 1.0) }
    }
}

/// Whether a tile does more than being reset.
fn is_used(tile: &Tile) -> bool {
    let is_filled = tile.data().n_bytes() > 0 || tile.program().n_bytes() > 0;
    is_filled || tile.descriptors().next().is_some() || !tile.connections().is_empty()
}

/// Rows that a memory is drawn in, and their bytes.
pub(super) fn memory_rows(kind: TileKind) -> (u32, u32) {
    match kind {
        TileKind::Core => (4, 0x4000),
        TileKind::Memory => (8, 0x1_0000),
        TileKind::Shim => (0, 1),
    }
}

fn row_height(place: Place) -> f64 {
    match Device::tile_kind(place.row) {
        Some(TileKind::Core) => 15.0,
        Some(TileKind::Memory) => 14.0,
        _ => 13.0,
    }
}

fn height(kind: TileKind, n_transfers: f64) -> f64 {
    let n_rows = match kind {
        TileKind::Core => 5.0 * 15.0,
        TileKind::Memory => 8.0 * 14.0,
        TileKind::Shim => n_transfers * 13.0,
    };
    HEADER + n_rows + BOXES + SWITCH_HEIGHT
}
