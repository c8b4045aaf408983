//! Finished windows on disk, so that an interrupted run goes on where it stopped.
//!
//! The file says what it belongs to; one that belongs to something else is refused, never written over.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use biga::{
    load::{Model, graph::WeightId},
    plan::Plan,
};
use sha2::{Digest, Sha256};

use super::{Score, Windows};
use crate::{args::PerplexityArgs, exit::input, output::replace, text};

/// The file's content.
#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// What the scores depend on.
    of: Subject,
    windows: Vec<Score>,
}

/// What the scores depend on.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    model: String,
    /// SHA-256 of the weights, as they are used, in the graph's order.
    weights_sha256: String,
    /// Devices and kernels: each rounds in its own way.
    computed_by: Vec<String>,
    kv_type: Option<String>,
    window: usize,
    tokens_sha256: String,
}

const VERSION: u32 = 2;
/// Some hundred bytes for each window.
const MAX_BYTES: u64 = 64 << 20;

/// Finished windows, kept in a file if the user names one.
pub(super) struct State {
    file: Option<(PathBuf, Subject)>,
    windows: Vec<Score>,
}

impl State {
    /// The windows that the file holds; none without a file.
    ///
    /// # Errors
    /// A file that cannot be read or belongs to another model, text or window.
    pub(super) fn open(
        path: Option<&Path>,
        model: &Model,
        plan: &Plan,
        windows: &Windows<'_>,
        args: &PerplexityArgs,
    ) -> anyhow::Result<State> {
        let Some(path) = path else { return Ok(State { file: None, windows: Vec::new() }) };
        let of = Subject {
            model: model.config.name.clone(),
            weights_sha256: sha256((0..model.weights.iter().len()).map(|id| model.weights.bytes(WeightId(id)))),
            computed_by: computed_by(plan, args),
            kv_type: args.model.placement.kv_type.map(|dtype| dtype.name().to_owned()),
            window: windows.window,
            tokens_sha256: sha256(windows.tokens.iter().map(|token| token.to_le_bytes())),
        };
        let content = read(path, Content { version: VERSION, of, windows: Vec::new() }).map_err(|cause| {
            input(format!("{}: {cause}; name another file with --state, or remove it", path.display()))
        })?;
        Ok(State { file: Some((path.to_owned(), content.of)), windows: content.windows })
    }

    /// The scores of the first `n` windows, as far as they are known.
    pub(super) fn finished(&self, n: usize) -> &[Score] {
        &self.windows[..self.windows.len().min(n)]
    }

    /// Adds a window's score, on disk too.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn push(&mut self, score: Score) -> anyhow::Result<()> {
        self.windows.push(score);
        let Some((path, of)) = &self.file else { return Ok(()) };
        let content = serde_json::json!({ "version": VERSION, "of": of, "windows": self.windows });
        replace(path, |new| fs::write(new, serde_json::to_vec_pretty(&content)?))
    }
}

fn read(path: &Path, empty: Content) -> Result<Content, String> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty),
        Err(error) => return Err(error.to_string()),
    };
    let text = text::of_reader(file, "the file", MAX_BYTES).map_err(|error| error.to_string())?;
    let content: Content = serde_json::from_str(&text).map_err(|error| format!("no state of ours: {error}"))?;
    if (content.version, &content.of) != (empty.version, &empty.of) {
        return Err("it belongs to another model, text, window or KV type, or to other devices or kernels".to_owned());
    }
    let usable = |score: &Score| score.nll.is_finite() && score.nll_squares.is_finite() && score.n > 0;
    if !content.windows.iter().all(usable) {
        return Err("it holds a score that is no number".to_owned());
    }
    Ok(content)
}

/// What rounds: the kernel sets, and the devices that run ops.
fn computed_by(plan: &Plan, args: &PerplexityArgs) -> Vec<String> {
    let machine = &args.model.machine;
    let sets = format!("kernels: cpu {:?}, vulkan {:?}", machine.cpu_kernels, machine.vulkan_kernels);
    let runs = |device: usize| plan.phases.iter().flat_map(|phase| &phase.segments).any(|s| s.device == device);
    let devices = plan.devices.iter().enumerate().filter(|(index, _)| runs(*index));
    let names = devices.map(|(_, device)| format!("{}: {}", device.id(), device.info.name));
    std::iter::once(sets).chain(names).collect()
}

fn sha256(parts: impl Iterator<Item = impl AsRef<[u8]>>) -> String {
    let digest = parts.fold(Sha256::new(), |digest, part| digest.chain_update(part)).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
