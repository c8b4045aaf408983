//! `biga bench`: the table that llama-bench users know, and where each op ran.
//!
//! `ppN` runs a prompt of N tokens, `tgN` decodes N tokens in each of `batch` sequences at once. Tokens are
//! pseudo-random, as in llama-bench: speed does not depend on them, and no sampling is timed. Each test
//! runs once uncounted, then `-r` times.

mod report;

use std::time::{Duration, Instant};

use biga::{
    Engine,
    execute::{SequenceId, StepItem, Wanted},
};

use crate::{
    args::BenchArgs,
    exit::{Outcome, usage},
    interrupt,
    open::{self, Needs},
    output::{self, note},
    placements,
    progress::Bar,
};

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    n_prompt: usize,
    n_gen: usize,
    batch: usize,
}

impl Test {
    fn n_tokens(self) -> usize {
        (self.n_prompt + self.n_gen) * self.batch
    }

    /// `pp512`, `tg128`, `tg128 x4`.
    fn name(self) -> String {
        match (self.n_prompt, self.batch) {
            (0, 1) => format!("tg{}", self.n_gen),
            (0, batch) => format!("tg{} x{batch}", self.n_gen),
            (n, _) => format!("pp{n}"),
        }
    }
}

/// A test and the time of each repetition.
struct Measured {
    test: Test,
    times: Vec<Duration>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<Outcome> {
    let tests = tests(args)?;
    let longest = tests.iter().map(|test| test.n_prompt + test.n_gen).max().unwrap_or(1);
    let max_sequences = tests.iter().map(|test| test.batch).max().unwrap_or(1);
    let opened = open::open(&args.model, Needs { max_sequences, all_logits: false, context: Some(longest) })?;
    let model = opened.model.clone();
    let stop = interrupt::watch()?;
    let mut engine = opened.allocate()?;
    let bar = Bar::new("bench");
    let mut measured = Vec::new();
    for (index, &test) in tests.iter().enumerate() {
        let mut times = Vec::new();
        for rep in 0..=args.reps {
            let done = (index * (args.reps + 1) + rep) as f64 / (tests.len() * (args.reps + 1)) as f64;
            bar.set(done, &test.name());
            match run_once(&mut engine, test, || interrupt::requested(stop))? {
                // The first run warms caches and clocks.
                Some(_) if rep == 0 => {}
                Some(time) => times.push(time),
                None => {
                    drop(bar);
                    let rows = placements::rows(engine.plan(), &model.graph);
                    note(format_args!(
                        "interrupted in {}; what is finished:\n{}",
                        test.name(),
                        report::table(&engine, &measured, &rows, args)
                    ));
                    return Ok(Outcome::Interrupted);
                }
            }
        }
        measured.push(Measured { test, times });
    }
    drop(bar);
    let rows = placements::rows(engine.plan(), &model.graph);
    if args.json {
        output::print_json(&report::records(&engine, &measured, &rows, args))?;
    } else {
        output::print(&report::table(&engine, &measured, &rows, args))?;
    }
    Ok(Outcome::Done)
}

fn tests(args: &BenchArgs) -> anyhow::Result<Vec<Test>> {
    let prompts = args.n_prompt.iter().filter(|&&n| n > 0).map(|&n_prompt| Test { n_prompt, n_gen: 0, batch: 1 });
    let gens = args.n_gen.iter().filter(|&&n| n > 0);
    let gens = gens.flat_map(|&n_gen| args.batch.iter().map(move |&batch| Test { n_prompt: 0, n_gen, batch }));
    let tests: Vec<Test> = prompts.chain(gens).collect();
    if tests.is_empty() {
        return Err(usage("nothing to measure: -p and -n are both 0"));
    }
    Ok(tests)
}

/// The time of one run; `None` if stopped.
fn run_once(engine: &mut Engine, test: Test, stopped: impl Fn() -> bool) -> biga::Result<Option<Duration>> {
    let sequences = (0..test.batch).map(|_| engine.open_sequence()).collect::<biga::Result<Vec<_>>>()?;
    let start = Instant::now();
    let finished =
        prompt(engine, sequences[0], test.n_prompt, &stopped)? && decode(engine, &sequences, test.n_gen, &stopped)?;
    let time = start.elapsed();
    for sequence in sequences {
        engine.close_sequence(sequence)?;
    }
    Ok(finished.then_some(time))
}

fn prompt(engine: &mut Engine, sequence: SequenceId, n: usize, stopped: &impl Fn() -> bool) -> biga::Result<bool> {
    let vocab = engine.model().config.vocab;
    let tokens: Vec<u32> = (0..n).map(|position| pseudo_random(position as u64, vocab)).collect();
    let chunks = tokens.chunks(engine.plan().limits.max_tokens);
    let n_chunks = chunks.len();
    for (index, tokens) in chunks.enumerate() {
        if stopped() {
            return Ok(false);
        }
        let wanted = if index + 1 == n_chunks { Wanted::Last } else { Wanted::None };
        engine.step(&[StepItem { sequence, tokens, wanted }])?;
    }
    Ok(true)
}

fn decode(engine: &mut Engine, sequences: &[SequenceId], n: usize, stopped: &impl Fn() -> bool) -> biga::Result<bool> {
    let vocab = engine.model().config.vocab;
    for position in 0..n {
        if stopped() {
            return Ok(false);
        }
        let tokens: Vec<u32> =
            (0..sequences.len()).map(|slot| pseudo_random((position << 16 | slot) as u64, vocab)).collect();
        let items = sequences.iter().zip(tokens.chunks(1));
        let items: Vec<StepItem<'_>> =
            items.map(|(&sequence, tokens)| StepItem { sequence, tokens, wanted: Wanted::Last }).collect();
        engine.step(&items)?;
    }
    Ok(true)
}

/// A token id that looks random (the finaliser of SplitMix64).
fn pseudo_random(n: u64, vocab: usize) -> u32 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) % vocab.max(1) as u64) as u32
}
