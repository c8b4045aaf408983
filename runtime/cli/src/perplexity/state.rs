//! Finished windows on disk, so that an interrupted run goes on where it stopped.
//!
//! The file says what it belongs to; one that belongs to something else is refused, never written over.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use biga::load::Model;

use super::{Score, Windows};
use crate::{args::PerplexityArgs, exit::input, text};

/// The file's content.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
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
    weights_bytes: u64,
    kv_type: Option<String>,
    window: usize,
    n_tokens: usize,
    tokens_hash: String,
}

const VERSION: u32 = 1;
/// Some hundred bytes for each window.
const MAX_BYTES: u64 = 64 << 20;

/// Finished windows, kept in a file if the user names one.
pub(super) struct State {
    path: Option<PathBuf>,
    content: Content,
}

impl State {
    /// The windows that the file holds; none without a file.
    ///
    /// # Errors
    /// A file that cannot be read or belongs to another model, text or window.
    pub(super) fn open(
        path: Option<&Path>,
        model: &Model,
        windows: &Windows<'_>,
        args: &PerplexityArgs,
    ) -> anyhow::Result<State> {
        let of = Subject {
            model: model.config.name.clone(),
            weights_bytes: model.weights.size_bytes(),
            kv_type: args.model.placement.kv_type.map(|dtype| dtype.name().to_owned()),
            window: windows.window,
            n_tokens: windows.tokens.len(),
            tokens_hash: format!("{:016x}", hash(windows.tokens)),
        };
        let empty = Content { version: VERSION, of, windows: Vec::new() };
        let content = match path {
            None => empty,
            Some(path) => read(path, empty).map_err(|cause| {
                input(format!("{}: {cause}; name another file with --state, or remove it", path.display()))
            })?,
        };
        Ok(State { path: path.map(Path::to_owned), content })
    }

    /// The scores of the first `n` windows, as far as they are known.
    pub(super) fn finished(&self, n: usize) -> &[Score] {
        &self.content.windows[..self.content.windows.len().min(n)]
    }

    /// Adds a window's score, on disk too.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn push(&mut self, score: Score) -> anyhow::Result<()> {
        self.content.windows.push(score);
        let Some(path) = &self.path else { return Ok(()) };
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let bytes = serde_json::to_vec_pretty(&self.content)?;
        let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, path));
        written.map_err(|error| anyhow::anyhow!("cannot write {}: {error}", path.display()))
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
        return Err("it belongs to another model, text, window or KV type".to_owned());
    }
    let usable = |score: &Score| score.nll.is_finite() && score.nll_squares.is_finite() && score.n > 0;
    if !content.windows.iter().all(usable) {
        return Err("it holds a score that is no number".to_owned());
    }
    Ok(content)
}

/// FNV-1a over the token ids: tells texts apart, no defence against an attacker.
fn hash(tokens: &[u32]) -> u64 {
    let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
