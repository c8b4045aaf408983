//! `biga bench`: the table that llama-bench users know, and where each op ran.
//!
//! `ppN` runs a prompt of N tokens, `tgN` decodes N tokens in each of `batch` sequences at once, both after
//! `-d` tokens that are not timed. Prompts are pseudo-random, as in llama-bench: speed does not depend on
//! them. Decoding does what `biga run --temp 0` does: each step feeds the best token after the last, which the
//! device chooses in the same submission. Where the plan has no such device, tokens are pseudo-random and
//! nothing is sampled. Each test runs once uncounted, then `-r` times.

mod measure;
mod profile;
mod report;

use biga::{Engine, execute::LaunchTime};

use crate::{
    args::BenchArgs,
    exit::{Outcome, usage},
    interrupt,
    open::{self, Needs},
    output::{self, note},
    placements,
    progress::Bar,
};
use measure::{Rig, Run};

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Test {
    n_prompt: usize,
    n_gen: usize,
    batch: usize,
    /// Tokens that each sequence holds before.
    depth: usize,
}

impl Test {
    fn n_tokens(self) -> usize {
        (self.n_prompt + self.n_gen) * self.batch
    }

    /// `pp512`, `tg128`, `tg128 x4`, `tg128 @ d8192`.
    fn name(self) -> String {
        let name = match (self.n_prompt, self.batch) {
            (0, 1) => format!("tg{}", self.n_gen),
            (0, batch) => format!("tg{} x{batch}", self.n_gen),
            (n, _) => format!("pp{n}"),
        };
        if self.depth == 0 { name } else { format!("{name} @ d{}", self.depth) }
    }
}

/// A test and its counted runs.
struct Measured {
    test: Test,
    runs: Vec<Run>,
    /// Of one step more, if asked for.
    profile: Vec<LaunchTime>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<Outcome> {
    let tests = tests(args)?;
    let longest = tests.iter().map(|test| test.depth + test.n_prompt + test.n_gen).max().unwrap_or(1);
    let max_sequences = tests.iter().map(|test| test.batch).max().unwrap_or(1);
    let opened = open::open(&args.model, Needs { max_sequences, all_logits: false, context: Some(longest) })?;
    let model = opened.model.clone();
    let stop = interrupt::watch()?;
    let mut engine = opened.allocate()?;
    let bar = Bar::new("bench");
    let mut measured = Vec::new();
    for (index, &test) in tests.iter().enumerate() {
        let show = |part: f64| bar.set((index as f64 + part) / tests.len() as f64, &test.name());
        let Some(one) = measure(&mut engine, test, args, &show, || interrupt::requested(stop))? else {
            drop(bar);
            let rows = placements::rows(engine.plan(), &model.graph);
            let table = report::table(&engine, &measured, &rows, args);
            note(format_args!("interrupted in {}; what is finished:\n{table}", test.name()));
            return Ok(Outcome::Interrupted);
        };
        measured.push(one);
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
    let mut tests = Vec::new();
    for &depth in &args.n_depth {
        let prompts = args.n_prompt.iter().filter(|&&n| n > 0);
        tests.extend(prompts.map(|&n_prompt| Test { n_prompt, n_gen: 0, batch: 1, depth }));
        for &n_gen in args.n_gen.iter().filter(|&&n| n > 0) {
            tests.extend(args.batch.iter().map(|&batch| Test { n_prompt: 0, n_gen, batch, depth }));
        }
    }
    if tests.is_empty() {
        return Err(usage("nothing to measure: -p and -n are both 0"));
    }
    Ok(tests)
}

/// The counted runs of one test; `None` if stopped.
fn measure(
    engine: &mut Engine,
    test: Test,
    args: &BenchArgs,
    show: &dyn Fn(f64),
    stopped: impl Fn() -> bool,
) -> biga::Result<Option<Measured>> {
    show(0.0);
    let Some(mut rig) = Rig::new(engine, test, stopped)? else { return Ok(None) };
    let mut runs = Vec::new();
    for rep in 0..=args.reps {
        show(rep as f64 / (args.reps + 1) as f64);
        match rig.run()? {
            // The first run warms caches and clocks.
            Some(_) if rep == 0 => {}
            Some(run) => runs.push(run),
            None => {
                rig.close()?;
                return Ok(None);
            }
        }
    }
    let profile = if args.profile { rig.profile()? } else { Vec::new() };
    rig.close()?;
    Ok(Some(Measured { test, runs, profile }))
}
