//! `biga logits`: the logits of every given token, as a safetensors file.

use std::path::Path;

use biga::{
    Engine,
    execute::{StepItem, Wanted},
};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

use crate::{
    args::LogitsArgs,
    exit::{Outcome, usage},
    interrupt,
    open::{self, Needs},
    output::{note, replace},
    size,
};

/// More would hardly be read by whoever compares engines, and must fit into memory.
const MAX_BYTES: usize = 8 << 30;

/// Runs the command.
pub(crate) fn run(args: &LogitsArgs) -> anyhow::Result<Outcome> {
    keep_model(args)?;
    let needs = Needs { max_sequences: 1, all_logits: !args.step_by_step, context: Some(args.tokens.len()) };
    let opened = open::open(&args.model, needs)?;
    let vocab = opened.model.config.vocab;
    check(&args.tokens, vocab)?;
    let stop = interrupt::watch()?;
    let mut engine = opened.allocate()?;
    let chunk = if args.step_by_step { 1 } else { engine.plan().limits.max_outputs };
    let Some(logits) = logits(&mut engine, &args.tokens, chunk, || interrupt::requested(stop))? else {
        note(format_args!("interrupted; {} is not written", args.output.display()));
        return Ok(Outcome::Interrupted);
    };
    write(args, vocab, &logits)?;
    note(format_args!("logits [{}, {vocab}] written to {}", args.tokens.len(), args.output.display()));
    Ok(Outcome::Done)
}

/// The model is not to be written over.
fn keep_model(args: &LogitsArgs) -> anyhow::Result<()> {
    let whole = |path: &Path| path.canonicalize().ok();
    let (Some(output), Some(model)) = (whole(&args.output), whole(&args.model.model)) else { return Ok(()) };
    if output.starts_with(&model) {
        return Err(usage(format!("{} is the model or lies in its folder; name another file", args.output.display())));
    }
    Ok(())
}

fn check(tokens: &[u32], vocab: usize) -> anyhow::Result<()> {
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
        return Err(usage(format!("token id {token} is not below the vocabulary's {vocab}")));
    }
    let bytes = tokens.len().saturating_mul(vocab).saturating_mul(4);
    if bytes > MAX_BYTES {
        let (bytes, most) = (size::bytes(bytes as u64), size::bytes(MAX_BYTES as u64));
        return Err(usage(format!("{} tokens have {bytes} of logits, at most {most} are written", tokens.len())));
    }
    Ok(())
}

/// `[n_tokens, vocab]`, little-endian; `None` if stopped.
fn logits(
    engine: &mut Engine,
    tokens: &[u32],
    chunk: usize,
    stopped: impl Fn() -> bool,
) -> anyhow::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(tokens.len() * engine.model().config.vocab * 4);
    let sequence = engine.open_sequence()?;
    let mut position = 0;
    for tokens in tokens.chunks(chunk) {
        if stopped() {
            return Ok(None);
        }
        let logits = engine.step(&[StepItem { sequence, tokens, wanted: Wanted::All }])?;
        for row in logits.rows() {
            check_finite(row, position)?;
            bytes.extend(row.iter().flat_map(|logit| logit.to_le_bytes()));
            position += 1;
        }
    }
    engine.close_sequence(sequence)?;
    Ok(Some(bytes))
}

/// Refuses the logits of a token if one of them is no number: nothing that is computed of it would be one.
pub(crate) fn check_finite(logits: &[f32], position: usize) -> anyhow::Result<()> {
    match logits.iter().enumerate().find(|(_, logit)| !logit.is_finite()) {
        None => Ok(()),
        Some((id, logit)) => anyhow::bail!(
            "the logit of token id {id} after token {position} is {logit}: the weights or a kernel are broken; \
             --cpu-kernels reference --device cpu shows which"
        ),
    }
}

fn write(args: &LogitsArgs, vocab: usize, logits: &[u8]) -> anyhow::Result<()> {
    let n = args.tokens.len();
    let ids: Vec<u8> = args.tokens.iter().flat_map(|&token| i64::from(token).to_le_bytes()).collect();
    let logits = TensorView::new(Dtype::F32, vec![n, vocab], logits)?;
    let ids = TensorView::new(Dtype::I64, vec![n], &ids)?;
    replace(&args.output, |new| {
        serialize_to_file([("logits", logits), ("input_ids", ids)], None, new).map_err(std::io::Error::other)
    })
}
