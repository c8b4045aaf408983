//! llama.cpp's tools, run inside their Debian root.
//!
//! `chroot` needs no mounts for them. A model is put into the root by hard link, or by copy where the
//! file systems differ.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache::{Cache, Scratch},
    debian, process,
};

/// The file that [`Llama::expand`] writes.
pub(crate) const EXPANDED: &str = "expanded.gguf";

/// The root with the tools.
pub(crate) struct Llama {
    root: PathBuf,
}

/// One line of llama-bench's table.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct BenchRecord {
    /// Prompt tokens; 0 for a run that only generates.
    pub(crate) n_prompt: u64,
    /// Generated tokens; 0 for a run that only reads a prompt.
    pub(crate) n_gen: u64,
    /// Mean tokens per second.
    pub(crate) avg_ts: f64,
}

impl Llama {
    /// The root, made if it is missing.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn open(cache: &Cache) -> Result<Llama> {
        Ok(Llama { root: debian::LLAMA.ensure(cache)? })
    }

    /// Puts a file into the root; returns its path there.
    ///
    /// # Errors
    /// If it can neither be linked nor copied.
    pub(crate) fn import(&self, file: &Path) -> Result<String> {
        if let Some(inside) = self.inside(file) {
            return Ok(inside);
        }
        let name = file.file_name().with_context(|| format!("{} has no file name", file.display()))?;
        let folder = self.root.join("models");
        fs::create_dir_all(&folder)?;
        let inside = folder.join(name);
        // A file of the same name may be an older one: link it anew each time.
        if inside.exists() {
            fs::remove_file(&inside)?;
        }
        if fs::hard_link(file, &inside).is_err() {
            fs::copy(file, &inside).with_context(|| format!("cannot copy {} into the root", file.display()))?;
        }
        Ok(format!("/models/{}", name.to_string_lossy()))
    }

    fn tool(&self, name: &str, model: &Path) -> Result<Command> {
        let model = self.import(model)?;
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(name).args(["-m", &model]);
        Ok(command)
    }

    /// Greedy completion of a prompt as it stands: the text after the prompt.
    ///
    /// # Errors
    /// If the tool fails.
    pub(crate) fn complete(&self, model: &Path, prompt: &str, n_tokens: u32, threads: u32) -> Result<String> {
        let mut command = self.tool("llama-completion", model)?;
        command.args(["-p", prompt, "-n", &n_tokens.to_string(), "-t", &threads.to_string()]);
        command.args(["--temp", "0", "--no-conversation", "--no-display-prompt", "--no-warmup", "--simple-io"]);
        let text = process::stdout_of(&mut command)?;
        Ok(without_end_mark(&text).to_owned())
    }

    /// A scratch folder with `expanded.gguf`: the same weights as F32 tensors, against which llama.cpp
    /// keeps f32 activations; against quantised ones it rounds them to 8 bits.
    ///
    /// # Errors
    /// If the tool fails.
    pub(crate) fn expand(&self, model: &Path) -> Result<Scratch> {
        let model = self.import(model)?;
        let scratch = Scratch::inside(&self.root, "expand")?;
        let to = self.inside(&scratch.path().join(EXPANDED)).context("the scratch folder is outside the root")?;
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(["llama-quantize", "--allow-requantize", &model, &to, "F32"]);
        process::output(&mut command)?;
        Ok(scratch)
    }

    /// The path inside the root of a file that lies there.
    fn inside(&self, file: &Path) -> Option<String> {
        let inside = file.strip_prefix(&self.root).ok()?;
        Some(format!("/{}", inside.display()))
    }

    /// Perplexity over the first `chunks` windows of `window` tokens: value and standard error.
    ///
    /// # Errors
    /// If the tool fails or prints no final estimate.
    pub(crate) fn perplexity(
        &self,
        model: &Path,
        text: &Path,
        window: u32,
        chunks: u32,
        threads: u32,
    ) -> Result<(f64, f64)> {
        let text = self.import(text)?;
        let mut command = self.tool("llama-perplexity", model)?;
        command.args(["-f", &text, "-c", &window.to_string(), "-b", &window.to_string()]);
        command.args(["--chunks", &chunks.to_string(), "-t", &threads.to_string()]);
        let output = process::output(&mut command)?;
        let printed = [output.stdout, output.stderr].concat();
        let Some(estimate) = final_estimate(&String::from_utf8_lossy(&printed)) else {
            bail!("llama-perplexity gave no final estimate: {}", process::last_lines(&printed, 10));
        };
        Ok(estimate)
    }

    /// llama-bench's records for one prompt length and one generation length.
    ///
    /// # Errors
    /// If the tool fails or its records cannot be read.
    pub(crate) fn bench(&self, model: &Path, n_prompt: u32, n_gen: u32, threads: u32) -> Result<Vec<BenchRecord>> {
        let mut command = self.tool("llama-bench", model)?;
        command.args(["-p", &n_prompt.to_string(), "-n", &n_gen.to_string(), "-t", &threads.to_string()]);
        command.args(["-o", "json"]);
        serde_json::from_str(&process::stdout_of(&mut command)?)
            .context("llama-bench wrote other records than expected")
    }
}

/// llama.cpp marks the end of a text that stopped by itself.
fn without_end_mark(text: &str) -> &str {
    text.trim_end().trim_end_matches("[end of text]").trim_end()
}

/// The value and error of `Final estimate: PPL = 12.3456 +/- 0.0789`.
fn final_estimate(printed: &str) -> Option<(f64, f64)> {
    let line = printed.lines().rev().find(|line| line.contains("Final estimate:"))?;
    let (value, error) = line.split_once("PPL =")?.1.split_once("+/-")?;
    Some((value.trim().parse().ok()?, error.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{final_estimate, without_end_mark};

    #[test]
    fn the_final_estimate_is_read() {
        let printed = "[1]9.1,[2]8.7,\nFinal estimate: PPL = 8.7314 +/- 0.15230\n\nllama_perf: done";
        assert_eq!(final_estimate(printed), Some((8.7314, 0.1523)));
        assert_eq!(final_estimate("Final estimate: none"), None);
    }

    #[test]
    fn the_end_mark_is_no_text() {
        assert_eq!(without_end_mark(" Paris. [end of text]\n\n"), " Paris.");
        assert_eq!(without_end_mark(" Paris.\n"), " Paris.");
    }
}
