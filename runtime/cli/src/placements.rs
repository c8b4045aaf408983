//! Where each class of ops runs: the short form of a plan that results are labelled with.

use std::{collections::BTreeSet, fmt::Write};

use biga::{
    hal::OpClass,
    load::graph::Graph,
    plan::{Phase, Plan, Reason},
};

/// Ops of one class, in one phase, on one device, for one reason.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Row {
    pub(crate) phase: Phase,
    pub(crate) class: OpClass,
    pub(crate) device: String,
    pub(crate) device_name: String,
    pub(crate) n_ops: usize,
    /// Such as `0-29`; empty for ops outside layers.
    pub(crate) layers: String,
    pub(crate) reason: Reason,
}

/// The rows of a plan, prefill first, in the order of a step.
pub(crate) fn rows(plan: &Plan, graph: &Graph) -> Vec<Row> {
    let mut rows = Vec::new();
    for phase in [Phase::Prefill, Phase::Decode] {
        // Buckets of one phase have the same placements.
        let Some(planned) = plan.phases.iter().find(|planned| planned.phase == phase) else { continue };
        let mut groups: Vec<(OpClass, usize, &Reason, Vec<Option<usize>>)> = Vec::new();
        for ((_, node), placement) in graph.ops().zip(&planned.placements) {
            let same = |(class, device, reason, _): &&mut (OpClass, usize, &Reason, Vec<Option<usize>>)| {
                *class == node.class && *device == placement.device && **reason == placement.reason
            };
            match groups.iter_mut().find(same) {
                Some((.., layers)) => layers.push(node.op.layer),
                None => groups.push((node.class, placement.device, &placement.reason, vec![node.op.layer])),
            }
        }
        groups.sort_by_key(|(class, ..)| *class);
        rows.extend(groups.into_iter().map(|(class, device, reason, layers)| {
            let info = &plan.devices[device].info;
            Row {
                phase,
                class,
                device: info.id.to_string(),
                device_name: info.name.clone(),
                n_ops: layers.len(),
                layers: ranges(&layers),
                reason: reason.clone(),
            }
        }));
    }
    rows
}

/// A table, one row a line.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<8} {:<10} {:<10} {:>5}  {:<12} why\n", "phase", "class", "device", "ops", "layers");
    for row in rows {
        let Row { phase, class, device, n_ops, layers, reason, .. } = row;
        let class = class.name();
        let _ = writeln!(text, "{phase:<8} {class:<10} {device:<10} {n_ops:>5}  {layers:<12} {}", why(reason));
    }
    text
}

/// A reason in words. The causes of fallbacks are told once, in their own list.
pub(crate) fn why(reason: &Reason) -> String {
    match reason {
        Reason::Cost => "least predicted time".to_owned(),
        Reason::User { rule } => format!("asked for: {rule}"),
        Reason::Policy => "policy".to_owned(),
        Reason::OnlyCapable => "no other device can".to_owned(),
        Reason::Fallback { wanted, .. } => format!("fallback from {wanted}"),
    }
}

/// The devices that run ops, each once, in the order of a step.
pub(crate) fn devices(rows: &[Row]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.device.as_str()) {
            names.push(&row.device);
        }
    }
    names.join("+")
}

/// `0-3,7` of a list with repetitions.
fn ranges(layers: &[Option<usize>]) -> String {
    let layers: BTreeSet<usize> = layers.iter().flatten().copied().collect();
    let mut spans: Vec<(usize, usize)> = Vec::new();
    for &layer in &layers {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == layer => *last = layer,
            _ => spans.push((layer, layer)),
        }
    }
    let words = spans.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    words.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn layers_are_shown_as_ranges() {
        let check = |layers: &[usize], text: &str| {
            let layers: Vec<_> = layers.iter().map(|&layer| Some(layer)).chain([None]).collect();
            assert_eq!(ranges(&layers), text);
        };
        check(&[], "");
        check(&[3], "3");
        check(&[0, 0, 1, 2, 5, 7, 6], "0-2,5-7");
        check(&[4, 2], "2,4");
    }
}
