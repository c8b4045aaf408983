//! One test, timed: wall time, the process' own CPU time, and what the devices counted meanwhile.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use biga::{
    Engine, Result,
    execute::{DecodeItem, LaunchTime, SampledOn, SequenceId, StepItem, Wanted},
    hal::Counters,
    sample::SamplingParams,
};
use nix::time::{ClockId, clock_gettime};

use super::Test;

/// One counted run of a test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) time: Duration,
    /// CPU time of all threads of this process, the driver's among them.
    pub(super) host_time: Duration,
    pub(super) n_steps: u64,
    /// Of all devices together.
    pub(super) counted: Counters,
}

/// Runs a test again and again on sequences that already hold its context.
pub(super) struct Rig<'e, S> {
    engine: &'e mut Engine,
    test: Test,
    sequences: Vec<SequenceId>,
    stopped: S,
}

impl<'e, S: Fn() -> bool> Rig<'e, S> {
    /// Opens the sequences and fills their context; `None` if stopped.
    pub(super) fn new(engine: &'e mut Engine, test: Test, stopped: S) -> Result<Option<Rig<'e, S>>> {
        let sequences = (0..test.batch).map(|_| engine.open_sequence()).collect::<Result<Vec<_>>>()?;
        let mut rig = Rig { engine, test, sequences, stopped };
        for slot in 0..rig.sequences.len() {
            if !rig.prompt(slot, 0, test.depth)? {
                rig.close()?;
                return Ok(None);
            }
        }
        Ok(Some(rig))
    }

    /// One run, after which the sequences are as before; `None` if stopped.
    pub(super) fn run(&mut self) -> Result<Option<Run>> {
        let before = self.engine.stats();
        let (start, host_start) = (Instant::now(), host_time());
        let finished = self.prompt(0, self.test.depth, self.test.n_prompt)? && self.decode()?;
        let (time, host_time) = (start.elapsed(), host_time().saturating_sub(host_start));
        let after = self.engine.stats();
        if !finished || !self.rewind()? {
            return Ok(None);
        }
        let n_steps = after.n_prefill_steps + after.n_decode_steps - before.n_prefill_steps - before.n_decode_steps;
        let counted = difference(total(&after.devices), total(&before.devices));
        Ok(Some(Run { time, host_time, n_steps, counted }))
    }

    /// The launches of one step of the test: a chunk of the prompt, or a token for each sequence.
    pub(super) fn profile(&mut self) -> Result<Vec<LaunchTime>> {
        let vocab = self.engine.model().config.vocab;
        let each = self.test.n_prompt.clamp(1, self.engine.plan().limits.max_tokens);
        let tokens: Vec<u32> = (0..each).map(|position| pseudo_random(position as u64, vocab)).collect();
        let item = |&sequence: &SequenceId| StepItem { sequence, tokens: &tokens, wanted: Wanted::Last };
        let items: Vec<StepItem<'_>> = self.sequences.iter().map(item).collect();
        self.engine.profile(&items)
    }

    /// Ends the sequences.
    pub(super) fn close(self) -> Result<()> {
        self.sequences.into_iter().try_for_each(|sequence| self.engine.close_sequence(sequence))
    }

    /// Back to the context alone, read again where a window has moved past it; `false` if stopped.
    fn rewind(&mut self) -> Result<bool> {
        for slot in 0..self.sequences.len() {
            if self.engine.truncate(self.sequences[slot], self.test.depth).is_ok() {
                continue;
            }
            self.engine.close_sequence(self.sequences[slot])?;
            self.sequences[slot] = self.engine.open_sequence()?;
            if !self.prompt(slot, 0, self.test.depth)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Feeds `n` tokens in chunks; `false` if stopped.
    fn prompt(&mut self, slot: usize, start: usize, n: usize) -> Result<bool> {
        let vocab = self.engine.model().config.vocab;
        let tokens: Vec<u32> = (start..start + n).map(|position| pseudo_random(position as u64, vocab)).collect();
        let chunks = tokens.chunks(self.engine.plan().limits.max_tokens);
        let n_chunks = chunks.len();
        for (index, tokens) in chunks.enumerate() {
            if (self.stopped)() {
                return Ok(false);
            }
            let wanted = if index + 1 == n_chunks { Wanted::Last } else { Wanted::None };
            self.engine.step(&[StepItem { sequence: self.sequences[slot], tokens, wanted }])?;
        }
        Ok(true)
    }

    /// One token for each sequence a step, each the best one after the last; `false` if stopped.
    fn decode(&mut self) -> Result<bool> {
        let sampling = SamplingParams::GREEDY;
        if let SampledOn::Host(_) = self.engine.sampled_on(&sampling) {
            return self.feed();
        }
        let vocab = self.engine.model().config.vocab;
        let first: Vec<u32> = (0..self.sequences.len()).map(|slot| pseudo_random(slot as u64, vocab)).collect();
        let items = self.sequences.iter().zip(first.chunks(1));
        let items: Vec<DecodeItem<'_>> =
            items.map(|(&sequence, tokens)| DecodeItem { sequence, tokens, sampling }).collect();
        let stopped = &self.stopped;
        let n = self.engine.decode(&items, self.test.n_gen, &mut |_| {
            if stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(n == self.test.n_gen && !stopped())
    }

    /// One pseudo-random token for each sequence a step, where no device chooses; `false` if stopped.
    fn feed(&mut self) -> Result<bool> {
        let vocab = self.engine.model().config.vocab;
        for position in 0..self.test.n_gen {
            if (self.stopped)() {
                return Ok(false);
            }
            let slots = 0..self.sequences.len();
            let tokens: Vec<u32> = slots.map(|slot| pseudo_random((position << 16 | slot) as u64, vocab)).collect();
            let items = self.sequences.iter().zip(tokens.chunks(1));
            let items: Vec<StepItem<'_>> =
                items.map(|(&sequence, tokens)| StepItem { sequence, tokens, wanted: Wanted::Last }).collect();
            self.engine.step(&items)?;
        }
        Ok(true)
    }
}

/// CPU time of this process so far; zero where the system does not say.
fn host_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn total(devices: &[(String, Counters)]) -> Counters {
    devices.iter().fold(Counters::default(), |sum, (_, one)| Counters {
        submissions: sum.submissions + one.submissions,
        objects_created: sum.objects_created + one.objects_created,
        allocations: sum.allocations + one.allocations,
        mappings: sum.mappings + one.mappings,
    })
}

fn difference(after: Counters, before: Counters) -> Counters {
    Counters {
        submissions: after.submissions - before.submissions,
        objects_created: after.objects_created - before.objects_created,
        allocations: after.allocations - before.allocations,
        mappings: after.mappings - before.mappings,
    }
}

/// A token id that looks random (the finaliser of SplitMix64).
fn pseudo_random(n: u64, vocab: usize) -> u32 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) % vocab.max(1) as u64) as u32
}
