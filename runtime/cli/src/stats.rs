//! What a run did: tokens, speeds, what the devices counted, where ops ran, what fell back and why.

use std::fmt::Write;

use biga::{
    Engine,
    execute::Stats,
    generate::{Finish, Generated},
    plan::Fallback,
};

use crate::{placements, size};

/// The report that `--stats` asks for. `before` was taken when the engine was ready.
pub(crate) fn of_generation(engine: &Engine, before: &Stats, generated: &Generated) -> String {
    let mut text = speeds(generated);
    let after = engine.stats();
    let (prefill, decode) =
        (after.n_prefill_steps - before.n_prefill_steps, after.n_decode_steps - before.n_decode_steps);
    let _ = writeln!(text, "{:<14} {prefill} in prefill buckets, {decode} in decode buckets", "steps");
    for ((name, now), (_, then)) in after.devices.iter().zip(&before.devices) {
        let _ = writeln!(
            text,
            "{name:<14} {} submissions; {} objects created, {} allocations, {} mappings while running \
             (set-up: {}, {}, {})",
            now.submissions - then.submissions,
            now.objects_created - then.objects_created,
            now.allocations - then.allocations,
            now.mappings - then.mappings,
            then.objects_created,
            then.allocations,
            then.mappings
        );
    }
    text += "\nwhere each op ran\n";
    text += &placements::table(&placements::rows(engine.plan(), &engine.model().graph));
    text.push('\n');
    text += &fallbacks(&after);
    text
}

fn speeds(generated: &Generated) -> String {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2} tok/s"));
    let finish = match &generated.finish {
        Finish::EndToken => "end token".to_owned(),
        Finish::StopString(stop) => format!("stop string {stop:?}"),
        Finish::Length => "as many as asked".to_owned(),
        Finish::Context => "context full".to_owned(),
        Finish::Interrupted => "interrupted".to_owned(),
    };
    let first = match generated.prompt_time.is_zero() || generated.token_ids.is_empty() {
        true => "no token came".to_owned(),
        false => format!("first token after {}", size::seconds(generated.prompt_time.as_secs_f64())),
    };
    let mut text = String::from("\n");
    let _ = writeln!(
        text,
        "{:<14} {} tokens, {}, {first}",
        "prompt",
        generated.n_prompt,
        rate(generated.prompt_tokens_per_s()),
    );
    let _ = writeln!(
        text,
        "{:<14} {} tokens, {} ({finish})",
        "generated",
        generated.token_ids.len(),
        rate(generated.decode_tokens_per_s())
    );
    let _ = writeln!(text, "{:<14} {}", "sampled", generated.sampled_on);
    text
}

/// Each cause once, with the ops that it moved and how often each ran elsewhere.
pub(crate) fn fallbacks(stats: &Stats) -> String {
    let mut groups: Vec<(&Fallback, Vec<String>)> = Vec::new();
    for count in stats.fallbacks.iter().filter(|count| count.n_ops_run > 0) {
        let one = &count.fallback;
        let op = format!("{} {}x", one.op, count.n_ops_run);
        let same = |known: &Fallback| {
            (known.phase, &known.wanted, &known.ran_on, &known.cause)
                == (one.phase, &one.wanted, &one.ran_on, &one.cause)
        };
        match groups.iter_mut().find(|(known, _)| same(known)) {
            Some((_, ops)) => ops.push(op),
            None => groups.push((one, vec![op])),
        }
    }
    if groups.is_empty() {
        return "no fallback\n".to_owned();
    }
    let mut text = String::from("fallbacks\n");
    for (Fallback { phase, wanted, ran_on, cause, .. }, ops) in groups {
        let _ = writeln!(text, "{phase:<8} on {ran_on} instead of {wanted}: {cause}\n         {}", ops.join(", "));
    }
    text
}
