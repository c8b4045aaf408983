//! The results of a bench: a markdown table, or JSON records with llama-bench's field names.

use std::{collections::BTreeMap, fmt::Write};

use biga::{
    Engine,
    hal::{Counters, DType, WeightRole},
    sample::SamplingParams,
};
use serde_json::{Value, json};

use super::{Measured, profile};
use crate::{
    args::BenchArgs,
    output::JSON_VERSION,
    placements::{self, Row},
    size, stats,
};

/// Mean and sample standard deviation.
fn spread(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

impl Measured {
    fn rates(&self) -> Vec<f64> {
        let tokens = self.test.n_tokens() as f64;
        self.runs.iter().map(|run| tokens / run.time.as_secs_f64().max(1e-9)).collect()
    }

    /// CPU time of the whole process, in microseconds for each token.
    fn host_us_per_token(&self) -> f64 {
        let micros: f64 = self.runs.iter().map(|run| run.host_time.as_secs_f64() * 1e6).sum();
        micros / (self.test.n_tokens() * self.runs.len()).max(1) as f64
    }

    /// What the devices counted in all counted runs together.
    fn counted(&self, what: impl Fn(&Counters) -> u64) -> u64 {
        self.runs.iter().map(|run| what(&run.counted)).sum()
    }
}

/// Markdown: the tests, then where each op ran.
pub(super) fn table(engine: &Engine, measured: &[Measured], rows: &[Row], args: &BenchArgs) -> String {
    let model = engine.model();
    let (size, params) = (size::bytes(model.weights.size_bytes()), params_words(n_params(engine)));
    let (name, backend, threads) = (model_type(engine), placements::devices(rows), threads(engine, args));
    let mut text = format!(
        "| {:<30} | {:>10} | {:>10} | {:<12} | {:>7} | {:>12} | {:>20} |\n",
        "model", "size", "params", "backend", "threads", "test", "t/s"
    );
    text += "| ------------------------------ | ---------: | ---------: | ------------ | ------: | -----------: | -------------------: |\n";
    for one in measured {
        let (mean, deviation) = spread(&one.rates());
        let speed = format!("{mean:.2} ± {deviation:.2}");
        let test = one.test.name();
        let _ = writeln!(
            text,
            "| {name:<30} | {size:>10} | {params:>10} | {backend:<12} | {threads:>7} | {test:>12} | {speed:>20} |"
        );
    }
    for one in measured.iter().filter(|one| !one.profile.is_empty()) {
        text += &profile::table(&one.test.name(), &one.profile);
    }
    text += "\n| phase | class | device | ops | layers | why |\n| --- | --- | --- | ---: | --- | --- |\n";
    for row in rows {
        let Row { phase, class, device, device_name, n_ops, layers, reason } = row;
        let (class, why) = (class.name(), placements::why(reason));
        let _ = writeln!(text, "| {phase} | {class} | {device} ({device_name}) | {n_ops} | {layers} | {why} |");
    }
    text.push('\n');
    text + &stats::fallbacks(&engine.stats())
}

/// One record a test.
pub(super) fn records(engine: &Engine, measured: &[Measured], rows: &[Row], args: &BenchArgs) -> Vec<Value> {
    measured.iter().map(|one| record(engine, one, rows, args)).collect()
}

fn record(engine: &Engine, one: &Measured, rows: &[Row], args: &BenchArgs) -> Value {
    let model = engine.model();
    let rates = one.rates();
    let (avg_ts, stddev_ts) = spread(&rates);
    let nanos: Vec<f64> = one.runs.iter().map(|run| run.time.as_nanos() as f64).collect();
    let (avg_ns, stddev_ns) = spread(&nanos);
    let names = |cpu: bool| -> Vec<&str> {
        let devices = engine.plan().devices.iter().map(|device| &device.info);
        devices.filter(|info| (info.id.backend == "cpu") == cpu).map(|info| info.name.as_str()).collect()
    };
    let kv = engine.plan().kv.first().map(|group| group.dtype.name());
    json!({
        "version": JSON_VERSION,
        "engine": "biga",
        "build_number": env!("CARGO_PKG_VERSION"),
        "cpu_info": names(true).join(", "),
        "gpu_info": names(false).join(", "),
        "backends": placements::devices(rows),
        "model_filename": model.path,
        "model_type": model_type(engine),
        "model_name": model.config.name,
        "model_size": model.weights.size_bytes(),
        "model_n_params": n_params(engine),
        "n_batch": engine.plan().limits.max_tokens,
        "n_ubatch": engine.plan().limits.max_tokens,
        "n_threads": threads(engine, args).parse::<u64>().ok(),
        "type_k": kv,
        "type_v": kv,
        "n_prompt": one.test.n_prompt,
        "n_gen": one.test.n_gen,
        "n_depth": one.test.depth,
        "batch": one.test.batch,
        "avg_ns": avg_ns as u64,
        "stddev_ns": stddev_ns as u64,
        "avg_ts": avg_ts,
        "stddev_ts": stddev_ts,
        "samples_ns": nanos.iter().map(|&ns| ns as u64).collect::<Vec<_>>(),
        "samples_ts": rates,
        "profile": profile::records(&one.profile),
        "host_us_per_token": one.host_us_per_token(),
        "n_steps": one.runs.iter().map(|run| run.n_steps).sum::<u64>(),
        "submissions": one.counted(|counted| counted.submissions),
        "objects_created": one.counted(|counted| counted.objects_created),
        "allocations": one.counted(|counted| counted.allocations),
        "mappings": one.counted(|counted| counted.mappings),
        "sampled": engine.sampled_on(&SamplingParams::GREEDY).to_string(),
        "policy": engine.plan().policy,
        "placements": rows,
        "fallbacks": engine.stats().fallbacks,
    })
}

/// Family, parameters and the format of most of the weights' bytes: `llama 134.52 M q4_1`.
fn model_type(engine: &Engine) -> String {
    let model = engine.model();
    let mut bytes: BTreeMap<DType, u64> = BTreeMap::new();
    for weight in model.weights.iter().filter(|weight| weight.shape.role != WeightRole::Vector) {
        *bytes.entry(weight.dtype).or_default() += weight.slice.size_bytes();
    }
    let most = bytes.into_iter().max_by_key(|&(_, bytes)| bytes);
    let format = most.map_or("", |(dtype, _)| dtype.name());
    format!("{} {} {format}", model.config.family, params_words(n_params(engine)))
}

fn n_params(engine: &Engine) -> u64 {
    engine.model().weights.iter().map(|weight| weight.shape.rows as u64 * weight.shape.columns as u64).sum()
}

fn params_words(n: u64) -> String {
    if n >= 1_000_000_000 { format!("{:.2} B", n as f64 / 1e9) } else { format!("{:.2} M", n as f64 / 1e6) }
}

/// As typed, or as the CPU device says.
fn threads(engine: &Engine, args: &BenchArgs) -> String {
    if let Some(threads) = args.model.machine.threads {
        return threads.to_string();
    }
    let facts = engine.plan().devices.iter().flat_map(|device| &device.info.facts);
    let fact = facts.into_iter().find(|(name, _)| name == "threads");
    fact.map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn the_deviation_is_of_a_sample() {
        assert_eq!(spread(&[2.0]), (2.0, 0.0));
        let (mean, deviation) = spread(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(mean, 5.0);
        assert!((deviation - (32.0_f64 / 7.0).sqrt()).abs() < 1e-12);
    }
}
