//! Our engine, as the command `biga`.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Engine, Job, Name, PROMPT, Sample, in_order, list, start_sample};
use crate::{
    libraries::Libraries,
    machine::{Device, Wanted},
    process::{self, Output},
    test::{Group, START_CONTEXT, Test},
};

/// Probing and measuring one device take seconds.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// The program and its store of measurements.
#[derive(Clone, Debug)]
pub(crate) struct Biga {
    program: PathBuf,
    libraries: Libraries,
    /// Where `biga probe --measure` keeps its figures during this run.
    store: PathBuf,
    /// For its runs, beside what the job asks for.
    options: Vec<String>,
}

/// What is used of a record of `biga bench --json`.
#[derive(Debug, Deserialize)]
struct Record {
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    batch: usize,
    samples_ts: Vec<f64>,
    type_k: Option<String>,
    host_us_per_token: f64,
    n_steps: u64,
    submissions: u64,
    objects_created: u64,
    allocations: u64,
    mappings: u64,
}

impl Biga {
    /// The program that runs on these libraries.
    pub(crate) fn new(program: PathBuf, libraries: Libraries, store: PathBuf, options: Vec<String>) -> Biga {
        Biga { program, libraries, store, options }
    }

    /// Its version, with a digest of the program, since two builds of one version are not the same engine, and
    /// the further options.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) fn identity(&self) -> Result<String> {
        let mut command = self.libraries.command(&self.program);
        let output = process::run(command.arg("--version"), PROBE_LIMIT)?.context("`biga --version` does not end")?;
        let version = output.success()?.stdout.trim().to_owned();
        let words = [format!("{version} ({})", digest(&self.program)?)];
        Ok(words.iter().chain(&self.options).map(String::as_str).collect::<Vec<_>>().join(" "))
    }

    /// The device that is wanted, as `biga probe` sees it.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn device(&self, wanted: &Wanted) -> Result<Device> {
        Device::choose(&self.probe(&[])?, wanted)
    }

    /// Bytes per second that the device reads, measured now; also what later plans go by.
    ///
    /// # Errors
    /// If it cannot be measured.
    pub(crate) fn measure(&self, device: &Device) -> Result<f64> {
        let json = self.probe(&["--measure", "--device", &device.argument])?;
        let found = json["devices"].as_array().into_iter().flatten().find(|one| one["id"] == device.id.as_str());
        let rates = &found.with_context(|| format!("biga probe does not list {}", device.id))?["rates"];
        match (rates["measured"].as_bool(), rates["read_bytes_per_s"].as_f64()) {
            (Some(true), Some(rate)) if rate > 0.0 => Ok(rate),
            _ => bail!("not measured: {}", json["not_measured"]),
        }
    }

    fn probe(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command_of("probe");
        command.args(["--json"]).args(arguments);
        let output = process::run(&mut command, PROBE_LIMIT)?;
        let output = output.with_context(|| format!("biga probe took longer than {PROBE_LIMIT:?}"))?.success()?;
        serde_json::from_str(&output.stdout).context("biga probe --json wrote no JSON")
    }

    fn command_of(&self, subcommand: &str) -> Command {
        let mut command = self.libraries.command(&self.program);
        command.arg(subcommand).env("BIGA_MACHINE_FILE", &self.store);
        command
    }
}

impl Engine for Biga {
    fn name(&self) -> Name {
        Name::Biga
    }

    fn part_of(&self, group: &Group) -> Option<Group> {
        Some(group.clone())
    }

    fn command(&self, job: &Job<'_>) -> Command {
        let mut command = self.command_of(if *job.group == Group::Start { "run" } else { "bench" });
        command.arg(&job.model).args(["--device", &job.device.argument, "--strict"]);
        command.args(["--policy", if job.device.is_cpu() { "cpu" } else { "gpu" }]);
        if let Some(threads) = job.threads {
            command.args(["-t", &threads.to_string()]);
        }
        command.args(&self.options);
        match job.group {
            Group::Start => {
                command.args(["--raw", "-p", PROMPT, "-n", "1", "--temp", "0", "-c", &START_CONTEXT.to_string()]);
            }
            Group::Single { depth, tests } => {
                let prompts = tests.iter().filter_map(|test| match test {
                    Test::Prompt { n, .. } => Some(*n),
                    _ => None,
                });
                let generated: BTreeSet<usize> = tests
                    .iter()
                    .filter_map(|test| match test {
                        Test::Decode { n, .. } | Test::Host { n } => Some(*n),
                        _ => None,
                    })
                    .collect();
                command.args(["-d", &depth.to_string(), "-p", &list(prompts), "-n", &list(generated), "-b", "1"]);
            }
            Group::Batch { n, depth, batches } => {
                command.args(["-d", &depth.to_string(), "-p", "0", "-n", &n.to_string()]);
                command.args(["-b", &list(batches.iter().copied())]);
            }
        }
        if *job.group != Group::Start {
            command.args(["-r", "1", "--json"]);
        }
        command
    }

    fn samples(&self, job: &Job<'_>, output: &Output) -> Result<Vec<Sample>> {
        if *job.group == Group::Start {
            return start_sample(output);
        }
        let records: Vec<Record> =
            serde_json::from_str(&output.stdout).context("biga bench --json wrote another shape than expected")?;
        in_order(job.group, records.iter().flat_map(Record::samples).collect())
    }
}

impl Record {
    /// As the test that it is, and for one stream from nothing as a test of the host as well.
    fn samples(&self) -> Vec<Sample> {
        let &Record { n_prompt, n_gen, n_depth: depth, batch, .. } = self;
        let mut tests = match (n_prompt, n_gen) {
            (n, 0) => vec![Test::Prompt { n, depth }],
            (_, n) => vec![Test::Decode { n, batch, depth }],
        };
        if n_prompt == 0 && (batch, depth) == (1, 0) {
            tests.push(Test::Host { n: n_gen });
        }
        let value = self.samples_ts.iter().sum::<f64>() / self.samples_ts.len().max(1) as f64;
        let sample = |test| Sample {
            test,
            value,
            kv: self.type_k.clone(),
            host_us_per_token: Some(self.host_us_per_token),
            submissions_per_step: Some(self.submissions as f64 / self.n_steps.max(1) as f64),
            objects_created: Some(self.objects_created + self.allocations + self.mappings),
        };
        tests.into_iter().map(sample).collect()
    }
}

/// The first half of the program's SHA-256.
fn digest(program: &Path) -> Result<String> {
    let mut file = File::open(program).with_context(|| format!("cannot read {}", program.display()))?;
    let mut hasher = Sha256::new();
    let mut bytes = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut bytes)?;
        if n == 0 {
            break;
        }
        hasher.update(&bytes[..n]);
    }
    Ok(hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
