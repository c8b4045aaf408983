//! KV groups: layers that share a block table.

use std::collections::BTreeSet;

use super::{
    cost::reaches,
    decide::{Decision, KvLayer, instance},
    types::{KvGroup, Phase},
};

/// Home, accessors and format of one layer's KV.
fn settle(decision: &Decision<'_>, layer: &KvLayer, devices: &[usize], choices: &[usize]) -> KvGroup {
    let inputs = decision.inputs;
    let (home, chosen) = layer.options[choices[layer.variable]];
    let users: BTreeSet<usize> = layer
        .ops
        .iter()
        .flat_map(|&op| Phase::ALL.map(|phase| devices[decision.variable_of[instance(op, phase)]]))
        .collect();
    debug_assert!(users.iter().all(|&user| reaches(inputs, user, home)));
    // The search may have settled on a format that fits in memory; a better one that all users have and
    // that takes no more is better still.
    let runs = |kv: usize| {
        layer.ops.iter().all(|&op| {
            Phase::ALL
                .iter()
                .all(|&phase| inputs.answer(op, devices[decision.variable_of[instance(op, phase)]], kv).is_ok())
        })
    };
    let bytes = |kv: usize| super::cost::kv_position_bytes(layer.heads, decision.kv_dtype(kv));
    let kv = (0..chosen).find(|&kv| runs(kv) && bytes(kv) <= bytes(chosen)).unwrap_or(chosen);
    KvGroup {
        home,
        accessors: users.into_iter().filter(|&user| user != home).collect(),
        dtype: decision.kv_dtype(kv),
        window: layer.window,
        n_kv_heads: layer.heads.n_kv_heads,
        head_dim: layer.heads.head_dim,
        layers: vec![layer.layer],
    }
}

/// The groups, in the order of their first layers.
pub(super) fn groups(decision: &Decision<'_>, devices: &[usize], choices: &[usize]) -> Vec<KvGroup> {
    let mut groups: Vec<KvGroup> = Vec::new();
    for layer in &decision.kv {
        let own = settle(decision, layer, devices, choices);
        let same = |group: &&mut KvGroup| KvGroup { layers: own.layers.clone(), ..(**group).clone() } == own;
        match groups.iter_mut().find(same) {
            Some(group) => group.layers.push(layer.layer),
            None => groups.push(own),
        }
    }
    groups
}
