//! Flows in colours: those from one tile to the same tiles have one. A wire that carries packets of several colours is
//! dashed and grey; control and trace packets, which every design has, are thin.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    layout::{Layout, Spot},
    svg::{Svg, at},
};
use crate::array::{Bundle, Direction, End, EndKind, Flow, Hop, Place, Port, Program};

/// Where no flow gives a colour.
pub(super) const NEUTRAL: &str = "#94a3b8";
/// Wires that several flows share.
pub(super) const SHARED: &str = "#334155";
/// Loose ends.
pub(super) const LOOSE: &str = "#dc2626";
/// Control and trace packets.
pub(super) const SERVICE: &str = "#a8b3c4";

const COLOURS: [&str; 14] = [
    "#2563eb", "#ea580c", "#16a34a", "#9333ea", "#0891b2", "#ca8a04", "#db2777", "#65a30d", "#4f46e5", "#b45309",
    "#0d9488", "#c026d3", "#0284c7", "#be123c",
];

/// The flows of a program and their colours.
pub(super) struct Flows {
    pub(super) flows: Vec<Flow>,
    /// For each flow, its group.
    groups_of_flows: Vec<usize>,
    pub(super) groups: Vec<Group>,
    channels: BTreeMap<(Place, Direction, u8), usize>,
    bundles: BTreeMap<(Place, Bundle), usize>,
}

/// Flows of one colour.
pub(super) struct Group {
    pub(super) colour: &'static str,
    /// Control and trace packets.
    pub(super) is_service: bool,
    /// The first of them.
    pub(super) first: usize,
    pub(super) n_flows: usize,
}

impl Flows {
    pub(super) fn of(program: &Program) -> Flows {
        let flows = program.flows();
        let mut flows = Flows {
            flows,
            groups_of_flows: Vec::new(),
            groups: Vec::new(),
            channels: BTreeMap::new(),
            bundles: BTreeMap::new(),
        };
        flows.group();
        flows.find_ends();
        flows
    }

    fn group(&mut self) {
        let mut found = BTreeMap::new();
        let mut colours = COLOURS.iter().cycle();
        for (index, flow) in self.flows.iter().enumerate() {
            let is_service = is_service(flow);
            let mut places: Vec<Place> = flow.ends.iter().map(|end| end.place).collect();
            places.sort_unstable();
            places.dedup();
            let key = if is_service { None } else { Some((flow.source.place, places)) };
            let group = *found.entry(key).or_insert_with(|| {
                let colour = if is_service { SERVICE } else { colours.next().copied().unwrap_or(NEUTRAL) };
                self.groups.push(Group { colour, is_service, first: index, n_flows: 0 });
                self.groups.len().saturating_sub(1)
            });
            if let Some(group) = self.groups.get_mut(group) {
                group.n_flows = group.n_flows.saturating_add(1);
            }
            self.groups_of_flows.push(group);
        }
    }

    /// Which group comes to each channel and port; data before control packets.
    fn find_ends(&mut self) {
        let mut order: Vec<(bool, usize, &End)> = Vec::new();
        for (flow, &group) in self.flows.iter().zip(&self.groups_of_flows) {
            let is_service = is_service(flow);
            order.extend(flow.ends.iter().chain([&flow.source]).map(|end| (is_service, group, end)));
        }
        order.sort_by_key(|(is_service, ..)| *is_service);
        for (_, group, end) in order {
            match end.kind {
                EndKind::Dma(direction, channel) => {
                    self.channels.entry((end.place, direction, channel)).or_insert(group);
                }
                _ => {
                    self.bundles.entry((end.place, end.port.bundle)).or_insert(group);
                }
            }
        }
        for (flow, &group) in self.flows.iter().zip(&self.groups_of_flows) {
            for hop in flow.hops.iter().filter(|hop| hop.master.bundle == Bundle::Fifo) {
                self.bundles.entry((hop.place, Bundle::Fifo)).or_insert(group);
            }
        }
    }

    fn colour(&self, group: Option<&usize>) -> Option<&'static str> {
        group.and_then(|group| self.groups.get(*group)).map(|group| group.colour)
    }

    /// The colour of what a channel moves.
    pub(super) fn of_channel(&self, place: Place, (direction, channel): (Direction, u8)) -> Option<&'static str> {
        self.colour(self.channels.get(&(place, direction, channel)))
    }

    /// The colour of what comes to other ports than DMA.
    pub(super) fn of_bundle(&self, place: Place, bundle: Bundle) -> Option<&'static str> {
        self.colour(self.bundles.get(&(place, bundle)))
    }

    /// Draws all of them, those of control packets below the others.
    pub(super) fn draw(&self, svg: &mut Svg, layout: &Layout, program: &Program) {
        let wires = self.wires();
        let mut order: Vec<(&Flow, usize)> = self.flows.iter().zip(self.groups_of_flows.iter().copied()).collect();
        order.sort_by_key(|(flow, _)| !is_service(flow));
        // Flows of one colour may share wires and ends, which are drawn once.
        let (mut drawn, mut marked) = (BTreeSet::new(), BTreeSet::new());
        for (flow, group) in order {
            let colour = self.colour(Some(&group)).unwrap_or(NEUTRAL);
            svg.open(if is_service(flow) { "flow service" } else { "flow" }, &describe(flow));
            let mine = |hop: &&Hop| wires.get(&key(hop)).is_none_or(|groups| groups.len() < 2);
            let hops = flow.hops.iter().filter(|hop| layout.is_open(hop.place)).filter(mine);
            let hops = hops.filter(|hop| drawn.insert(key(hop)));
            let commands: Vec<String> = hops.map(|hop| path(layout, program, hop)).collect();
            if !commands.is_empty() {
                svg.path(&commands.join(" "), "wire", colour);
            }
            for mark in marks(flow).into_iter().filter(|mark| layout.is_open(mark.end.place)) {
                if marked.insert((mark.end, mark.is_left, mark.is_source)) {
                    mark.draw(svg, layout, program, colour);
                }
            }
            svg.close();
        }
        for (&(place, slave, master), groups) in wires.iter().filter(|(_, groups)| groups.len() > 1) {
            if layout.is_open(place) {
                svg.open("shared", &format!("packets of {} flows", groups.len()));
                svg.path(&path(layout, program, &Hop { place, slave, master }), "wire", SHARED);
                svg.close();
            }
        }
    }

    /// The groups on each way through a switch.
    fn wires(&self) -> BTreeMap<(Place, Port, Port), Vec<usize>> {
        let mut wires: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (flow, &group) in self.flows.iter().zip(&self.groups_of_flows) {
            for hop in &flow.hops {
                let groups = wires.entry(key(hop)).or_default();
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
        }
        wires
    }
}

fn key(hop: &Hop) -> (Place, Port, Port) {
    (hop.place, hop.slave, hop.master)
}

/// Whether a flow belongs to the running of the array: control packets, their answers, trace.
fn is_service(flow: &Flow) -> bool {
    let is_service = |end: &End| matches!(end.kind, EndKind::Control | EndKind::Trace);
    is_service(&flow.source) || flow.ends.iter().all(is_service)
}

/// The most ends that a tooltip names.
const N_ENDS_MAX: usize = 24;

/// `0,0 MM2S 0 → 0,2 S2MM 0`, and which packets.
pub(super) fn describe(flow: &Flow) -> String {
    describe_some(flow, N_ENDS_MAX)
}

/// The same with the first ends alone.
pub(super) fn describe_some(flow: &Flow, n_ends: usize) -> String {
    let ends: Vec<String> = flow.ends.iter().take(n_ends).map(ToString::to_string).collect();
    let n_more = flow.ends.len().saturating_sub(n_ends);
    let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
    let packets = flow.packets.map_or(String::new(), |packets| format!(", {packets}"));
    format!("{} → {}{more}{packets}", flow.source, ends.join(" + "))
}

/// A way through a switch and on to the next one.
fn path(layout: &Layout, program: &Program, hop: &Hop) -> String {
    let start = layout.slave(program, hop.place, hop.slave);
    let end = layout.master(program, hop.place, hop.master);
    let distance = (start.point.0 - end.point.0).hypot(start.point.1 - end.point.1);
    // Back to the edge that it comes from, a wire turns the deeper the farther it goes.
    let is_turn = start.inward == end.inward;
    let reach = if is_turn { (distance * 0.3).clamp(6.0, 70.0) } else { (distance * 0.35).clamp(6.0, 38.0) };
    let bent = |spot: Spot| (spot.point.0 + spot.inward.0 * reach, spot.point.1 + spot.inward.1 * reach);
    let mut path = format!("M{}C{} {} {}", at(start.point), at(bent(start)), at(bent(end)), at(end.point));
    if let Ok((place, port)) = program.leads_to(hop.place, hop.master)
        && port.bundle != Bundle::Fifo
    {
        // A neighbour that is not drawn is only pointed at.
        let stub = (end.point.0 - end.inward.0 * 14.0, end.point.1 - end.inward.1 * 14.0);
        let next = if layout.is_open(place) { layout.slave(program, place, port).point } else { stub };
        path.push_str(&format!("L{}", at(next)));
    }
    path
}

/// A dot where a flow begins, an arrowhead where it ends, a cross where it should not.
struct Mark {
    end: End,
    is_source: bool,
    /// Whether the stream leaves the switch there.
    is_left: bool,
}

fn marks(flow: &Flow) -> Vec<Mark> {
    let left: BTreeSet<(Place, Port)> = flow.hops.iter().map(|hop| (hop.place, hop.master)).collect();
    let source = Mark { end: flow.source, is_source: true, is_left: false };
    // A loose end may be at a port by which the stream comes in.
    let is_left = |end: &End| left.contains(&(end.place, end.port));
    let ends = flow.ends.iter().map(|end| Mark { end: *end, is_source: false, is_left: is_left(end) });
    std::iter::once(source).chain(ends).collect()
}

impl Mark {
    fn draw(&self, svg: &mut Svg, layout: &Layout, program: &Program, colour: &str) {
        let End { place, port, .. } = self.end;
        let spot = if self.is_left { layout.master(program, place, port) } else { layout.slave(program, place, port) };
        let (x, y) = spot.point;
        if self.end.is_loose() {
            svg.path(&cross(spot), "wire", LOOSE);
        } else if self.is_source {
            svg.shape(&format!("M{}a2 2 0 1 0 4 0a2 2 0 1 0 -4 0z", at((x - 2.0, y + 1.0))), colour);
        } else {
            svg.shape(&arrow(spot), colour);
        }
    }
}

fn cross(spot: Spot) -> String {
    let (x, y) = spot.point;
    format!("M{}l6 6m0 -6l-6 6", at((x - 3.0, y - 3.0)))
}

/// Out of the switch.
fn arrow(spot: Spot) -> String {
    let ((x, y), (dx, dy)) = (spot.point, spot.inward);
    let base = (x + dx * 5.5, y + dy * 5.5);
    let [left, right] = [2.6, -2.6].map(|side| (base.0 + dy * side, base.1 + dx * side));
    format!("M{}L{}L{}z", at((x, y)), at(left), at(right))
}
