//! A report as text: who and where, then a table for each model.

use std::fmt::Write;

use super::{ModelReport, Report, Row, Summary};
use crate::{machine::Device, test::Test};

/// The whole text.
pub(super) fn of(report: &Report) -> String {
    let mut text = String::new();
    let Report { session, .. } = report;
    let machine = &session.machine;
    let gib = machine.memory_bytes as f64 / (1_u64 << 30) as f64;
    let _ = writeln!(
        text,
        "machine    {}, {} threads, {gib:.0} GiB, Linux {}",
        machine.cpu, machine.threads, machine.kernel
    );
    let Device { id, name, driver, .. } = &session.device;
    let _ = writeln!(text, "device     {id}: {name}, {driver}");
    for engine in &session.engines {
        let what = match (&engine.identity, &engine.unavailable) {
            (Some(identity), _) => identity.clone(),
            (None, why) => format!("unavailable: {}", why.as_deref().unwrap_or("no reason given")),
        };
        let _ = writeln!(text, "{:<10} {what}", engine.name.to_string());
    }
    let bandwidth = match report.read_bytes_per_s {
        Some(rate) => format!("{:.1} GB/s, measured by biga probe in the same run", rate / 1e9),
        None => "not measured".to_owned(),
    };
    let _ = writeln!(text, "reading    {bandwidth}");
    for model in &report.models {
        of_model(&mut text, model);
    }
    text
}

fn of_model(text: &mut String, model: &ModelReport) {
    let facts = &model.facts;
    let weights = if facts.synthetic { "synthetic weights: for speed only" } else { "real weights" };
    let (size, read) = (facts.size_bytes as f64 / 1e9, facts.cost.weight_bytes as f64 / 1e9);
    let _ = writeln!(text, "\n{}: {size:.2} GB, of which a step reads {read:.2} GB; {weights}\n", facts.model);
    *text += "| test | biga | least..most | llama.cpp | least..most | runs | ratio | bytes/token | of bandwidth: biga | llama.cpp |\n";
    *text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for row in &model.tests {
        let Row { test, biga, llama, ratio } = row;
        let unit = if *test == Test::Start { " s" } else { "" };
        let figure = |summary: &Summary| summary.median.map_or("-".to_owned(), |value| rounded(value) + unit);
        let range = |summary: &Summary| match (summary.least, summary.most) {
            (Some(least), Some(most)) => format!("{}..{}", rounded(least), rounded(most)),
            _ => "-".to_owned(),
        };
        let part =
            |summary: &Summary| summary.of_bandwidth.map_or("-".to_owned(), |part| format!("{:.1} %", 100.0 * part));
        let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let bytes = biga.bytes_per_token.or(llama.bytes_per_token);
        let bytes = bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MB", bytes / 1e6));
        let _ = writeln!(
            text,
            "| {test} | {} | {} | {} | {} | {}+{} | {ratio} | {bytes} | {} | {} |",
            figure(biga),
            range(biga),
            figure(llama),
            range(llama),
            biga.n_samples,
            llama.n_samples,
            part(biga),
            part(llama)
        );
    }
    for Row { test, biga, llama, .. } in &model.tests {
        if let (Test::Host { .. }, Some(host)) = (test, biga.host_us_per_token) {
            let submissions = biga.submissions_per_step.unwrap_or_default();
            let objects = biga.objects_created.unwrap_or_default();
            let _ = writeln!(
                text,
                "\n{test}: {host:.1} us of host CPU time for each token, {submissions} submissions for each step, \
                 {objects} objects created, allocated or mapped"
            );
        }
        for (name, summary) in [("biga", biga), ("llama.cpp", llama)] {
            if let Some(why) = summary.unavailable.as_ref().filter(|_| name == "biga" || test.compares()) {
                let _ = writeln!(text, "\n{test}, {name}: unavailable: {why}");
            }
        }
    }
}

/// Four digits.
fn rounded(value: f64) -> String {
    let digits = (3.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 9.0);
    format!("{value:.*}", digits as usize)
}

#[cfg(test)]
mod tests {
    use super::rounded;

    #[test]
    fn four_digits_are_shown() {
        assert_eq!([12345.6, 123.45, 1.2341, 0.001_234].map(rounded), ["12346", "123.5", "1.234", "0.001234"]);
    }
}
