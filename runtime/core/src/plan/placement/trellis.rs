//! The frontier of the search: which partial decisions are equivalent for everything still undecided.
//!
//! Variables are decided in order. After each, a *state* holds only what later costs depend on: for a
//! value with readers to come, where it was made and where it already is; for a pair with an undecided
//! side, the decided side's choice. Partial decisions with the same state differ in cost and memory
//! alone. The chain shape of a transformer keeps states few.

use std::collections::HashMap;

use super::{FORBIDDEN, MAX_DEVICES, Problem, Transfer};

/// One decision: from a state before a variable to a state after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transition {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) choice: u32,
    pub(super) cost: u64,
}

/// All decisions of one variable, sorted by `from`.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) n_states_after: usize,
    pub(super) transitions: Vec<Transition>,
}

/// All stages, one per variable.
#[derive(Debug)]
pub(super) struct Trellis {
    pub(super) stages: Vec<Stage>,
    /// True if states had to be dropped.
    pub(super) cut: bool,
}

/// Something open: a value or a variable whose choice still matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Item {
    Transfer(usize),
    Variable(usize),
}

const UNKNOWN: u8 = u8::MAX;
const ITEM_BYTES: usize = 3;

/// Where a value was made and on which devices it already is (or is already known to be read).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ValueState {
    maker: u8,
    present: u16,
}

impl ValueState {
    const FRESH: ValueState = ValueState { maker: UNKNOWN, present: 0 };
    const SETTLED: ValueState = ValueState { maker: UNKNOWN - 1, present: 0 };

    fn read(key: &[u8], slot: usize) -> ValueState {
        let at = slot * ITEM_BYTES;
        ValueState { maker: key[at], present: u16::from_le_bytes([key[at + 1], key[at + 2]]) }
    }

    fn write(self, key: &mut [u8], slot: usize) {
        let at = slot * ITEM_BYTES;
        key[at] = self.maker;
        key[at + 1..at + 3].copy_from_slice(&self.present.to_le_bytes());
    }

    /// Decides the maker, a reader, or both on `device`; adds what becomes payable.
    fn decide(&mut self, touch: &Touch, transfer: &Transfer, device: usize, n_devices: usize) -> u64 {
        let mut cost = 0u64;
        let bit = 1u16 << device;
        if *self == ValueState::SETTLED {
            return 0;
        }
        if touch.makes {
            for to in (0..n_devices).filter(|&to| to != device && self.present & (1 << to) != 0) {
                cost = cost.saturating_add(transfer.cost[device * n_devices + to]);
            }
            self.maker = device as u8;
            self.present |= bit;
        }
        if touch.reads && self.present & bit == 0 {
            if self.maker != UNKNOWN {
                cost = cost.saturating_add(transfer.cost[usize::from(self.maker) * n_devices + device]);
            }
            self.present |= bit;
        }
        cost
    }

    /// Forgets what no undecided reader can depend on.
    fn forget(&mut self, devices_to_come: u16) {
        if self.maker == UNKNOWN || *self == ValueState::SETTLED {
            return;
        }
        if devices_to_come & !self.present == 0 {
            *self = ValueState::SETTLED;
        } else {
            self.present &= devices_to_come | (1 << self.maker);
        }
    }
}

/// How a variable takes part in a transfer.
struct Touch {
    transfer: usize,
    makes: bool,
    reads: bool,
    slot_before: Option<usize>,
    slot_after: Option<usize>,
    devices_to_come: u16,
}

/// What deciding one variable involves.
struct StagePlan {
    items_after: Vec<Item>,
    /// Slots to copy unchanged: before, after.
    kept: Vec<(usize, usize)>,
    touches: Vec<Touch>,
    /// Pairs that close here: slot of the other variable, index of the pair, whether the other is `a`.
    pairs: Vec<(usize, usize, bool)>,
    own_slot: Option<usize>,
}

/// Spans of the decisions that each item involves.
struct Spans {
    transfers_of: Vec<Vec<usize>>,
    pairs_of: Vec<Vec<usize>>,
    transfer_last: Vec<usize>,
    variable_last: Vec<usize>,
    devices_of: Vec<u16>,
}

impl Spans {
    fn of(problem: &Problem) -> Spans {
        let n = problem.variables.len();
        let mut spans = Spans {
            transfers_of: vec![Vec::new(); n],
            pairs_of: vec![Vec::new(); n],
            transfer_last: Vec::with_capacity(problem.transfers.len()),
            variable_last: (0..n).collect(),
            devices_of: Vec::with_capacity(n),
        };
        for (index, transfer) in problem.transfers.iter().enumerate() {
            let mut members: Vec<usize> = transfer.readers.iter().copied().chain([transfer.from]).collect();
            members.sort_unstable();
            members.dedup();
            spans.transfer_last.push(members.last().copied().unwrap_or(transfer.from));
            for member in members {
                spans.transfers_of[member].push(index);
            }
        }
        for (index, pair) in problem.pairs.iter().enumerate() {
            let (first, last) = (pair.a.min(pair.b), pair.a.max(pair.b));
            spans.pairs_of[last].push(index);
            spans.variable_last[first] = spans.variable_last[first].max(last);
        }
        for variable in &problem.variables {
            spans.devices_of.push(variable.choices.iter().fold(0, |set, choice| set | 1 << choice.device));
        }
        spans
    }

    fn plan(&self, problem: &Problem, variable: usize, items_before: &[Item]) -> StagePlan {
        let still_open = |item: &Item| match *item {
            Item::Transfer(t) => self.transfer_last[t] > variable,
            Item::Variable(v) => self.variable_last[v] > variable,
        };
        let mut items_after: Vec<Item> = items_before.iter().copied().filter(still_open).collect();
        for &t in &self.transfers_of[variable] {
            let item = Item::Transfer(t);
            if still_open(&item) && !items_after.contains(&item) {
                items_after.push(item);
            }
        }
        if self.variable_last[variable] > variable {
            items_after.push(Item::Variable(variable));
        }
        let before = |item: Item| items_before.iter().position(|&other| other == item);
        let after = |item: Item| items_after.iter().position(|&other| other == item);
        let touches: Vec<Touch> = self.transfers_of[variable]
            .iter()
            .map(|&t| {
                let transfer = &problem.transfers[t];
                let to_come = transfer.readers.iter().filter(|&&reader| reader > variable);
                Touch {
                    transfer: t,
                    makes: transfer.from == variable,
                    reads: transfer.readers.contains(&variable),
                    slot_before: before(Item::Transfer(t)),
                    slot_after: after(Item::Transfer(t)),
                    devices_to_come: to_come.fold(0, |set, &reader| set | self.devices_of[reader]),
                }
            })
            .collect();
        let touched =
            |item: &Item| matches!(item, Item::Transfer(t) if touches.iter().any(|touch| touch.transfer == *t));
        let kept = items_before
            .iter()
            .enumerate()
            .filter(|(_, item)| !touched(item))
            .filter_map(|(slot, &item)| Some((slot, after(item)?)))
            .collect();
        let pairs = self.pairs_of[variable]
            .iter()
            .filter_map(|&index| {
                let pair = &problem.pairs[index];
                let other_is_a = pair.b == variable;
                let other = if other_is_a { pair.a } else { pair.b };
                Some((before(Item::Variable(other))?, index, other_is_a))
            })
            .collect();
        let own_slot = after(Item::Variable(variable));
        StagePlan { items_after, kept, touches, pairs, own_slot }
    }
}

impl StagePlan {
    /// Decides `choice` from the state `key`: writes the next key and says what it costs.
    fn decide(&self, problem: &Problem, variable: usize, choice: usize, key: &[u8], next: &mut [u8]) -> u64 {
        let option = &problem.variables[variable].choices[choice];
        let mut cost = option.cost;
        for &(from, to) in &self.kept {
            let (from, to) = (from * ITEM_BYTES, to * ITEM_BYTES);
            next[to..to + ITEM_BYTES].copy_from_slice(&key[from..from + ITEM_BYTES]);
        }
        for touch in &self.touches {
            let mut state = touch.slot_before.map_or(ValueState::FRESH, |slot| ValueState::read(key, slot));
            let transfer = &problem.transfers[touch.transfer];
            cost = cost.saturating_add(state.decide(touch, transfer, option.device, problem.budgets.len()));
            if let Some(slot) = touch.slot_after {
                state.forget(touch.devices_to_come);
                state.write(next, slot);
            }
        }
        for &(slot, pair, other_is_a) in &self.pairs {
            let other = usize::from(ValueState::read(key, slot).present);
            let pair = &problem.pairs[pair];
            let width = problem.variables[pair.b].choices.len();
            let index = if other_is_a { other * width + choice } else { choice * width + other };
            cost = cost.saturating_add(pair.cost[index]);
        }
        if let Some(slot) = self.own_slot {
            ValueState { maker: 0, present: choice as u16 }.write(next, slot);
        }
        cost
    }
}

impl Trellis {
    /// Lists every state and decision, keeping at most `max_states` states after each variable.
    pub(super) fn build(problem: &Problem, max_states: usize) -> Trellis {
        debug_assert!(problem.budgets.len() <= MAX_DEVICES);
        let spans = Spans::of(problem);
        let mut trellis = Trellis { stages: Vec::with_capacity(problem.variables.len()), cut: false };
        let mut items: Vec<Item> = Vec::new();
        let mut keys: Vec<Box<[u8]>> = vec![Box::default()];
        let mut reached = vec![0u64];
        for variable in 0..problem.variables.len() {
            let plan = spans.plan(problem, variable, &items);
            let mut next = vec![0u8; plan.items_after.len() * ITEM_BYTES];
            let mut index_of: HashMap<Box<[u8]>, u32> = HashMap::new();
            let mut reached_after: Vec<u64> = Vec::new();
            let mut transitions = Vec::new();
            for (from, key) in keys.iter().enumerate() {
                for choice in 0..problem.variables[variable].choices.len() {
                    let cost = plan.decide(problem, variable, choice, key, &mut next);
                    if cost == FORBIDDEN {
                        continue;
                    }
                    let to = match index_of.get(&next[..]) {
                        Some(&to) => to,
                        None => {
                            let to = reached_after.len() as u32;
                            index_of.insert(next.clone().into_boxed_slice(), to);
                            reached_after.push(FORBIDDEN);
                            to
                        }
                    };
                    let total = reached[from].saturating_add(cost);
                    reached_after[to as usize] = reached_after[to as usize].min(total);
                    transitions.push(Transition { from: from as u32, to, choice: choice as u32, cost });
                }
            }
            let mut named: Vec<(u32, Box<[u8]>)> = index_of.into_iter().map(|(key, index)| (index, key)).collect();
            named.sort_unstable_by_key(|&(index, _)| index);
            keys = named.into_iter().map(|(_, key)| key).collect();
            reached = reached_after;
            if keys.len() > max_states {
                trellis.cut = true;
                keep_cheapest(max_states, &mut keys, &mut reached, &mut transitions);
            }
            items = plan.items_after;
            trellis.stages.push(Stage { n_states_after: keys.len(), transitions });
        }
        trellis
    }

    /// Least cost from each state to the end, with `penalty` added by variable and choice:
    /// `[stage][state before it]`, and one more for the end.
    pub(super) fn cost_to_go(&self, cost: impl Fn(usize, &Transition) -> u64) -> Vec<Vec<u64>> {
        let mut to_go = vec![Vec::new(); self.stages.len() + 1];
        to_go[self.stages.len()] = vec![0; self.stages.last().map_or(1, |stage| stage.n_states_after)];
        for (index, stage) in self.stages.iter().enumerate().rev() {
            let n_before = if index == 0 { 1 } else { self.stages[index - 1].n_states_after };
            let mut least = vec![FORBIDDEN; n_before];
            let after = &to_go[index + 1];
            for transition in &stage.transitions {
                let total = cost(index, transition).saturating_add(after[transition.to as usize]);
                let entry = &mut least[transition.from as usize];
                *entry = (*entry).min(total);
            }
            to_go[index] = least;
        }
        to_go
    }

    /// The choices along a cheapest path, or `None` if the end cannot be reached.
    pub(super) fn best_path(&self, to_go: &[Vec<u64>], cost: impl Fn(usize, &Transition) -> u64) -> Option<Vec<usize>> {
        if to_go[0][0] == FORBIDDEN {
            return None;
        }
        let mut state = 0u32;
        let mut choices = Vec::with_capacity(self.stages.len());
        for (index, stage) in self.stages.iter().enumerate() {
            let start = stage.transitions.partition_point(|transition| transition.from < state);
            let best = stage.transitions[start..]
                .iter()
                .take_while(|transition| transition.from == state)
                .min_by_key(|t| cost(index, t).saturating_add(to_go[index + 1][t.to as usize]))?;
            choices.push(best.choice as usize);
            state = best.to;
        }
        Some(choices)
    }
}

/// Drops all but the cheapest states.
fn keep_cheapest(
    max_states: usize,
    keys: &mut Vec<Box<[u8]>>,
    reached: &mut Vec<u64>,
    transitions: &mut Vec<Transition>,
) {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&state| reached[state]);
    order.truncate(max_states);
    order.sort_unstable();
    let mut new_index = vec![u32::MAX; keys.len()];
    for (new, &old) in order.iter().enumerate() {
        new_index[old] = new as u32;
    }
    transitions.retain_mut(|transition| {
        transition.to = new_index[transition.to as usize];
        transition.to != u32::MAX
    });
    *keys = order.iter().map(|&old| std::mem::take(&mut keys[old])).collect();
    *reached = order.iter().map(|&old| reached[old]).collect();
}
