//! The choice of tokens: the results ring and the step that follows, bit for bit.

use std::sync::Arc;

use biga_hal::{
    BoundOp, Device, Op, OpKind, OpQuery, Result, Rows, SampleResult, SampleRow, Segment, StepHeader, StepLayout,
    StepLimits,
};

use crate::{
    Report,
    bench::{Bench, Image, Index},
    data::{Random, f32_bytes},
    rig::{Pair, StepCase, step_bytes},
};

/// What a row of logits is like.
#[derive(Clone, Copy, Debug)]
enum Row {
    /// Any finite numbers.
    Random,
    /// Many equal ones.
    Ties,
    /// Infinities and NaN among them, also where the best would be.
    Holes,
    /// Zeros of both signs and numbers below.
    Zeros,
    /// Nothing finite.
    Nothing,
}

struct Case {
    vocab: usize,
    rows: Vec<Row>,
    step: StepCase,
    /// Of the step.
    number: u32,
    sampling: SampleRow,
}

impl Case {
    fn name(&self) -> String {
        let (runs, outputs) = (&self.step.runs, &self.step.outputs);
        let how = if self.sampling.draws { format!("{:?}", self.sampling) } else { "the best".to_owned() };
        let (vocab, rows, spare) = (self.vocab, &self.rows, self.step.spare);
        format!("sample {vocab} of {rows:?} + {spare}, outputs {outputs:?} of {runs:?}, {how}")
    }

    fn logits(&self, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed);
        let mut logits = Vec::with_capacity(self.vocab * self.step.bucket().outputs);
        for row in &self.rows {
            for at in 0..self.vocab {
                let x = random.unit() * 20.0;
                logits.push(match row {
                    Row::Random => x,
                    Row::Ties => (x / 8.0).round(),
                    Row::Holes => match random.below(4) {
                        0 => f32::INFINITY,
                        1 => f32::NAN,
                        2 => f32::NEG_INFINITY,
                        _ => x,
                    },
                    Row::Zeros if at % 3 == 0 => -x.abs(),
                    Row::Zeros => {
                        if random.below(2) == 0 {
                            -0.0
                        } else {
                            0.0
                        }
                    }
                    Row::Nothing => {
                        if random.below(2) == 0 {
                            f32::NAN
                        } else {
                            f32::INFINITY
                        }
                    }
                });
            }
        }
        // Rows of the bucket that the step has not: the best of all, so that a look there shows.
        logits.resize(self.vocab * self.step.bucket().outputs, 1e30);
        logits
    }
}

fn cases() -> Vec<Case> {
    use Row::{Holes, Nothing, Random, Ties, Zeros};
    let one = || StepCase::rows(1, 0);
    let case = |vocab, rows: &[Row], step, number| {
        let sampling = SampleRow::BEST;
        Case { vocab, rows: rows.to_vec(), step, number, sampling }
    };
    let mut cases = Vec::new();
    for vocab in [1, 2, 37, 1000, 1024, 1025, 50_257] {
        for row in [Random, Ties, Holes, Zeros, Nothing] {
            cases.push(case(vocab, &[row], one(), 1));
        }
    }
    // More logits than parts of the usual length hold, and one part with less than a lane has elsewhere.
    cases.push(case(262_144, &[Random], one(), 7));
    cases.push(case(262_145, &[Ties], one(), 8));
    // A prompt's last row, and several sequences whose rows come out in another order.
    cases.push(case(300, &[Random], StepCase::rows(5, 3), 2));
    let ragged = StepCase { spare: 2, ..StepCase::of(&[(2, 40, 1), (0, 7, 6), (1, 1000, 2)]) };
    cases.push(case(2000, &[Random, Nothing, Holes], StepCase { outputs: vec![8, 0, 6], ..ragged }, u32::MAX));
    cases.push(case(
        3000,
        &[Ties; 6],
        StepCase::of(&[(0, 1, 1), (5, 9, 1), (2, 3, 1), (1, 0, 1), (4, 2, 1), (3, 3, 1)]),
        4,
    ));
    let draw = SampleRow {
        draws: true,
        inverse_temperature: 1.25,
        least: f32::MIN,
        top_k: 0,
        top_p: 1.0,
        seed: 0x1234_5678_9ABC_DEF0,
    };
    let few = SampleRow { top_k: 40, top_p: 0.95, least: -3.0, ..draw };
    let draws = [
        draw,
        few,
        SampleRow { least: -3.0, ..draw },
        SampleRow { inverse_temperature: 0.02, ..draw },
        SampleRow { inverse_temperature: 1e30, ..draw },
        SampleRow { top_k: 256, inverse_temperature: 0.01, ..draw },
        SampleRow { top_k: 100, top_p: 0.3, inverse_temperature: 0.1, ..draw },
        SampleRow { top_k: 1, ..draw },
        SampleRow { top_p: 0.0, top_k: 7, ..draw },
    ];
    for (i, sampling) in draws.into_iter().enumerate() {
        // More ties than are looked at together, fewer finite logits than are kept, one part and many.
        for (vocab, row) in [(1, Random), (37, Holes), (300, Nothing), (5000, Ties), (5000, Zeros), (50_257, Random)] {
            let step = StepCase::of(&[(0, 100 * i + vocab, 1)]);
            cases.push(Case { sampling, ..case(vocab, &[row], step, 3) });
        }
    }
    cases.push(Case { sampling: few, ..case(262_144, &[Random], one(), 7) });
    cases.push(Case { sampling: few, ..case(262_145, &[Ties], one(), 7) });
    cases.push(Case { sampling: draw, ..case(262_144, &[Random], one(), 7) });
    // One draw after another, so that a wrong bit of noise shows.
    for i in 0..30 {
        let runs = [(0, 31 * i, 1), (1, 1000 * i, 1), (2, 77 * i + 5, 1), (3, i, 1)];
        let seed = draw.seed.wrapping_mul(i as u64 + 1);
        let sampling = SampleRow { seed, inverse_temperature: 0.05, ..if i % 2 == 0 { draw } else { few } };
        cases.push(Case { sampling, ..case(1000, &[Random; 4], StepCase::of(&runs), 2) });
    }
    cases
}

/// A case on one device, after its run.
struct Trial<'a> {
    bench: Bench<'a>,
    segment: Segment,
    executable: Arc<dyn biga_hal::Executable>,
    before: Image,
    after: Image,
    ring: Index,
    step: Index,
    layout: StepLayout,
}

impl<'a> Trial<'a> {
    fn new(device: &'a dyn Device, case: &Case, logits: &[f32]) -> Result<Trial<'a>> {
        let bucket = case.step.bucket();
        let max_slots = case.step.runs.iter().map(|run| run.slot).max().unwrap_or(0) + 1;
        let limits = StepLimits {
            max_tokens: bucket.tokens + 3,
            max_outputs: bucket.outputs + 1,
            max_slots,
            max_blocks: 1,
            n_tables: 1,
        };
        let layout = StepLayout::new(limits)?;
        let mut bench = Bench::new(device);
        let input = bench.value("logits", &f32_bytes(logits))?;
        let output = bench.value("ring", &vec![0x5A; layout.ring_bytes()])?;
        let ring = bench.last();
        let tokens = vec![9; case.step.n_tokens()];
        let mut bytes = step_bytes(&layout, &case.step, &tokens, |_, _, _| 0);
        bytes[12..StepHeader::SIZE_BYTES].copy_from_slice(&case.number.to_le_bytes());
        let rows = bytes[layout.sampling..].chunks_exact_mut(SampleRow::SIZE_BYTES).take(case.rows.len());
        rows.for_each(|row| row.copy_from_slice(&case.sampling.to_bytes()));
        let step_buffer = bench.step(&bytes)?;
        let step = bench.last();
        let bound = BoundOp {
            op: Arc::new(Op { kind: OpKind::Sample { vocab: case.vocab }, layer: None }),
            rows: Rows::Outputs,
            inputs: vec![input],
            output: Some(output),
            weights: Vec::new(),
            kv: None,
            internal: false,
        };
        let segment =
            Segment { name: "sample".into(), bucket, ops: vec![bound], step: step_buffer, step_layout: layout };
        let executable = device.compile(&segment)?;
        let before = bench.image()?;
        let after = bench.run(&*executable, &before)?;
        Ok(Trial { bench, segment, executable, before, after, ring, step, layout })
    }

    /// What an output must not be: too short, over the step, over the logits, absent.
    fn refusals(&self, device: &dyn Device) -> std::result::Result<(), String> {
        let op = &self.segment.ops[0];
        let short = op.output.as_ref().and_then(|ring| ring.slice(0, ring.size_bytes() - 4).ok());
        for (what, output) in [
            ("a ring that is too short", short),
            ("the step buffer as the ring", Some(self.segment.step.clone())),
            ("the logits as the ring", op.inputs.first().cloned()),
            ("no ring", None),
        ] {
            let ops = vec![BoundOp { output, ..op.clone() }];
            if device.compile(&Segment { ops, ..self.segment.clone() }).is_ok() {
                return Err(format!("{what} was taken"));
            }
        }
        Ok(())
    }

    /// The ring, and the step buffer afterwards.
    fn left(&self) -> [&[u8]; 2] {
        [self.bench.bytes(&self.after, self.ring), self.bench.bytes(&self.after, self.step)]
    }
}

/// What the definition asks of the reference itself.
fn check_reference(case: &Case, trial: &Trial<'_>) -> std::result::Result<(), String> {
    let [ring, step] = trial.left();
    let layout = &trial.layout;
    let word = |offset: usize| u32::from_le_bytes([step[offset], step[offset + 1], step[offset + 2], step[offset + 3]]);
    let places = case.step.places();
    let header =
        [case.rows.len() as u32, case.step.runs.len() as u32, case.rows.len() as u32, case.number.wrapping_add(1)];
    if [0, 4, 8, 12].map(word) != header {
        return Err(format!("the next header is {:?}, {header:?} was expected", [0, 4, 8, 12].map(word)));
    }
    for (row, &from) in case.step.outputs.iter().enumerate() {
        let at = layout.results(case.number) + row * SampleResult::SIZE_BYTES;
        let entry = ring.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or("the ring is short")?;
        let result = SampleResult::from_bytes(*entry);
        let (position, slot) = places[from as usize];
        let token = if result.token == SampleResult::NONE { 0 } else { result.token };
        let next =
            [layout.tokens, layout.positions, layout.slots, layout.outputs].map(|section| word(section + 4 * row));
        if result.number != case.number || next != [token, position + 1, slot, row as u32] {
            return Err(format!("row {row}: {result:?}, then {next:?}"));
        }
    }
    Ok(())
}

fn run_case(pair: &Pair<'_>, case: &Case, index: usize) -> std::result::Result<(), String> {
    let logits = case.logits(pair.options.seed.wrapping_mul(1_000_003).wrapping_add(index as u64));
    let expected = Trial::new(pair.reference, case, &logits).map_err(|error| format!("reference: {error}"))?;
    check_reference(case, &expected).map_err(|cause| format!("reference: {cause}"))?;
    let seen = Trial::new(pair.device, case, &logits).map_err(|error| error.to_string())?;
    for (what, (expected, seen)) in ["ring", "step"].into_iter().zip(expected.left().into_iter().zip(seen.left())) {
        if let Some(at) = (0..expected.len().max(seen.len())).find(|&at| expected.get(at) != seen.get(at)) {
            return Err(format!("{what}, byte {at}: {:?} where {:?} was expected", seen.get(at), expected.get(at)));
        }
    }
    seen.refusals(pair.device)?;
    seen.bench.prove(&*seen.executable, &seen.before, &seen.after)
}

pub(crate) fn run(pair: &Pair<'_>, report: &mut Report) {
    for (index, case) in cases().iter().enumerate() {
        let query = OpQuery { kind: &OpKind::Sample { vocab: case.vocab }, weights: &[], kv: None };
        match pair.device.supports(&query) {
            Err(unsupported) => report.unsupported.push((case.name(), unsupported.cause)),
            Ok(()) => report.enter(case.name(), run_case(pair, case, index)),
        }
    }
}
