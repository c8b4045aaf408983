//! llama.cpp, as its tools `llama-bench`, `llama-batched-bench` and `llama-completion`.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Engine, Job, Name, PROMPT, Sample, in_order, list, start_sample};
use crate::{
    libraries::Libraries,
    machine::Device,
    process::{self, Output},
    test::{Group, START_CONTEXT, Test},
};

/// The tools, in the order of [`Llama::programs`].
const TOOLS: [&str; 3] = ["llama-bench", "llama-batched-bench", "llama-completion"];

/// Listing devices and printing a version take no longer.
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// The tools, and the device as they call it.
#[derive(Clone, Debug)]
pub(crate) struct Llama {
    programs: [PathBuf; 3],
    libraries: Libraries,
    /// `none` for the CPU alone, or such as `Vulkan0`.
    device: String,
}

/// What is used of a record of `llama-bench -o json`.
#[derive(Debug, Deserialize)]
struct Record {
    devices: String,
    n_prompt: usize,
    n_gen: usize,
    n_depth: usize,
    samples_ts: Vec<f64>,
    type_k: String,
}

/// What is used of a line of `llama-batched-bench --output-format jsonl`.
#[derive(Debug, Deserialize)]
struct BatchRecord {
    tg: usize,
    pl: usize,
    speed_tg: f64,
}

impl Llama {
    /// The tools that run on these libraries, on our engine's device.
    ///
    /// # Errors
    /// A tool that is missing, or a device that they do not see.
    pub(crate) fn find(libraries: Libraries, folders: &[PathBuf], device: &Device) -> Result<Llama> {
        let find = |name: &str| {
            libraries
                .find(name, folders)
                .with_context(|| format!("{name} is in no folder of --llama, of --libraries or of PATH"))
        };
        let programs = [find(TOOLS[0])?, find(TOOLS[1])?, find(TOOLS[2])?];
        let mut llama = Llama { programs, libraries, device: "none".to_owned() };
        if !device.is_cpu() {
            let listed = llama.query("--list-devices")?;
            llama.device = matching_device(&listed, &device.name)?;
        }
        Ok(llama)
    }

    /// Version and build, and the device.
    ///
    /// # Errors
    /// If the tool does not say.
    pub(crate) fn identity(&self) -> Result<String> {
        let printed = self.query("--version")?;
        let line = printed.lines().find_map(|line| line.trim().strip_prefix("version:"));
        let version = line.context("llama-bench --version names no version")?.trim();
        Ok(format!("llama.cpp {version}, device {}", self.device))
    }

    fn query(&self, argument: &str) -> Result<String> {
        let mut command = self.libraries.command(&self.programs[0]);
        let output = process::run(command.arg(argument), QUERY_LIMIT)?;
        let output = output.with_context(|| format!("llama-bench {argument} does not end"))?.success()?;
        Ok(output.stdout + &output.stderr)
    }

    fn placed(&self, mut command: Command, job: &Job<'_>) -> Command {
        let layers = if job.device.is_cpu() { "0" } else { "99" };
        command.arg("-m").arg(&job.model).args(["-dev", &self.device, "-ngl", layers, "-fa", "on"]);
        if let Some(threads) = job.threads {
            command.args(["-t", &threads.to_string()]);
        }
        command
    }
}

impl Engine for Llama {
    fn name(&self) -> Name {
        Name::Llama
    }

    fn part_of(&self, group: &Group) -> Option<Group> {
        group.filtered(Test::compares)
    }

    fn command(&self, job: &Job<'_>) -> Command {
        let tool = |index: usize| self.placed(self.libraries.command(&self.programs[index]), job);
        match job.group {
            Group::Single { depth, tests } => {
                let mut command = tool(0);
                let prompts = tests.iter().filter_map(|test| match test {
                    Test::Prompt { n, .. } => Some(*n),
                    _ => None,
                });
                let generated = tests.iter().filter_map(|test| match test {
                    Test::Decode { n, .. } => Some(*n),
                    _ => None,
                });
                command.args(["-d", &depth.to_string(), "-p", &list(prompts), "-n", &list(generated)]);
                command.args(["-r", "1", "-o", "json"]);
                command
            }
            Group::Batch { n, depth, batches } => {
                let mut command = tool(1);
                // A stream needs a prompt: of one token where ours starts from nothing.
                let prompt = (*depth).max(1);
                let context = batches.iter().max().unwrap_or(&1) * (prompt + n);
                command.args(["-npp", &prompt.to_string(), "-ntg", &n.to_string()]);
                // Each count twice, as ours runs once uncounted: kernels are compiled when they are first needed.
                let counts = batches.iter().flat_map(|&batch| [batch, batch]);
                command.args(["-npl", &list(counts), "-c", &context.to_string()]);
                command.args(["--output-format", "jsonl"]);
                command
            }
            Group::Start => {
                let mut command = tool(2);
                command.args(["-p", PROMPT, "-n", "1", "-c", &START_CONTEXT.to_string(), "--temp", "0"]);
                command.args(["-no-cnv", "--no-display-prompt", "--no-warmup", "--simple-io", "--ignore-eos"]);
                command
            }
        }
    }

    fn samples(&self, job: &Job<'_>, output: &Output) -> Result<Vec<Sample>> {
        match job.group {
            Group::Start => start_sample(output),
            Group::Single { .. } => in_order(job.group, single(&output.stdout, &self.device)?),
            Group::Batch { depth, .. } => in_order(job.group, batch(&output.stdout, *depth)?),
        }
    }
}

/// The records of llama-bench. Ones of another device than asked for are an error, not a measurement.
fn single(stdout: &str, device: &str) -> Result<Vec<Sample>> {
    let records: Vec<Record> =
        serde_json::from_str(stdout).context("llama-bench -o json wrote another shape than expected")?;
    let mut samples = Vec::new();
    for Record { devices, n_prompt, n_gen, n_depth: depth, samples_ts, type_k } in records {
        if devices != device {
            bail!("llama-bench ran on {devices}, it was to run on {device}");
        }
        let test = match (n_prompt, n_gen) {
            (n, 0) => Test::Prompt { n, depth },
            (_, n) => Test::Decode { n, batch: 1, depth },
        };
        let value = samples_ts.iter().sum::<f64>() / samples_ts.len().max(1) as f64;
        samples.push(Sample { kv: Some(type_k), ..Sample::new(test, value) });
    }
    Ok(samples)
}

/// The lines of llama-batched-bench, of each count the last; other lines are its log. Its KV cache is the
/// default, f16.
fn batch(stdout: &str, depth: usize) -> Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = Vec::new();
    for line in stdout.lines().filter(|line| line.trim_start().starts_with('{')) {
        let record: BatchRecord = serde_json::from_str(line)
            .with_context(|| format!("llama-batched-bench wrote another shape than expected: {line}"))?;
        let test = Test::Decode { n: record.tg, batch: record.pl, depth };
        samples.retain(|sample| sample.test != test);
        samples.push(Sample { kv: Some("f16".to_owned()), ..Sample::new(test, record.speed_tg) });
    }
    Ok(samples)
}

/// The name before the colon of the line that describes our device: `  Vulkan0: NAME (N MiB, N MiB free)`.
fn matching_device(listed: &str, name: &str) -> Result<String> {
    let described = |line: &str| -> Option<(String, String)> {
        let (id, rest) = line.trim().split_once(": ")?;
        let (description, _) = rest.rsplit_once(" (")?;
        (!id.contains(' ')).then(|| (id.to_owned(), description.trim().to_owned()))
    };
    let devices: Vec<(String, String)> = listed.lines().filter_map(described).collect();
    match devices.iter().find(|(_, description)| description == name) {
        Some((id, _)) => Ok(id.clone()),
        None => {
            let seen: Vec<&str> = devices.iter().map(|(_, description)| description.as_str()).collect();
            let seen = if seen.is_empty() { "no device".to_owned() } else { seen.join(", ") };
            bail!("llama.cpp does not see {name}; it sees {seen}")
        }
    }
}

#[cfg(test)]
mod tests;
