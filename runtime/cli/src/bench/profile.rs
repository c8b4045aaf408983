//! The launches of a step, those of all layers together.

use std::{collections::BTreeMap, fmt::Write};

use biga::execute::LaunchTime;
use serde_json::{Value, json};

/// Launches of one kind.
struct Kind {
    name: String,
    count: usize,
    seconds: f64,
    bytes: u64,
}

/// By kind, the slowest first. A launch is named `op layer: kernel`; the layer is left out.
fn kinds(launches: &[LaunchTime]) -> Vec<Kind> {
    let mut kinds: BTreeMap<String, Kind> = BTreeMap::new();
    for launch in launches {
        let (op, kernel) = launch.name.split_once(": ").unwrap_or((&launch.name, ""));
        let name = format!("{}: {kernel}", op.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end());
        let kind = kinds.entry(name.clone()).or_insert(Kind { name, count: 0, seconds: 0.0, bytes: 0 });
        kind.count += 1;
        kind.seconds += launch.seconds;
        kind.bytes += launch.bytes;
    }
    let mut kinds: Vec<Kind> = kinds.into_values().collect();
    kinds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    kinds
}

/// Markdown.
pub(super) fn table(test: &str, launches: &[LaunchTime]) -> String {
    let kinds = kinds(launches);
    let whole: f64 = kinds.iter().map(|kind| kind.seconds).sum();
    let mut text = format!(
        "\nA step of {test}, its {} launches one after another: {:.1} us\n\n\
         | launches | count | us | us each | share | GB/s |\n| --- | ---: | ---: | ---: | ---: | ---: |\n",
        launches.len(),
        whole * 1e6
    );
    for kind in &kinds {
        let us = kind.seconds * 1e6;
        let (each, share) = (us / kind.count.max(1) as f64, 100.0 * kind.seconds / whole.max(1e-12));
        let rate = kind.bytes as f64 / kind.seconds.max(1e-12) / 1e9;
        let _ = writeln!(text, "| {} | {} | {us:.1} | {each:.2} | {share:.1} % | {rate:.0} |", kind.name, kind.count);
    }
    text
}

/// One record a kind.
pub(super) fn records(launches: &[LaunchTime]) -> Vec<Value> {
    let record = |kind: &Kind| json!({ "launches": kind.name, "count": kind.count, "seconds": kind.seconds, "bytes": kind.bytes });
    kinds(launches).iter().map(record).collect()
}
