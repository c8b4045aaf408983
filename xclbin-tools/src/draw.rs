//! Pictures of the array as SVG: tiles, buffers in their memories to scale, DMA channels, and flows hop by hop.
//!
//! Every tile has its stream switch at the bottom and, at its left, the lane of wires to and from the tile above. A
//! wire is a port, so that a border between two tiles has at most ten. What is hidden in small print is in tooltips
//! (`title` elements). The same program always gives the same bytes; names are escaped.

mod buffers;
mod detail;
mod flows;
mod layout;
mod legend;
mod svg;
mod tiles;

use crate::array::{Place, Program};
use flows::Flows;
use layout::Layout;
use svg::Svg;

/// What to draw.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The heading.
    pub title: &'a str,
    /// What the array was made.
    pub program: &'a Program,
    /// One tile alone, with a list of what it holds.
    pub tile: Option<Place>,
}

impl Picture<'_> {
    /// The picture, as an SVG document.
    #[must_use]
    pub fn svg(&self) -> String {
        let flows = Flows::of(self.program);
        let layout = Layout::new(self.program, self.tile);
        let mut svg = Svg::default();
        for place in layout.places() {
            tiles::draw(&mut svg, &layout, self.program, &flows, place);
        }
        flows.draw(&mut svg, &layout, self.program);
        let (mut right, mut bottom) = layout.end();
        let beside = match self.tile {
            Some(place) => detail::draw(&mut svg, &layout, self.program, place),
            None => legend::draw(&mut svg, &layout, &flows),
        };
        (right, bottom) = (right.max(beside.0), bottom.max(beside.1));
        svg.text((layout::MARGIN, 26.0), "title", self.title);
        svg.text((layout::MARGIN, 42.0), "small", &self.summary(&flows));
        svg.finish(self.title, (right + layout::MARGIN, bottom + layout::MARGIN))
    }

    fn summary(&self, flows: &Flows) -> String {
        let n_cores = self.program.tiles().filter(|(_, tile)| tile.is_core_enabled()).count();
        let n_loose = flows.flows.iter().filter(|flow| !flow.is_whole()).count();
        let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
        let mut parts = vec![
            count(self.program.n_columns().into(), "column"),
            format!("{} running", count(n_cores, "core")),
            count(flows.flows.len(), "flow"),
        ];
        if n_loose > 0 {
            parts.push(format!("{n_loose} with loose ends"));
        }
        parts.join(" · ")
    }
}

/// Bytes in the unit that is shortest: `512 B`, `3.5 KiB`.
fn size(n_bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if n_bytes >= 1 << shift {
            let tenths = n_bytes.saturating_mul(10) >> shift;
            let (whole, tenth) = (tenths.checked_div(10).unwrap_or(0), tenths.checked_rem(10).unwrap_or(0));
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    format!("{n_bytes} B")
}

#[cfg(test)]
mod tests;
