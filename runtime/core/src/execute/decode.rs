//! Decode without the host between the steps: each step chooses its tokens on the device and becomes the step
//! that decodes them, so that the next can be submitted before the host has seen any of it.
//!
//! The host stays ahead with what only it knows, the KV blocks, and behind with what it alone can judge: whether
//! a token ends the text. Steps that ran beyond the end are taken back.

use std::{
    fmt,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use biga_hal::{DeviceId, FencePoint, STEP_TIMEOUT, SampleResult, SampleRow};

use super::{SequenceId, StepItem, Wanted, batch, settle};
use crate::{
    Engine, Error, Result,
    plan::MAX_IN_FLIGHT,
    sample::{SampleError, SamplingParams},
};

/// The first tokens of one sequence, and how those that follow are chosen.
#[derive(Clone, Copy, Debug)]
pub struct DecodeItem<'a> {
    /// The sequence, at whose end they are appended.
    pub sequence: SequenceId,
    /// The tokens that the first step feeds: at least one.
    pub tokens: &'a [u32],
    /// How the tokens after them are chosen.
    pub sampling: SamplingParams,
}

/// Who chooses the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampledOn {
    /// The device that runs the step, in the same submission.
    Device(DeviceId),
    /// The host, from logits that it copies, for this reason.
    Host(&'static str),
}

impl fmt::Display for SampledOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SampledOn::Device(device) => write!(f, "on {device}"),
            SampledOn::Host(reason) => write!(f, "on the host: {reason}"),
        }
    }
}

/// Steps that were submitted, oldest first.
struct InFlight {
    points: [Option<FencePoint>; MAX_IN_FLIGHT],
    n_submitted: usize,
    n_taken: usize,
}

impl InFlight {
    fn len(&self) -> usize {
        self.n_submitted - self.n_taken
    }

    /// The `n`-th oldest of those not taken yet.
    fn nth(&self, n: usize) -> Option<&FencePoint> {
        self.points[(self.n_taken + n) % MAX_IN_FLIGHT].as_ref().filter(|_| n < self.len())
    }
}

/// How many steps the host sleeps through. To wake costs it more than all else that it does for a step, and
/// nobody sees whether tokens come one by one or a few together, if they come within [`Pace::UNSEEN`].
struct Pace {
    woken: Instant,
    /// Steps taken since.
    n_taken: usize,
    /// Of one step, as measured last.
    step: Duration,
}

impl Pace {
    /// A frame of a display.
    const UNSEEN: Duration = Duration::from_millis(16);

    fn new() -> Pace {
        Pace { woken: Instant::now(), n_taken: 0, step: Pace::UNSEEN }
    }

    /// Of so many steps in flight, those to sleep through where each takes `step`.
    fn together(step: Duration, in_flight: usize) -> usize {
        let unseen = Pace::UNSEEN.as_nanos() / step.as_nanos().max(1);
        let most = in_flight.min(MAX_IN_FLIGHT - 1);
        usize::try_from(unseen).map_or(most, |unseen| unseen.clamp(1, most.max(1)))
    }

    /// Sleeps until the oldest step has ended, or a few more; one that is in flight behind them keeps the
    /// device busy when the host wakes.
    fn sleep(&mut self, flight: &InFlight) -> Result<()> {
        if let Some(point) = flight.nth(Pace::together(self.step, flight.len()).saturating_sub(1)) {
            point.wait(STEP_TIMEOUT)?;
        }
        if self.n_taken > 0 {
            self.step = self.woken.elapsed() / u32::try_from(self.n_taken).unwrap_or(1);
        }
        (self.woken, self.n_taken) = (Instant::now(), 0);
        Ok(())
    }
}

/// What stays the same from step to step of one decode.
struct Decode<'a> {
    items: &'a [StepItem<'a>],
    /// Lengths of the sequences before it.
    starts: &'a [usize],
    /// Of the first step, and of those that follow.
    phases: [usize; 2],
    n_steps: usize,
    /// Of the first step.
    number: u32,
}

impl Decode<'_> {
    /// Length of a sequence after `n` steps.
    fn len(&self, index: usize, n: usize) -> usize {
        self.starts[index] + if n == 0 { 0 } else { self.items[index].tokens.len() + n - 1 }
    }

    fn phase(&self, step: usize) -> usize {
        self.phases[usize::from(step > 0)]
    }
}

impl Engine {
    /// Who chooses tokens by such parameters: the device, if it runs whole steps and can.
    pub fn sampled_on(&self, params: &SamplingParams) -> SampledOn {
        let mut devices = self.phases.iter().map(|phase| phase.sampled.as_ref().map(|step| step.device));
        let first = devices.next().flatten();
        match (first.filter(|_| devices.all(|device| device == first)), params.as_row()) {
            (None, _) => SampledOn::Host("a step takes more than one device"),
            (_, Err(reason)) => SampledOn::Host(reason),
            (Some(device), Ok(_)) => SampledOn::Device(self.devices[device].info().id),
        }
    }

    /// Decodes up to `n_steps` tokens of each sequence on the device that chooses them. The first step feeds
    /// the items' tokens, each further one the tokens just chosen. `on_tokens` sees each step's tokens, one an
    /// item, in order, and may end it. Returns how many steps it saw.
    ///
    /// Afterwards each sequence holds what was fed to the steps that `on_tokens` saw: the tokens of the last one
    /// are in no sequence yet. That holds after an error too.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the host has to choose ([`Engine::sampled_on`]), a bound of the plan, a row without
    /// a finite logit, a lost device, a model file that changed under its mapping.
    pub fn decode(
        &mut self,
        items: &[DecodeItem<'_>],
        n_steps: usize,
        on_tokens: &mut dyn FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<usize> {
        for item in items {
            item.sampling.check()?;
            if let SampledOn::Host(reason) = self.sampled_on(&item.sampling) {
                return Err(Error::Invalid(format!("the host has to choose the tokens: {reason}")));
            }
            if items.iter().filter(|other| other.sequence == item.sequence).count() > 1 {
                return Err(Error::Invalid(format!("sequence {} twice in one step", item.sequence.0)));
            }
        }
        let fed: Vec<StepItem<'_>> = items
            .iter()
            .map(|item| StepItem { sequence: item.sequence, tokens: item.tokens, wanted: Wanted::Last })
            .collect();
        let size = batch::check(&fed, &self.plan.limits, self.step.vocab)?;
        let next = batch::Size { tokens: items.len(), ..size };
        let starts = items.iter().map(|item| self.sequence_len(item.sequence)).collect::<Result<Vec<_>>>()?;
        let phases = [self.choose_phase(size)?, self.choose_phase(next)?];
        let decode = Decode { items: &fed, starts: &starts, phases, n_steps, number: self.step.number };
        for index in 0..items.len() {
            let (asked, most) = (decode.len(index, n_steps), self.plan.limits.context);
            if asked > most {
                return Err(Error::Limit { what: "tokens of a sequence", asked, most });
            }
        }
        // What a failed step left running still reads and writes what this is about to change.
        settle(&mut self.step.points)?;
        let mut flight = InFlight { points: [const { None }; MAX_IN_FLIGHT], n_submitted: 0, n_taken: 0 };
        let ran = self.run_ahead(&decode, items, &mut flight, on_tokens);
        self.step.number = decode.number.wrapping_add(flight.n_submitted as u32);
        let settled = settle(&mut self.step.points);
        self.take_back(&decode, flight.n_taken);
        ran.and(settled).map(|()| flight.n_taken)
    }

    fn run_ahead(
        &mut self,
        decode: &Decode<'_>,
        items: &[DecodeItem<'_>],
        flight: &mut InFlight,
        on_tokens: &mut dyn FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut pace = Pace::new();
        while flight.n_taken < decode.n_steps {
            let more = flight.n_submitted < decode.n_steps && flight.len() < MAX_IN_FLIGHT;
            if !more {
                let ended = match flight.nth(0) {
                    Some(oldest) => oldest.timeline.value()? >= oldest.value,
                    None => false,
                };
                if !ended {
                    pace.sleep(flight)?;
                }
                self.take(decode, flight)?;
                pace.n_taken += 1;
                if on_tokens(&self.step.tokens).is_break() {
                    return Ok(());
                }
            } else {
                let step = flight.n_submitted;
                self.make_room(decode.items, step)?;
                if step == 0 {
                    self.write_first(decode, items)?;
                }
                let point = self.submit(decode.phase(step))?;
                flight.points[step % MAX_IN_FLIGHT] = Some(point);
                flight.n_submitted += 1;
            }
        }
        Ok(())
    }

    /// KV blocks for one step, and their addresses in the block tables. The steps in flight look at neither.
    fn make_room(&mut self, items: &[StepItem<'_>], step: usize) -> Result<()> {
        for item in items {
            let tokens = if step == 0 { item.tokens } else { &item.tokens[..1] };
            self.append(&StepItem { tokens, ..*item })?;
        }
        Ok(())
    }

    /// The step buffer, from which on the device goes on alone.
    fn write_first(&mut self, decode: &Decode<'_>, items: &[DecodeItem<'_>]) -> Result<()> {
        let Engine { kv, step, devices, .. } = self;
        batch::write_image(&mut step.image, &step.layout, decode.number, decode.items, |sequence| kv.len(sequence));
        let rows = step.image[step.layout.sampling..].chunks_exact_mut(SampleRow::SIZE_BYTES);
        for (row, item) in rows.zip(items) {
            let sampling = item.sampling.as_row().map_err(|reason| Error::Invalid(reason.to_owned()))?;
            row.copy_from_slice(&sampling.to_bytes());
        }
        for (device, buffer) in devices.iter().zip(&step.buffers) {
            let Some(buffer) = buffer else { continue };
            device.write(&buffer.slice(0, step.image.len() as u64)?, &step.image)?;
        }
        Ok(())
    }

    fn submit(&mut self, phase: usize) -> Result<FencePoint> {
        let sampled = self.phases[phase].sampled.as_ref();
        let sampled = sampled.ok_or_else(|| Error::Invalid("no step of this size chooses tokens".to_owned()))?;
        let point = self.devices[sampled.device].submit(&*sampled.executable, &[])?;
        self.step.points[sampled.device] = Some(point.clone());
        self.step.n_steps[phase] += 1;
        Ok(point)
    }

    /// Takes the tokens of the oldest step in flight, which has ended, from the ring.
    fn take(&mut self, decode: &Decode<'_>, flight: &mut InFlight) -> Result<()> {
        let taken = flight.n_taken;
        let Engine { step, devices, phases, model, .. } = self;
        let device = phases[decode.phase(taken)].sampled.as_ref().map(|sampled| sampled.device);
        let ring = device.and_then(|device| Some((&devices[device], step.rings[device].as_ref()?)));
        let (device, ring) = ring.ok_or_else(|| Error::Invalid("no ring for the results of a step".to_owned()))?;
        let number = decode.number.wrapping_add(taken as u32);
        let bytes = &mut step.results[..decode.items.len() * SampleResult::SIZE_BYTES];
        device.read(&ring.slice(step.layout.results(number) as u64, bytes.len() as u64)?, bytes)?;
        step.tokens.clear();
        for (index, &entry) in bytes.as_chunks::<{ SampleResult::SIZE_BYTES }>().0.iter().enumerate() {
            let result = SampleResult::from_bytes(entry);
            if result.number != number {
                let seen = result.number;
                return Err(Error::Invalid(format!("results of step {seen} where those of step {number} belong")));
            }
            if result.token == SampleResult::NONE {
                let position = decode.len(index, taken + 1) - 1;
                return Err(SampleError::NoFiniteLogit { n_logits: step.vocab, position }.into());
            }
            step.tokens.push(result.token);
        }
        model.weights.check_lost()?;
        flight.n_taken += 1;
        Ok(())
    }

    /// Leaves in each sequence what `n` steps fed.
    fn take_back(&mut self, decode: &Decode<'_>, n: usize) {
        for (index, item) in decode.items.iter().enumerate() {
            // A sequence that cannot go back is useless; closing it is what its owner would do.
            if self.kv.truncate(item.sequence, decode.len(index, n)).is_err() {
                let _ = self.kv.close(item.sequence);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{MAX_IN_FLIGHT, Pace};

    fn check(step_us: u64, in_flight: usize, expected: usize) {
        assert_eq!(Pace::together(Duration::from_micros(step_us), in_flight), expected, "{step_us} us, {in_flight}");
    }

    #[test]
    fn the_host_sleeps_through_steps_that_come_within_a_frame() {
        check(160_000, MAX_IN_FLIGHT, 1);
        check(16_001, MAX_IN_FLIGHT, 1);
        check(6_000, MAX_IN_FLIGHT, 2);
        check(600, MAX_IN_FLIGHT, 3);
        check(0, MAX_IN_FLIGHT, 3);
        check(600, 2, 2);
        check(600, 1, 1);
        check(160_000, 1, 1);
    }
}
