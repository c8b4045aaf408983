//! The tokens that the host would choose, step by step, and those that the device chooses by itself.

use std::ops::ControlFlow;

use biga::{
    Engine,
    execute::{DecodeItem, SequenceId, StepItem, Wanted},
    sample::{Sampler, SamplingParams},
};

/// The best token, and draws of every kind that a device does.
pub fn samplings() -> [SamplingParams; 5] {
    let draw = SamplingParams { temperature: 0.8, seed: 42, ..SamplingParams::GREEDY };
    [
        SamplingParams::GREEDY,
        draw,
        SamplingParams { min_p: 0.1, ..draw },
        SamplingParams { top_k: 40, top_p: 0.95, min_p: 0.05, ..draw },
        SamplingParams { top_k: 5, temperature: 3.0, ..draw },
    ]
}

/// What the host chooses, step by step.
///
/// # Panics
/// If the engine refuses a step.
pub fn by_host(engine: &mut Engine, prompts: &[Vec<u32>], sampling: SamplingParams, n: usize) -> Vec<Vec<u32>> {
    let vocab = engine.model().config.vocab;
    let mut texts = Vec::new();
    for prompt in prompts {
        let mut sampler = Sampler::new(sampling, vocab).unwrap();
        let sequence = engine.open_sequence().unwrap();
        let (mut text, mut fed) = (Vec::new(), prompt.clone());
        for _ in 0..n {
            let logits = engine.step(&[StepItem { sequence, tokens: &fed, wanted: Wanted::Last }]).unwrap();
            let row = logits.row(0).to_vec();
            let position = engine.sequence_len(sequence).unwrap() - 1;
            fed = vec![sampler.sample(&row, position, None).unwrap()];
            text.push(fed[0]);
        }
        engine.close_sequence(sequence).unwrap();
        texts.push(text);
    }
    texts
}

/// The items of a decode.
pub fn items<'a>(sequences: &[SequenceId], fed: &'a [Vec<u32>], sampling: SamplingParams) -> Vec<DecodeItem<'a>> {
    let item = |(&sequence, tokens): (&SequenceId, &'a Vec<u32>)| DecodeItem { sequence, tokens, sampling };
    sequences.iter().zip(fed).map(item).collect()
}

/// What the device chooses, `first` tokens and then the rest in a second go.
///
/// # Panics
/// If the engine refuses a decode, or leaves the sequences in another state than it says.
pub fn by_device(
    engine: &mut Engine,
    prompts: &[Vec<u32>],
    sampling: SamplingParams,
    first: usize,
    n: usize,
) -> Vec<Vec<u32>> {
    let sequences: Vec<SequenceId> = prompts.iter().map(|_| engine.open_sequence().unwrap()).collect();
    let mut texts = vec![Vec::new(); prompts.len()];
    let mut fed = prompts.to_vec();
    for asked in [first, n - first] {
        let mut seen = 0;
        // The first go ends in the middle of what it might do.
        let n_steps = if asked == first { n } else { asked };
        let n_seen = engine
            .decode(&items(&sequences, &fed, sampling), n_steps, &mut |tokens| {
                texts.iter_mut().zip(tokens).for_each(|(text, &token)| text.push(token));
                seen += 1;
                if seen == asked { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(n_seen, asked);
        for ((&sequence, prompt), text) in sequences.iter().zip(prompts).zip(&texts) {
            assert_eq!(engine.sequence_len(sequence).unwrap(), prompt.len() + text.len() - 1);
        }
        fed = texts.iter().map(|text| vec![text[text.len() - 1]]).collect();
    }
    sequences.into_iter().for_each(|sequence| engine.close_sequence(sequence).unwrap());
    texts
}
