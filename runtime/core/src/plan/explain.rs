//! The table that people read: what runs where, why, and what it should cost.

use std::{collections::BTreeSet, fmt};

use super::types::{CrossingMethod, Phase, PhasePlan, Plan, Reason};
use crate::load::graph::{Graph, OpId};

/// Prints a plan; made by [`Plan::explain`].
#[derive(Clone, Copy, Debug)]
pub struct Explain<'a>(&'a Plan);

impl Plan {
    /// A table for people: placements with reasons, fallbacks, crossings, memory, predicted times.
    pub fn explain(&self) -> Explain<'_> {
        Explain(self)
    }

    /// The op graph that was planned.
    pub fn graph(&self) -> &Graph {
        &self.inputs.0.graph
    }

    /// The largest bucket of each phase, for showing one plan per phase.
    pub(super) fn shown_phases(&self) -> impl Iterator<Item = &PhasePlan> {
        Phase::ALL.iter().filter_map(|&phase| match phase {
            Phase::Prefill => self.phases.iter().rev().find(|plan| plan.phase == phase),
            Phase::Decode => self.phases.iter().find(|plan| plan.phase == phase),
        })
    }

    pub(super) fn device_name(&self, device: usize) -> String {
        self.devices.get(device).map_or_else(|| format!("#{device}"), |device| device.id().to_string())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Cost => f.write_str("least predicted time"),
            Reason::User { rule } => write!(f, "rule {rule}"),
            Reason::Policy => f.write_str("policy"),
            Reason::OnlyCapable => f.write_str("only device that can"),
            Reason::Fallback { wanted, cause } => write!(f, "FALLBACK from {wanted}: {cause}"),
        }
    }
}

/// One line of the table: ops of one class and several layers with the same device and reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) class: &'static str,
    /// First and last layer.
    pub(super) layers: Option<(usize, usize)>,
    /// In execution order.
    pub(super) ops: Vec<&'static str>,
    pub(super) phases: Vec<Phase>,
    pub(super) device: usize,
    pub(super) reason: Reason,
}

impl Plan {
    /// Placements, merged over the ops of a class, neighbouring layers and phases.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for phase in self.shown_phases() {
            for row in merge_layers(self.layer_rows(phase)) {
                let same = |known: &&mut Row| {
                    Row { phases: row.phases.clone(), ..(**known).clone() } == row
                        && !known.phases.contains(&phase.phase)
                };
                match rows.iter_mut().find(same) {
                    Some(known) => known.phases.push(phase.phase),
                    None => rows.push(row),
                }
            }
        }
        rows.sort_by_key(|row| (class_order(row.class), row.layers.map(|(first, _)| first)));
        rows
    }

    /// One row per class, layer, device and reason.
    fn layer_rows(&self, phase: &PhasePlan) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        for ((_, node), placement) in self.graph().ops().zip(&phase.placements) {
            let row = Row {
                class: node.class.name(),
                layers: node.op.layer.map(|layer| (layer, layer)),
                ops: vec![node.op.kind.name()],
                phases: vec![phase.phase],
                device: placement.device,
                reason: placement.reason.clone(),
            };
            // Rows of one class and layer lie close together.
            let same = |known: &&mut Row| Row { ops: row.ops.clone(), ..(**known).clone() } == row;
            match rows.iter_mut().rev().take(16).find(same) {
                Some(known) => known.ops.extend(row.ops),
                None => rows.push(row),
            }
        }
        for row in &mut rows {
            let mut seen = BTreeSet::new();
            row.ops.retain(|op| seen.insert(*op));
        }
        rows
    }
}

fn merge_layers(rows: Vec<Row>) -> Vec<Row> {
    let mut merged: Vec<Row> = Vec::new();
    for row in rows {
        let follows = |known: &&mut Row| match (known.layers, row.layers) {
            (Some((_, last)), Some((first, _))) => {
                last + 1 == first && Row { layers: row.layers, ..(**known).clone() } == row
            }
            _ => false,
        };
        match merged.iter_mut().find(follows) {
            Some(known) => known.layers = known.layers.zip(row.layers).map(|((first, _), (_, last))| (first, last)),
            None => merged.push(row),
        }
    }
    merged
}

fn class_order(class: &str) -> usize {
    match class {
        "embed" => 0,
        "attention" | "ffn" => 1,
        "head" => 2,
        _ => 3,
    }
}

impl fmt::Display for Explain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let exact = match (plan.optimal, plan.gap) {
            (true, _) => String::new(),
            (false, Some(gap)) => format!(" (at most {:.2} % from the best)", gap * 100.0),
            (false, None) => " (not proven best)".to_owned(),
        };
        writeln!(f, "{}: policy {}{exact}", plan.model, plan.policy)?;
        for rule in plan.rules() {
            writeln!(f, "  rule {rule}")?;
        }
        self.placements(f)?;
        self.fallbacks(f)?;
        self.crossings(f)?;
        self.kv(f)?;
        self.memory(f)?;
        self.times(f)
    }
}

impl Explain<'_> {
    fn placements(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let cells = plan.rows().into_iter().map(|row| {
            let layers = match row.layers {
                None => String::new(),
                Some((first, last)) if first == last => first.to_string(),
                Some((first, last)) => format!("{first}-{last}"),
            };
            let phases: Vec<String> = row.phases.iter().map(Phase::to_string).collect();
            vec![
                row.class.to_owned(),
                layers,
                phases.join(", "),
                plan.device_name(row.device),
                row.reason.to_string(),
                row.ops.join(" "),
            ]
        });
        table(f, &["class", "layers", "phases", "device", "reason", "ops"], cells.collect())
    }

    fn fallbacks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        if plan.fallbacks.is_empty() {
            return Ok(());
        }
        let cells = plan.fallbacks.iter().map(|fallback| {
            vec![
                fallback.op.clone(),
                fallback.phase.to_string(),
                fallback.count.to_string(),
                fallback.wanted.clone(),
                fallback.ran_on.clone(),
                fallback.cause.clone(),
            ]
        });
        table(f, &["fallback", "phase", "count", "wanted", "ran on", "cause"], cells.collect())
    }

    fn crossings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let mut cells: Vec<(Vec<String>, usize, f64)> = Vec::new();
        for phase in plan.shown_phases() {
            for crossing in &phase.crossings {
                let method = match crossing.method {
                    CrossingMethod::Shared => "shared",
                    CrossingMethod::Copy => "copy",
                };
                let value = plan.graph().op(crossing.value).op.kind.name();
                let row = vec![
                    phase.phase.to_string(),
                    format!("{} -> {}", plan.device_name(crossing.from), plan.device_name(crossing.to)),
                    value.to_owned(),
                    method.to_owned(),
                ];
                match cells.iter_mut().find(|(known, ..)| *known == row) {
                    Some((_, count, sum)) => {
                        *count += 1;
                        *sum += crossing.predicted_s;
                    }
                    None => cells.push((row, 1, crossing.predicted_s)),
                }
            }
        }
        if cells.is_empty() {
            return writeln!(f, "\nno crossings");
        }
        let rows = cells.into_iter().map(|(mut row, count, sum)| {
            row.extend([count.to_string(), format!("{:.3} ms", sum * 1e3)]);
            row
        });
        table(f, &["phase", "crossing", "value of", "method", "count", "predicted"], rows.collect())
    }

    fn kv(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let cells = plan.kv.iter().enumerate().map(|(index, group)| {
            let accessors: Vec<String> = group.accessors.iter().map(|&device| plan.device_name(device)).collect();
            vec![
                index.to_string(),
                format!("{} ({})", ranges(&group.layers), group.layers.len()),
                plan.device_name(group.home),
                accessors.join(" "),
                group.dtype.to_string(),
                group.window.map_or("all".to_owned(), |window| window.to_string()),
            ]
        });
        table(f, &["kv group", "layers", "home", "also used by", "format", "window"], cells.collect())
    }

    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let cells = plan.devices.iter().zip(&plan.memory).map(|(device, used)| {
            let weights = match (used.weights_bytes, used.in_place_bytes) {
                (own, 0) => mib(own),
                (0, in_place) => format!("in place, {}", mib(in_place)),
                (own, in_place) => format!("{} + in place, {}", mib(own), mib(in_place)),
            };
            let sizes = [used.kv_bytes, used.values_bytes, used.other_bytes, used.total_bytes(), device.budget_bytes];
            let name = format!("{} ({})", device.id(), device.info.name);
            [name, weights].into_iter().chain(sizes.map(mib)).collect()
        });
        table(f, &["memory, MiB", "weights", "kv", "values", "other", "total", "budget"], cells.collect())
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measured = self.0.devices.iter().all(|device| device.info.rates.measured);
        let cells = self.0.phases.iter().map(|phase| {
            let tokens = phase.bucket.tokens as f64;
            vec![
                phase.phase.to_string(),
                phase.bucket.tokens.to_string(),
                phase.bucket.sequences.to_string(),
                format!("{:.3} ms", phase.predicted_s * 1e3),
                format!("{:.1} tok/s", tokens / phase.predicted_s.max(1e-12)),
                format!("{:.1} tok/s", tokens / phase.limit_s.max(1e-12)),
            ]
        });
        table(f, &["predicted", "tokens", "sequences", "step", "speed", "machine's limit"], cells.collect())?;
        let note = if measured { "" } else { "\nfrom assumed rates: `biga probe --measure` measures this machine\n" };
        f.write_str(note)
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / (1u64 << 20) as f64)
}

/// `0-4, 6-10`
fn ranges(layers: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &layer in layers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == layer => *last = layer,
            _ => ranges.push((layer, layer)),
        }
    }
    let shown =
        |&(first, last): &(usize, usize)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let more = if ranges.len() > 4 { ", ..." } else { "" };
    ranges.iter().take(4).map(shown).collect::<Vec<String>>().join(", ") + more
}

/// Columns as wide as their widest cell; the last is not padded.
fn table(f: &mut fmt::Formatter<'_>, head: &[&str], rows: Vec<Vec<String>>) -> fmt::Result {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        writeln!(f, "{}", padded.join("  ").trim_end())
    };
    line(&mut std::iter::once(""))?;
    line(&mut head.iter().copied())?;
    for row in &rows {
        line(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

/// Short name of a value or op in graphs and reports.
pub(super) fn op_name(graph: &Graph, op: OpId) -> String {
    let node = graph.op(op);
    match node.op.layer {
        Some(layer) => format!("{}.{layer}", node.op.kind.name()),
        None => node.op.kind.name().to_owned(),
    }
}
