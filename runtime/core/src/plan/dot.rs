//! The plan as a picture: Graphviz, one phase, one cluster per segment.

use std::fmt::Write;

use super::{
    explain::op_name,
    types::{CrossingMethod, Phase, Plan},
};
use crate::load::graph::{Dependency, OpId};

/// Fill colours by device, light enough for black text.
const COLOURS: [&str; 6] = ["#cfe8ff", "#ffe0c2", "#d9f2d0", "#f3d4f2", "#fff3b0", "#e0e0e0"];

impl Plan {
    /// The decode phase in Graphviz's language, for `dot -Tsvg`.
    pub fn to_dot(&self) -> String {
        self.phase_to_dot(Phase::Decode)
    }

    /// One phase in Graphviz's language. Clusters are segments, coloured by device; dashed edges are
    /// crossings.
    pub fn phase_to_dot(&self, phase: Phase) -> String {
        let mut dot =
            String::from("digraph plan {\n  rankdir=TB;\n  node [shape=box, style=filled, fillcolor=white];\n");
        let Some(plan) = self.phases.iter().find(|plan| plan.phase == phase) else { return dot + "}\n" };
        let graph = self.graph();
        // Writing to a string cannot fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = dot.write_fmt(text);
        };
        line(format_args!("  label={};\n", quoted(&format!("{}, {phase}", self.model))));
        for (index, segment) in plan.segments.iter().enumerate() {
            let device = quoted(&self.device_name(segment.device));
            let colour = COLOURS[segment.device % COLOURS.len()];
            line(format_args!("  subgraph cluster_{index} {{\n    label={device}; bgcolor=\"{colour}\";\n"));
            for op in &segment.ops {
                line(format_args!("    op{} [label={}];\n", op.0, quoted(&op_name(graph, *op))));
            }
            line(format_args!("  }}\n"));
        }
        for edge in graph.dag().raw_edges() {
            let (from, to) = (OpId(edge.source().index()), OpId(edge.target().index()));
            let device = plan.placements[to.0].device;
            let crossing = plan.crossings.iter().find(|crossing| crossing.value == from && crossing.to == device);
            let style = match (edge.weight, crossing.map(|crossing| crossing.method)) {
                (Dependency::Kv, _) => " [style=dotted, label=\"kv\"]",
                (_, Some(CrossingMethod::Copy)) => " [style=dashed, label=\"copy\"]",
                (_, Some(CrossingMethod::Shared)) => " [style=dashed]",
                (_, None) => "",
            };
            line(format_args!("  op{} -> op{}{style};\n", from.0, to.0));
        }
        dot + "}\n"
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " "))
}
