//! What a file of results says: medians over the rounds, ratios of medians, bytes and bandwidth.
//!
//! A report is of one session, the last of the file: one machine, one device, one build of each engine.

mod table;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use biga::hal::DType;
use serde::Serialize;

use crate::{
    engines::{Name, Sample},
    model::Facts,
    record::{Line, Session, VERSION},
    test::Test,
};

/// Everything, in the shape of the JSON that is written.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    version: u32,
    session: Session,
    /// Median of what our probe measured at every start of a run.
    read_bytes_per_s: Option<f64>,
    models: Vec<ModelReport>,
}

#[derive(Clone, Debug, Serialize)]
struct ModelReport {
    #[serde(flatten)]
    facts: Facts,
    tests: Vec<Row>,
}

/// One test of one model.
#[derive(Clone, Debug, Serialize)]
struct Row {
    test: Test,
    biga: Summary,
    llama: Summary,
    /// How many times faster ours is, by the medians.
    ratio: Option<f64>,
}

/// One engine's samples of a test.
#[derive(Clone, Debug, Default, Serialize)]
struct Summary {
    /// Tokens per second; seconds for the start.
    median: Option<f64>,
    least: Option<f64>,
    most: Option<f64>,
    n_samples: usize,
    /// What each token reads at least: weights, divided by the streams, and its own KV cache.
    bytes_per_token: Option<f64>,
    /// Those bytes at the median speed, as a part of the measured read bandwidth.
    of_bandwidth: Option<f64>,
    host_us_per_token: Option<f64>,
    submissions_per_step: Option<f64>,
    objects_created: Option<u64>,
    /// Why there is no figure.
    unavailable: Option<String>,
}

impl Report {
    /// Of the last session.
    ///
    /// # Errors
    /// If the lines hold none.
    pub(crate) fn of(lines: &[Line]) -> Result<Report> {
        let session = lines.iter().rev().find_map(|line| match line {
            Line::Session(session) => Some(session.clone()),
            _ => None,
        });
        let session = session.context("the file holds no session")?;
        let mut rates: Vec<f64> = lines
            .iter()
            .filter_map(|line| match line {
                Line::Bandwidth { session: of, read_bytes_per_s, .. } if *of == session.id => *read_bytes_per_s,
                _ => None,
            })
            .collect();
        let read_bytes_per_s = median(&mut rates);
        let models = models(lines, &session.id).map(|facts| {
            let found = Found { lines, session: &session, facts: &facts, read_bytes_per_s };
            ModelReport { tests: found.rows(), facts: facts.clone() }
        });
        let models = models.collect();
        Ok(Report { version: VERSION, session, read_bytes_per_s, models })
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        table::of(self)
    }
}

/// The models of a session, as last described, in the order in which they first came.
fn models<'l>(lines: &'l [Line], id: &'l str) -> impl Iterator<Item = Facts> {
    let mut models: Vec<Facts> = Vec::new();
    for line in lines {
        let Line::Model { session, facts } = line else { continue };
        match models.iter_mut().find(|known| known.model == facts.model) {
            _ if session != id => {}
            Some(known) => *known = facts.clone(),
            None => models.push(facts.clone()),
        }
    }
    models.into_iter()
}

/// The lines of one model in one session.
struct Found<'l> {
    lines: &'l [Line],
    session: &'l Session,
    facts: &'l Facts,
    read_bytes_per_s: Option<f64>,
}

impl Found<'_> {
    fn rows(&self) -> Vec<Row> {
        let mut samples: BTreeMap<(Test, Name), Vec<&Sample>> = BTreeMap::new();
        let mut reasons: BTreeMap<(Test, Name), &str> = BTreeMap::new();
        let mut tests: Vec<Test> = Vec::new();
        let mut known = |test| {
            if !tests.contains(&test) {
                tests.push(test);
            }
        };
        for line in self.lines {
            match line {
                Line::Sample { session, model, engine, sample, .. } if self.is_mine(session, model) => {
                    known(sample.test);
                    samples.entry((sample.test, *engine)).or_default().push(sample);
                }
                Line::Failure { session, model, engine, tests, reason } if self.is_mine(session, model) => {
                    for &test in tests {
                        known(test);
                        reasons.insert((test, *engine), reason);
                    }
                }
                _ => {}
            }
        }
        let row = |test: Test| {
            let summary = |name| {
                let samples = samples.get(&(test, name)).map_or(&[][..], Vec::as_slice);
                self.summary(test, name, samples, reasons.get(&(test, name)).copied())
            };
            let (biga, llama) = (summary(Name::Biga), summary(Name::Llama));
            let ratio = match (biga.median, llama.median) {
                // Of seconds, fewer are better.
                (Some(ours), Some(theirs)) if test == Test::Start => Some(theirs / ours),
                (Some(ours), Some(theirs)) => Some(ours / theirs),
                _ => None,
            };
            Row { test, biga, llama, ratio }
        };
        tests.into_iter().map(row).collect()
    }

    fn is_mine(&self, session: &str, model: &str) -> bool {
        session == self.session.id && model == self.facts.model
    }

    fn summary(&self, test: Test, name: Name, samples: &[&Sample], reason: Option<&str>) -> Summary {
        let mut values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let middle = median(&mut values);
        if middle.is_none() {
            return Summary { unavailable: Some(self.why(test, name, reason)), ..Summary::default() };
        }
        let kv = samples.iter().find_map(|sample| DType::from_name(sample.kv.as_deref()?)).unwrap_or(DType::F16);
        let step_bytes = self.facts.cost.step_bytes(test, kv).ok().flatten();
        let batch = match test {
            Test::Decode { batch, .. } => batch,
            _ => 1,
        };
        let bytes_per_token = step_bytes.map(|bytes| bytes / batch as f64);
        let part = |rate: f64| Some(bytes_per_token? * middle? / rate);
        let mut host: Vec<f64> = samples.iter().filter_map(|sample| sample.host_us_per_token).collect();
        Summary {
            median: middle,
            least: values.first().copied(),
            most: values.last().copied(),
            n_samples: values.len(),
            bytes_per_token,
            of_bandwidth: self.read_bytes_per_s.and_then(part),
            host_us_per_token: median(&mut host),
            submissions_per_step: samples.iter().filter_map(|sample| sample.submissions_per_step).reduce(f64::max),
            objects_created: samples.iter().filter_map(|sample| sample.objects_created).max(),
            unavailable: None,
        }
    }

    fn why(&self, test: Test, name: Name, reason: Option<&str>) -> String {
        let engine = self.session.engines.iter().find(|engine| engine.name == name);
        let absent = engine.and_then(|engine| engine.unavailable.as_deref());
        match (absent, reason) {
            (Some(absent), _) => absent.to_owned(),
            _ if name == Name::Llama && !test.compares() => "measured for biga alone".to_owned(),
            (_, Some(reason)) => reason.to_owned(),
            _ => "not reached yet".to_owned(),
        }
    }
}

/// The middle of the values, which are sorted on the way; between two middles, their mean.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(values[n / 2]),
        _ => Some((values[n / 2 - 1] + values[n / 2]) / 2.0),
    }
}

#[cfg(test)]
mod tests;
