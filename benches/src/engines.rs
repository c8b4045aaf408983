//! The engines that are compared: how each is asked for a group of tests, and what it answers.
//!
//! llama.cpp gets what makes it fastest: every layer on the GPU, flash attention, no warm-up where its
//! start is timed. Both run on one named device or not at all.

pub(crate) mod biga;
pub(crate) mod llama;

use std::{fmt, path::PathBuf, process::Command, time::Duration};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    machine::Device,
    process::Output,
    test::{Group, Test},
};

/// Who measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Name {
    #[serde(rename = "biga")]
    Biga,
    #[serde(rename = "llama.cpp")]
    Llama,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Name::Biga => "biga",
            Name::Llama => "llama.cpp",
        })
    }
}

/// What one process is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Job<'a> {
    pub(crate) group: &'a Group,
    /// Absolute.
    pub(crate) model: PathBuf,
    pub(crate) device: &'a Device,
    /// CPU threads; the engine's own default if `None`.
    pub(crate) threads: Option<usize>,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) test: Test,
    /// Tokens per second of all streams together; seconds for [`Test::Start`].
    pub(crate) value: f64,
    /// Format of the KV cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kv: Option<String>,
    /// CPU time of the engine's process for each token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host_us_per_token: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) submissions_per_step: Option<f64>,
    /// Driver objects created, memory allocated and mapped, in all steps together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) objects_created: Option<u64>,
}

impl Sample {
    /// With a value alone.
    fn new(test: Test, value: f64) -> Sample {
        Sample { test, value, kv: None, host_us_per_token: None, submissions_per_step: None, objects_created: None }
    }
}

/// An engine that can be asked.
pub(crate) trait Engine {
    /// Which one.
    fn name(&self) -> Name;

    /// The command for a job.
    fn command(&self, job: &Job<'_>) -> Command;

    /// The tests of the group that this engine is asked for; `None` if there are none.
    fn part_of(&self, group: &Group) -> Option<Group>;

    /// Reads the output of a process that succeeded.
    ///
    /// # Errors
    /// If it has another shape than expected, or lacks one of the group's tests.
    fn samples(&self, job: &Job<'_>, output: &Output) -> Result<Vec<Sample>>;
}

/// A text that both engines' tokenizers split alike, for the start.
const PROMPT: &str = "hello";

/// The start's sample: the time until the first byte, if any text came.
fn start_sample(output: &Output) -> Result<Vec<Sample>> {
    match output.first_byte {
        Some(after) if !output.stdout.trim().is_empty() => {
            Ok(vec![Sample::new(Test::Start, after.max(Duration::from_nanos(1)).as_secs_f64())])
        }
        _ => bail!("no text came, so there is no first token to time"),
    }
}

/// The sample of each test of the group, or an error that names the first without one.
fn in_order(group: &Group, mut found: Vec<Sample>) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for test in group.tests() {
        match found.iter().position(|sample| sample.test == test) {
            Some(index) => samples.push(found.swap_remove(index)),
            None => bail!("the answer has no record of {test}"),
        }
    }
    match samples.iter().find(|sample| !(sample.value > 0.0 && sample.value.is_finite())) {
        Some(sample) => bail!("{}: {} is no speed", sample.test, sample.value),
        None => Ok(samples),
    }
}

/// `1,2,3`, or `0` for none.
fn list(numbers: impl IntoIterator<Item = usize>) -> String {
    let words: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    if words.is_empty() { "0".to_owned() } else { words.join(",") }
}
