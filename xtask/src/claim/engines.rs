//! Our engine beside llama.cpp: same file, same machine, same run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{Finding, Phase, Side, Weights, prompts, text_from};
use crate::{
    biga_command,
    cache::Cache,
    claims::pack,
    fetch,
    llama::{EXPANDED, Llama},
    process,
};

/// Tokens of each compared text.
const TEXT_TOKENS: u32 = 32;
/// Tokens of a perplexity window.
const WINDOW: u32 = 512;

/// A line of `biga bench --json`.
#[derive(Debug, Deserialize)]
struct BenchRecord {
    n_prompt: u64,
    n_gen: u64,
    avg_ts: f64,
}

/// What `biga perplexity --json` writes.
#[derive(Debug, Deserialize)]
struct Perplexity {
    perplexity: f64,
    stderr: f64,
}

/// Both engines and a model.
struct Pair {
    biga: PathBuf,
    llama: Llama,
    model: PathBuf,
    threads: u32,
}

impl Pair {
    /// With `biga` as our program, or else a release build. The inner error says why this machine cannot compare.
    fn open(weights: Weights, biga: Option<PathBuf>) -> Result<std::result::Result<Pair, String>> {
        if pack::folder().is_some() {
            return Ok(Err("llama.cpp's Debian root is not part of a pack".to_owned()));
        }
        let cache = Cache::open()?;
        let llama = match Llama::open(&cache) {
            Ok(llama) => llama,
            Err(error) => return Ok(Err(format!("no llama.cpp to compare with: {error:#}"))),
        };
        let model = match env::var_os(weights.variable()) {
            Some(file) => PathBuf::from(file),
            None => fetch::ensure(&cache, weights.model())?,
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
        let biga = biga.map_or_else(biga_command::build, Ok)?;
        Ok(Ok(Pair { biga, llama, model, threads }))
    }
}

/// Counts the prompts on which both engines write the same greedy text.
pub(super) fn greedy(weights: Weights) -> Result<Finding> {
    let pair = match Pair::open(weights, None)? {
        Ok(pair) => pair,
        Err(why) => return Ok(Finding::Unavailable(why)),
    };
    let mut same = 0_u32;
    let mut differing = Vec::new();
    for (index, prompt) in prompts()?.iter().enumerate() {
        let theirs = pair.llama.complete(&pair.model, prompt, TEXT_TOKENS, pair.threads)?;
        let mut command = Command::new(&pair.biga);
        command.arg("run").arg(&pair.model).args(["--raw", "--device", "cpu", "--temp", "0"]);
        command.args(["-p", prompt, "-n", &TEXT_TOKENS.to_string()]);
        let ours = process::stdout_of(&mut command)?;
        if ours.trim_end() == theirs.trim_end() {
            same += 1;
        } else {
            println!("{prompt:?}\n  llama.cpp: {theirs:?}\n  biga:      {ours:?}");
            differing.push((index + 1).to_string());
        }
    }
    let detail = match differing.as_slice() {
        [] => "all texts are the same".to_owned(),
        numbers => format!("prompts that differ: {}", numbers.join(", ")),
    };
    Ok(Finding::Value(f64::from(same), detail))
}

/// The difference of the perplexities, in percent of llama.cpp's. Against quantised weights llama.cpp rounds
/// activations to 8 bits; where we do not, it reads the same weights written as F32.
pub(super) fn perplexity(weights: Weights, side: Side, chunks: u32, biga: Option<PathBuf>) -> Result<Finding> {
    let pair = match Pair::open(weights, biga)? {
        Ok(pair) => pair,
        Err(why) => return Ok(Finding::Unavailable(why)),
    };
    let (text, missing) = text_from(Path::new("/usr/share/common-licenses"));
    if let Some(file) = missing.first() {
        return Ok(Finding::Unavailable(format!("the text is missing: {}", file.display())));
    }
    let scratch = Cache::open()?.scratch("perplexity")?;
    let file = scratch.path().join("licences.txt");
    fs::write(&file, text)?;
    let mut command = match side {
        Side::Cpu => Command::new(&pair.biga),
        Side::LavapipeGpu | Side::LavapipeSoftware => match biga_command::on_lavapipe(&pair.biga)? {
            Ok(command) => command,
            Err(why) => return Ok(Finding::Unavailable(why)),
        },
    };
    command.arg("perplexity").arg(&pair.model).arg(&file);
    command.args(["-c", &WINDOW.to_string(), "--chunks", &chunks.to_string(), "--json"]);
    command.args(match side {
        Side::Cpu => &["--device", "cpu"][..],
        Side::LavapipeGpu => &["--device", "lavapipe", "--policy", "gpu", "--vulkan-kernels", "gpu"],
        Side::LavapipeSoftware => &["--device", "lavapipe", "--policy", "gpu", "--vulkan-kernels", "software"],
    });
    let ours: Perplexity = serde_json::from_str(&process::stdout_of(&mut command)?)
        .context("biga perplexity --json wrote another shape than expected")?;
    let expanded = match side {
        Side::LavapipeSoftware => Some(pair.llama.expand(&pair.model)?),
        Side::Cpu | Side::LavapipeGpu => None,
    };
    let model = expanded.as_ref().map_or(pair.model.clone(), |folder| folder.path().join(EXPANDED));
    let (theirs, error) = pair.llama.perplexity(&model, &file, WINDOW, chunks, pair.threads)?;
    let percent = 100.0 * (ours.perplexity / theirs - 1.0).abs();
    let detail = format!(
        "{:.4} +/- {:.4}, llama-perplexity {theirs:.4} +/- {error:.4}, {chunks} windows of {WINDOW}",
        ours.perplexity, ours.stderr
    );
    Ok(Finding::Value(percent, detail))
}

/// The ratio of the speeds.
pub(super) fn speed(phase: Phase, threads: u32) -> Result<Finding> {
    let pair = match Pair::open(Weights::Smollm2, None)? {
        Ok(pair) => pair,
        Err(why) => return Ok(Finding::Unavailable(why)),
    };
    let (n_prompt, n_gen) = match phase {
        Phase::Prompt => (512, 0),
        Phase::Decode => (0, 128),
    };
    let theirs = pair.llama.bench(&pair.model, n_prompt, n_gen, threads)?;
    let theirs = rate(theirs.iter().map(|r| (r.n_prompt, r.n_gen, r.avg_ts)), n_prompt, n_gen)?;
    let mut command = Command::new(&pair.biga);
    command.arg("bench").arg(&pair.model).args(["--device", "cpu", "--json", "-b", "1"]);
    command.args(["-p", &n_prompt.to_string(), "-n", &n_gen.to_string(), "-t", &threads.to_string()]);
    let ours: Vec<BenchRecord> = serde_json::from_str(&process::stdout_of(&mut command)?)
        .context("biga bench --json wrote another shape than expected")?;
    let ours = rate(ours.iter().map(|r| (r.n_prompt, r.n_gen, r.avg_ts)), n_prompt, n_gen)?;
    let detail = format!("{ours:.1} tok/s, llama-bench {theirs:.1} tok/s, {threads} threads");
    Ok(Finding::Value(ours / theirs, detail))
}

/// The rate of the record with these lengths.
fn rate(mut records: impl Iterator<Item = (u64, u64, f64)>, n_prompt: u32, n_gen: u32) -> Result<f64> {
    let wanted = (u64::from(n_prompt), u64::from(n_gen));
    match records.find(|(prompt, generated, _)| (*prompt, *generated) == wanted) {
        Some((_, _, rate)) if rate > 0.0 => Ok(rate),
        _ => bail!("no record of {n_prompt} prompt and {n_gen} generated tokens"),
    }
}

#[cfg(test)]
mod tests {
    use super::{prompts, rate};

    #[test]
    fn there_are_twelve_different_prompts() {
        let mut prompts = prompts().unwrap();
        prompts.sort_unstable();
        prompts.dedup();
        assert_eq!(prompts.len(), 12);
        assert!(prompts.iter().all(|prompt| !prompt.trim().is_empty()));
    }

    #[test]
    fn the_record_of_the_right_lengths_is_taken() {
        let records = [(512, 0, 300.0), (0, 128, 40.0)];
        assert_eq!(rate(records.into_iter(), 0, 128).unwrap(), 40.0);
        assert!(rate(records.into_iter(), 1, 1).is_err());
        assert!(rate([(0, 128, 0.0)].into_iter(), 0, 128).is_err());
    }
}
