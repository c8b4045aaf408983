//! The legend: a line for each colour, and how to read the rest.

use super::{
    flows::{Flows, Group, LOOSE, SERVICE, SHARED, describe, describe_some},
    layout::{Layout, MARGIN},
    svg::{Point, Rect, Svg, at, text_width},
};

const LINE: f64 = 15.0;
const WIDTH: f64 = 340.0;
/// More lines help nobody: tooltips have all.
const N_LINES_MAX: usize = 128;

/// Draws it beside narrow partitions and below wide ones; returns its right and lower ends.
pub(super) fn draw(svg: &mut Svg, layout: &Layout, flows: &Flows) -> Point {
    let (right, bottom) = layout.end();
    let entries = entries(flows);
    let (start, n_columns) = if layout.is_narrow() {
        ((right + 36.0, layout.top()), 1)
    } else {
        ((MARGIN, bottom + 30.0), (1..).take_while(|n| f64::from(*n) * WIDTH <= right).last().unwrap_or(1))
    };
    let n_lines = entries.len().div_ceil(n_columns.max(1) as usize);
    svg.open("legend", "");
    for (index, entry) in entries.iter().enumerate() {
        let (column, line) = (index.checked_div(n_lines).unwrap_or(0), index.checked_rem(n_lines).unwrap_or(0));
        entry.draw(svg, (start.0 + column as f64 * WIDTH, start.1 + line as f64 * LINE + 8.0));
    }
    svg.close();
    (start.0 + if layout.is_narrow() { WIDTH } else { 0.0 }, start.1 + n_lines as f64 * LINE)
}

struct Entry {
    sign: Sign,
    text: String,
    tooltip: String,
}

enum Sign {
    Wire(&'static str, &'static str),
    Cross,
    Stripes(&'static str, &'static str),
    Loaded,
    Nothing,
}

fn entries(flows: &Flows) -> Vec<Entry> {
    let data: Vec<&Group> = flows.groups.iter().filter(|group| !group.is_service).collect();
    let n_more = data.len().saturating_sub(N_LINES_MAX);
    let mut entries: Vec<Entry> = data.iter().take(N_LINES_MAX).map(|group| of_group(flows, group)).collect();
    let mut explain = |sign: Sign, text: String| entries.push(Entry { sign, text, tooltip: String::new() });
    if n_more > 0 {
        explain(Sign::Nothing, format!("and {n_more} more: point at a wire"));
    }
    if let Some(group) = flows.groups.iter().find(|group| group.is_service) {
        explain(Sign::Wire(SERVICE, "service"), format!("control and trace packets ({} flows)", group.n_flows));
    }
    if data.iter().any(|group| flows.flows.get(group.first).is_some_and(|flow| flow.packets.is_some())) {
        explain(Sign::Wire(SHARED, "shared"), "packets of several flows".to_owned());
    }
    if flows.flows.iter().any(|flow| !flow.is_whole()) {
        explain(Sign::Cross, "loose end: the stream would stall".to_owned());
    }
    explain(
        Sign::Stripes("#2563eb", "#ea580c"),
        "buffer: above who fills it, below who drains it; grey if nobody".to_owned(),
    );
    explain(Sign::Loaded, "memory that is loaded".to_owned());
    entries
}

fn of_group(flows: &Flows, group: &Group) -> Entry {
    let flow = flows.flows.get(group.first);
    let tooltip = flow.map(describe).unwrap_or_default();
    let count = if group.n_flows > 1 { format!("  ×{}", group.n_flows) } else { String::new() };
    let room = WIDTH - 50.0 - text_width(&count, 9.0);
    let mut text = tooltip.clone();
    if let Some(flow) = flow {
        // Four ends are too long for a line in any case.
        let shorter = (1..=4).rev().map(|n_ends| describe_some(flow, n_ends));
        let mut shorter = std::iter::once(text.clone()).chain(shorter).skip_while(|text| text_width(text, 9.0) > room);
        text = shorter.next().unwrap_or_else(|| describe_some(flow, 1));
    }
    Entry { sign: Sign::Wire(group.colour, "flow"), text: format!("{text}{count}"), tooltip }
}

impl Entry {
    fn draw(&self, svg: &mut Svg, (x, y): Point) {
        let class = match self.sign {
            Sign::Wire(_, class) => class,
            _ => "sign",
        };
        // Flows are counted by their class.
        svg.open(&format!("entry {class}-entry {}", if class == "flow" { "" } else { class }), &self.tooltip);
        let rect = Rect { x, y: y - 8.0, width: 22.0, height: 10.0 };
        match self.sign {
            Sign::Wire(colour, _) => svg.path(&format!("M{}h22", at((x, y - 3.0))), "wire", colour),
            Sign::Cross => svg.path(&format!("M{}l6 6m0 -6l-6 6", at((x + 8.0, y - 6.0))), "wire", LOOSE),
            Sign::Stripes(upper, lower) => {
                svg.rect(Rect { height: 5.0, ..rect }, "stripe", Some(upper));
                svg.rect(Rect { y: y - 3.0, height: 5.0, ..rect }, "stripe", Some(lower));
                svg.rect(rect, "frame", None);
            }
            Sign::Loaded => svg.rect(rect, "initial", None),
            Sign::Nothing => {}
        }
        svg.text((x + 30.0, y), "entry-text", &self.text);
        svg.close();
    }
}
