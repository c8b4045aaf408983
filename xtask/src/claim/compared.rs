//! Claims about speed on a GPU: read from a report of `cargo xtask compare`, or measured here if there is a
//! GPU here.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;

use super::Finding;
use crate::{biga_command, claims::pack, compare, process};

/// Which figure.
#[derive(clap::Args)]
pub(super) struct Options {
    /// As the report calls it, such as llama-8b-q4_0; `all` for the worst of all models
    model: String,
    /// Such as pp512, tg128, tg128@d8192, tg32x8, host256, start
    test: String,
    #[arg(long, value_enum, default_value_t = Figure::Ratio)]
    figure: Figure,
    /// The report.json of a run elsewhere; BIGA_COMPARE names it for every claim
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// What is claimed of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// How many times faster than llama.cpp
    Ratio,
    /// Percent of the read bandwidth that our own probe measured
    Bandwidth,
    /// Percent of the speed from an empty context that is kept at depth
    Kept,
    /// Microseconds of host CPU time for each token
    HostUs,
    /// Submissions for each step
    Submissions,
    /// Objects created, allocated or mapped while steps ran
    Objects,
}

/// Reads the figure from a report, or measures it.
pub(super) fn figure(options: &Options) -> Result<Finding> {
    let named = env::var_os("BIGA_COMPARE").filter(|file| !file.is_empty()).map(PathBuf::from);
    let file = match options.from.clone().or(named) {
        Some(file) => file,
        None => match measure(options)? {
            Ok(file) => file,
            Err(why) => return Ok(Finding::Unavailable(why)),
        },
    };
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let report: Value = serde_json::from_str(&text).with_context(|| format!("{} is no report", file.display()))?;
    find(&report, options).with_context(|| format!("in {}", file.display()))
}

/// Runs the tests that the figure needs on this machine's GPU; the inner error says why that cannot be.
fn measure(options: &Options) -> Result<std::result::Result<PathBuf, String>> {
    if pack::folder().is_some() {
        return Ok(Err("the comparison has a pack of its own: cargo xtask compare --pack DIR".to_owned()));
    }
    let output = process::stdout_of(Command::new(biga_command::build()?).args(["probe", "--json"]))?;
    let probe: Value = serde_json::from_str(&output).context("biga probe --json wrote no JSON")?;
    if !probe["devices"].as_array().into_iter().flatten().any(is_gpu) {
        let words = "no GPU here; cargo xtask compare --pack DIR makes a folder to run where one is, and --from reads \
                     its report.json";
        return Ok(Err(words.to_owned()));
    }
    let mut tests = vec![options.test.clone()];
    tests.extend(without_depth(&options.test).filter(|_| options.figure == Figure::Kept).map(str::to_owned));
    let mut arguments = vec!["--tests".to_owned(), tests.join(",")];
    if options.model != "all" {
        arguments.extend(["--models".to_owned(), options.model.clone()]);
    }
    process::run(&mut compare::command(false, &arguments)?)?;
    Ok(Ok(compare::results_folder()?.join("report.json")))
}

/// True for hardware: neither the CPU nor a driver that runs on it says anything about a GPU.
fn is_gpu(device: &Value) -> bool {
    matches!(device["kind"].as_str(), Some("integrated-gpu" | "discrete-gpu"))
}

fn without_depth(test: &str) -> Option<&str> {
    test.split_once("@d").map(|(base, _)| base)
}

/// The figure of the model, or the worst of all models that have it.
fn find(report: &Value, options: &Options) -> Result<Finding> {
    let device = &report["session"]["device"];
    let device_name = device["name"].as_str().unwrap_or("unknown device");
    if !is_gpu(device) {
        return Ok(Finding::Unavailable(format!("the report is of {device_name}, which is no GPU")));
    }
    let models = report["models"].as_array().context("the report has no models")?;
    let chosen = models.iter().filter(|model| options.model == "all" || model["model"] == options.model.as_str());
    let mut worst: Option<(f64, String)> = None;
    let mut missing = Vec::new();
    for model in chosen {
        let name = model["model"].as_str().unwrap_or("?");
        match of_model(model, options) {
            Ok((value, words)) => {
                if worst.as_ref().is_none_or(|(other, _)| options.figure.is_worse(value, *other)) {
                    worst = Some((value, format!("{name}: {words}")));
                }
            }
            Err(why) => missing.push(format!("{name}: {why}")),
        }
    }
    match worst {
        Some((value, words)) => Ok(Finding::Value(value, format!("{words}; {device_name}"))),
        None if missing.is_empty() => Ok(Finding::Unavailable(format!("{} was not measured", options.model))),
        None => Ok(Finding::Unavailable(missing.join("; "))),
    }
}

/// A value and words about it, or why there is none.
fn of_model(model: &Value, options: &Options) -> std::result::Result<(f64, String), String> {
    let row = |test: &str| {
        let found = model["tests"].as_array().into_iter().flatten().find(|row| row["test"] == test);
        found.ok_or_else(|| format!("{test} was not measured"))
    };
    let test = row(&options.test)?;
    let why = |engine: &str| match test[engine]["unavailable"].as_str() {
        Some(why) => format!("{}: {why}", options.test),
        None => format!("{}: no figure", options.test),
    };
    let own = |name: &str| test["biga"][name].as_f64().ok_or_else(|| why("biga"));
    let words = format!("biga {}, llama.cpp {}", in_words(&test["biga"]), in_words(&test["llama"]));
    match options.figure {
        Figure::Ratio => {
            own("median")?;
            Ok((test["ratio"].as_f64().ok_or_else(|| why("llama"))?, words))
        }
        Figure::Bandwidth => {
            own("median")?;
            let part = test["biga"]["of_bandwidth"].as_f64().ok_or("the read bandwidth was not measured")?;
            Ok((100.0 * part, words))
        }
        Figure::Kept => {
            let base = without_depth(&options.test).ok_or("the test names no depth")?;
            let whole = row(base)?["biga"]["median"].as_f64().ok_or_else(|| format!("{base}: no figure"))?;
            Ok((100.0 * own("median")? / whole, format!("{words}; {base}: biga {whole:.4}")))
        }
        Figure::HostUs => Ok((own("host_us_per_token")?, words)),
        Figure::Submissions => Ok((own("submissions_per_step")?, words)),
        Figure::Objects => Ok((own("objects_created")?, words)),
    }
}

fn in_words(summary: &Value) -> String {
    let number = |name: &str| summary[name].as_f64();
    match (number("median"), number("least"), number("most"), summary["n_samples"].as_u64()) {
        (Some(median), Some(least), Some(most), Some(n)) => format!("{median:.4} ({least:.4}..{most:.4}, {n} runs)"),
        _ => "-".to_owned(),
    }
}

impl Figure {
    fn is_worse(self, value: f64, other: f64) -> bool {
        match self {
            Figure::Ratio | Figure::Bandwidth | Figure::Kept => value < other,
            Figure::HostUs | Figure::Submissions | Figure::Objects => value > other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Finding, Options, find};
    use serde_json::{Value, json};

    /// Two models of our own making; the second has no figure of llama.cpp.
    fn report() -> Value {
        let biga = |median: f64, host: f64| {
            json!({"median": median, "least": median, "most": median, "n_samples": 5, "of_bandwidth": median / 100.0,
                "host_us_per_token": host, "submissions_per_step": 1.0, "objects_created": 0, "unavailable": null})
        };
        let llama = json!({"median": 20.0, "least": 19.0, "most": 21.0, "n_samples": 5, "unavailable": null});
        let none = json!({"median": null, "n_samples": 0, "unavailable": "no llama-bench"});
        let row = |test: &str, biga: &Value, llama: &Value, ratio: Value| json!({"test": test, "biga": biga, "llama": llama, "ratio": ratio});
        json!({"version": 1, "session": {"device": {"name": "G", "kind": "discrete-gpu"}}, "models": [
            {"model": "a", "tests": [row("tg4", &biga(60.0, 9.0), &llama, json!(3.0)),
                                     row("tg4@d8", &biga(48.0, 9.0), &llama, json!(2.4))]},
            {"model": "b", "tests": [row("tg4", &biga(30.0, 12.0), &none, Value::Null)]}]})
    }

    fn check(model: &str, test: &str, figure: Figure, expected: std::result::Result<f64, &str>) {
        let options = Options { model: model.to_owned(), test: test.to_owned(), figure, from: None };
        match (find(&report(), &options).unwrap(), expected) {
            (Finding::Value(value, words), Ok(expected)) => {
                assert!((value - expected).abs() < 1e-9, "{model} {test} {figure:?}: {value}, {words}");
                assert!(words.ends_with("; G"), "{words}");
            }
            (Finding::Unavailable(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (Finding::Value(value, words), Err(part)) => panic!("{value} ({words}) instead of {part:?}"),
            (Finding::Unavailable(why), Ok(expected)) => panic!("{why} instead of {expected}"),
        }
    }

    #[test]
    fn figures_are_read_from_a_report() {
        check("a", "tg4", Figure::Ratio, Ok(3.0));
        check("a", "tg4", Figure::Bandwidth, Ok(60.0));
        check("a", "tg4@d8", Figure::Kept, Ok(80.0));
        check("a", "tg4", Figure::Submissions, Ok(1.0));
        check("a", "tg4", Figure::Objects, Ok(0.0));
    }

    #[test]
    fn of_all_models_the_worst_counts() {
        check("all", "tg4", Figure::HostUs, Ok(12.0));
        check("all", "tg4", Figure::Bandwidth, Ok(30.0));
        check("all", "tg4", Figure::Ratio, Ok(3.0));
    }

    #[test]
    fn a_report_of_no_gpu_says_nothing() {
        let mut report = report();
        report["session"]["device"]["kind"] = json!("software-gpu");
        let options = Options { model: "a".to_owned(), test: "tg4".to_owned(), figure: Figure::Ratio, from: None };
        let Finding::Unavailable(why) = find(&report, &options).unwrap() else { panic!("a value of no GPU") };
        assert!(why.contains('G') && why.contains("no GPU"), "{why}");
    }

    #[test]
    fn what_was_not_measured_says_so() {
        check("b", "tg4", Figure::Ratio, Err("no llama-bench"));
        check("b", "pp9", Figure::Ratio, Err("pp9 was not measured"));
        check("c", "tg4", Figure::Ratio, Err("c was not measured"));
        check("a", "tg4", Figure::Kept, Err("no depth"));
    }
}
