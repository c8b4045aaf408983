//! `biga plan`: where each op of a model runs, and why. Devices are opened and asked; none gets memory.

use crate::{
    args::PlanArgs,
    exit::Outcome,
    open::{self, Needs},
    output,
};

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let needs = Needs { max_sequences: args.batch, all_logits: false, context: None };
    let plan = open::open(&args.model, needs)?.plan;
    if args.json {
        output::print_json(&plan.to_json())?;
    } else if args.dot {
        output::print(&plan.to_dot())?;
    } else {
        output::print(&plan.explain().to_string())?;
    }
    Ok(Outcome::Done)
}
