//! Results of a run, as lines and as JSON that can be read back.
//!
//! ```json
//! {"version": 1, "machine": "...", "results": [
//!   {"area": "main", "name": "...", "bound": ">= 0.6", "value": 0.71, "state": "ok", "detail": null, "seconds": 12.5}]}
//! ```
//! `state` is `ok`, `short` or `unavailable`; `value` is null unless measured.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::book::Claim;

const VERSION: u32 = 1;

/// What a claim's command said.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measured {
    value: Option<f64>,
    unavailable: Option<String>,
    detail: Option<String>,
}

impl Measured {
    /// Reads the last line of a command's standard output.
    pub(super) fn from_line(line: &str) -> Measured {
        match serde_json::from_str::<Measured>(line) {
            Ok(measured) if measured.value.is_some() != measured.unavailable.is_some() => measured,
            Ok(_) => Measured::broken(format!("expected either a value or why it is unavailable: {line}")),
            Err(error) => Measured::broken(format!("the last line is no result ({error}): {line}")),
        }
    }

    /// No result at all.
    pub(super) fn broken(why: String) -> Measured {
        Measured { detail: Some(why), ..Measured::default() }
    }
}

/// Whether a claim holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Short,
    Unavailable,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    area: String,
    name: String,
    bound: String,
    #[serde(default)]
    unit: String,
    value: Option<f64>,
    state: State,
    detail: Option<String>,
    seconds: f64,
}

/// Results on one machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    version: u32,
    machine: String,
    results: Vec<Entry>,
}

impl Report {
    /// An empty report.
    pub(super) fn of_this_machine() -> Report {
        Report { version: VERSION, machine: machine(), results: Vec::new() }
    }

    /// Adds a result, held against its bound.
    pub(super) fn add(&mut self, claim: &Claim, measured: Measured, seconds: f64) {
        let (state, detail) = match (measured.value, measured.unavailable) {
            (Some(value), _) if claim.bound.holds(value) => (State::Ok, measured.detail),
            (None, Some(why)) => (State::Unavailable, Some(why)),
            _ => (State::Short, measured.detail),
        };
        self.results.push(Entry {
            area: claim.area.clone(),
            name: claim.name.clone(),
            bound: claim.bound.to_string(),
            unit: claim.bound.unit().to_owned(),
            value: measured.value,
            state,
            detail,
            seconds,
        });
    }

    /// Reads another run's JSON; its values are held against the bounds of the present list.
    ///
    /// # Errors
    /// If the file is no report of this version, or none of its results is in the list.
    pub(super) fn read(file: &Path, claims: &[Claim]) -> Result<Report> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Report::parse(&text, claims).with_context(|| format!("cannot use {}", file.display()))
    }

    fn parse(text: &str, claims: &[Claim]) -> Result<Report> {
        let stored: Report = serde_json::from_str(text).context("no report of claims")?;
        if stored.version != VERSION {
            bail!("a report of version {}, expected {VERSION}", stored.version);
        }
        let mut report = Report { version: VERSION, machine: stored.machine, results: Vec::new() };
        for entry in stored.results {
            let Some(claim) = claims.iter().find(|claim| claim.name == entry.name && claim.area == entry.area) else {
                eprintln!("{}: not in the list any more, or not chosen", entry.name);
                continue;
            };
            let unavailable = (entry.state == State::Unavailable)
                .then(|| entry.detail.clone().unwrap_or_else(|| "no reason given".to_owned()));
            let measured = Measured { value: entry.value, unavailable, detail: entry.detail };
            report.add(claim, measured, entry.seconds);
        }
        if report.results.is_empty() {
            bail!("none of its results is in the list");
        }
        Ok(report)
    }

    /// One line a result: `name  value  bound  state`, then the reason if it is not ok.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.results.iter().map(|entry| {
            let value = match entry.value {
                Some(value) => format!("{} {}", rounded(value), entry.unit).trim_end().to_owned(),
                None => "-".to_owned(),
            };
            let state = match entry.state {
                State::Ok => "ok",
                State::Short => "short",
                State::Unavailable => "unavailable",
            };
            let detail = entry.detail.as_ref().map(|detail| format!("  ({detail})")).unwrap_or_default();
            format!("{:<28} {value:>14}  {:<12} {state}{detail}", entry.name, entry.bound)
        })
    }

    /// As one JSON document.
    ///
    /// # Errors
    /// If a value cannot be written, such as one that is no number.
    pub(super) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// True if a claim falls short.
    pub(super) fn any_short(&self) -> bool {
        self.results.iter().any(|entry| entry.state == State::Short)
    }
}

/// Four significant digits for what is not whole.
fn rounded(value: f64) -> String {
    if value.fract() == 0.0 {
        return format!("{value}");
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 12);
    format!("{value:.*}", digits as usize)
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} threads", model.unwrap_or("unknown CPU").trim())
}

#[cfg(test)]
mod tests {
    use super::{Measured, Report, rounded};
    use crate::claims::book;

    fn claims() -> Vec<book::Claim> {
        book::parse(
            "## main\n| name | claim | bound | command | last figure | date, machine |\n|---|---|---|---|---|---|\n\
             | a | A | >= 2 x | true | - | - |\n| b | B | = 0 | true | - | - |\n",
        )
        .unwrap()
    }

    fn report(first: &str, second: &str) -> Report {
        let mut report = Report::of_this_machine();
        for (claim, line) in claims().iter().zip([first, second]) {
            report.add(claim, Measured::from_line(line), 1.0);
        }
        report
    }

    #[test]
    fn a_value_is_held_against_its_bound() {
        let report = report(r#"{"value": 2.5}"#, r#"{"value": 1, "detail": "one finding"}"#);
        let lines: Vec<String> = report.lines().collect();
        assert!(lines[0].contains("2.500 x") && lines[0].ends_with("ok"), "{lines:?}");
        assert!(lines[1].ends_with("short  (one finding)"), "{lines:?}");
        assert!(report.any_short());
    }

    #[test]
    fn absent_hardware_counts_as_neither() {
        let report = report(r#"{"unavailable": "no NPU"}"#, r#"{"value": 0}"#);
        assert!(report.lines().next().unwrap().ends_with("unavailable  (no NPU)"));
        assert!(!report.any_short());
    }

    #[test]
    fn no_result_is_short() {
        assert!(report("", r#"{"value": 0}"#).any_short());
        assert!(report(r#"{"value": 3, "unavailable": "both"}"#, r#"{"value": 0}"#).any_short());
    }

    #[test]
    fn a_report_is_read_back_against_the_present_bounds() {
        let json = report(r#"{"value": 2.5}"#, r#"{"unavailable": "no NPU"}"#).to_json().unwrap();
        let again = Report::parse(&json, &claims()).unwrap();
        assert_eq!(again.to_json().unwrap(), json);
        let claims: Vec<_> = book::parse(
            "## main\n| name | claim | bound | command | last figure | date, machine |\n| a | A | >= 3 | true | - | - |\n",
        )
        .unwrap();
        assert!(Report::parse(&json, &claims).unwrap().any_short());
        assert!(Report::parse(&json.replace("\"version\": 1", "\"version\": 9"), &claims).is_err());
    }

    #[test]
    fn values_are_shown_short() {
        assert_eq!(rounded(12.0), "12");
        assert_eq!(rounded(0.123_456), "0.1235");
        assert_eq!(rounded(1234.56), "1235");
    }
}
