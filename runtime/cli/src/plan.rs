//! `biga plan`: where each op of a model runs, and why.

use serde_json::json;

use crate::{
    args::PlanArgs,
    exit::Outcome,
    open::{self, Needs},
    output::{self, JSON_VERSION},
    placements,
};

/// Runs the command.
pub(crate) fn run(args: &PlanArgs) -> anyhow::Result<Outcome> {
    let needs = Needs { max_sequences: args.batch, all_logits: false, context: None };
    let opened = open::open(&args.model, needs)?;
    let rows = placements::rows(&opened.plan, &opened.model.graph);
    if args.json {
        output::print_json(&json!({ "version": JSON_VERSION, "placements": rows }))?;
    } else {
        output::print(&placements::table(&rows))?;
    }
    Ok(Outcome::Done)
}
