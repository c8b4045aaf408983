//! Plans of real graphs on made-up machines.

mod machine;

use super::*;
use machine::Setup;

#[test]
fn auto_splits_by_cost_and_everything_is_consistent() {
    let setup = Setup::tiny();
    let plan = setup.plan(|_| {}).unwrap();
    plan.verify(&setup.graph).unwrap();
    assert!(plan.optimal);
    assert!(plan.fallbacks.is_empty());
    assert!(plan.phases[0].placements.iter().all(|p| matches!(p.reason, Reason::Cost | Reason::OnlyCapable)));
}

#[test]
fn a_large_graph_is_planned_quickly_and_exactly() {
    let setup = Setup::large();
    let begin = std::time::Instant::now();
    let plan = setup.plan(|_| {}).unwrap();
    eprintln!("{} ops planned in {:?}", setup.graph.len(), begin.elapsed());
    assert!(plan.optimal);
    plan.verify(&setup.graph).unwrap();
    let weights: u64 = plan.weights.iter().map(|home| home.resident_bytes).sum();
    for share in [0.9, 0.5, 0.2] {
        let begin = std::time::Instant::now();
        let plan = setup.plan(|request| request.memory_limit = Some((weights as f64 * share) as u64)).unwrap();
        eprintln!("share {share}: {:?} optimal {}", begin.elapsed(), plan.optimal);
        plan.verify(&setup.graph).unwrap();
    }
}
