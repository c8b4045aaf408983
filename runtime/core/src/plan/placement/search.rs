//! The exact search over a [`Trellis`], within memory budgets.
//!
//! Without regard to budgets the cheapest path is plain dynamic programming. If it does not fit, memory
//! gets a price per byte and device (Lagrange multipliers), which gives a lower bound for every partial
//! decision and usually a placement that fits. Then labels (cost, memory by device) are carried along the
//! trellis; a label dies if another of its state is no worse in everything, or if its bound shows that it
//! cannot beat the best placement known. What remains at the end is the optimum. The number of labels is
//! bounded; a dropped label whose bound was better than the result makes the result "not proven".

use super::{
    FORBIDDEN, Problem,
    trellis::{Transition, Trellis},
};

/// A placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Solution {
    /// By variable.
    pub(crate) choices: Vec<usize>,
    /// Ticks.
    pub(crate) cost: u64,
    /// Ticks that no placement within the budgets beats.
    pub(crate) bound: u64,
    /// False if the search was cut short, so that a better one may exist above the bound.
    pub(crate) optimal: bool,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not even with unlimited memory.
    Forbidden,
    /// None within the budgets (or none found, where the search was cut short).
    Memory,
}

/// Bounds the states kept after a variable: more variables, fewer states.
const MAX_TRANSITIONS: usize = 8_000_000;
/// Bounds the labels kept after a variable in the same way.
const MAX_LABELS: usize = 400_000;

/// A problem made ready, so that it can be solved within several budgets.
#[derive(Debug)]
pub(crate) struct Solver<'a> {
    problem: &'a Problem,
    trellis: Trellis,
    free: Vec<Vec<u64>>,
}

impl<'a> Solver<'a> {
    /// Lists the states of the problem.
    pub(crate) fn new(problem: &'a Problem) -> Solver<'a> {
        let trellis = Trellis::build(problem, share(MAX_TRANSITIONS, problem));
        let free = trellis.cost_to_go(|_, transition| transition.cost);
        Solver { problem, trellis, free }
    }

    /// A cheapest placement with unlimited memory, `None` if everything is forbidden.
    pub(crate) fn unlimited(&self) -> Option<Solution> {
        let choices = self.trellis.best_path(&self.free, |_, transition| transition.cost)?;
        let (cost, optimal) = (self.free[0][0], !self.trellis.cut);
        Some(Solution { choices, cost, bound: if optimal { cost } else { 0 }, optimal })
    }

    /// A cheapest placement within budgets in bytes by device.
    ///
    /// # Errors
    /// A [`Failure`] if there is none.
    pub(crate) fn within(&self, budgets: &[u64]) -> Result<Solution, Failure> {
        let solution = self.unlimited().ok_or(Failure::Forbidden)?;
        if fits(&self.problem.memory(&solution.choices), budgets) {
            return Ok(solution);
        }
        Search::new(self, budgets)?.run(share(MAX_LABELS, self.problem))
    }
}

/// Finds a cheapest placement within the problem's own budgets.
///
/// # Errors
/// A [`Failure`] if there is none.
#[cfg(test)]
pub(crate) fn solve(problem: &Problem) -> Result<Solution, Failure> {
    Solver::new(problem).within(&problem.budgets)
}

fn share(total: usize, problem: &Problem) -> usize {
    (total / problem.variables.len().max(1)).clamp(128, 200_000)
}

fn fits(memory: &[u64], budgets: &[u64]) -> bool {
    memory.iter().zip(budgets).all(|(used, budget)| used <= budget)
}

/// The price of memory: ticks per byte by constrained device, and the penalties that follow.
struct Prices {
    /// `[variable][choice]`, rounded down, so that their sum never exceeds price times memory.
    penalties: Vec<Vec<u64>>,
    /// Price times budget, summed over devices and rounded up.
    allowance: u64,
    to_go: Vec<Vec<u64>>,
}

impl Prices {
    fn cost(&self, stage: usize, transition: &Transition) -> u64 {
        transition.cost.saturating_add(self.penalties[stage][transition.choice as usize])
    }

    /// No placement within the budgets is cheaper.
    fn bound(&self) -> u64 {
        self.to_go[0][0].saturating_sub(self.allowance)
    }
}

struct Search<'a> {
    problem: &'a Problem,
    budgets: &'a [u64],
    trellis: &'a Trellis,
    free: &'a [Vec<u64>],
    /// Devices whose budget could be exceeded.
    tight: Vec<usize>,
    /// Least memory to the end: `[tight device][stage][state]`.
    least_memory: Vec<Vec<Vec<u64>>>,
}

impl<'a> Search<'a> {
    fn new(solver: &'a Solver<'a>, budgets: &'a [u64]) -> Result<Search<'a>, Failure> {
        let Solver { problem, trellis, free } = solver;
        let most_on = |device: usize| {
            let most_of = |variable: &super::Variable| {
                let here = variable.choices.iter().filter(|choice| choice.device == device);
                here.map(|choice| choice.memory_bytes).max().unwrap_or(0)
            };
            problem.variables.iter().fold(0u64, |sum, variable| sum.saturating_add(most_of(variable)))
        };
        let tight: Vec<usize> = (0..budgets.len()).filter(|&device| most_on(device) > budgets[device]).collect();
        let mut search = Search { problem, budgets, trellis, free, tight, least_memory: Vec::new() };
        for device in search.tight.clone() {
            let to_go = trellis.cost_to_go(|stage, t| search.memory_of(stage, t.choice as usize, device));
            if to_go[0][0] > budgets[device] {
                return Err(Failure::Memory);
            }
            search.least_memory.push(to_go);
        }
        Ok(search)
    }

    fn memory_of(&self, variable: usize, choice: usize, device: usize) -> u64 {
        let choice = self.problem.variables[variable].choices[choice];
        if choice.device == device { choice.memory_bytes } else { 0 }
    }

    fn prices(&self, per_byte: &[f64]) -> Prices {
        let penalty = |choice: &super::Choice| match self.tight.iter().position(|&device| device == choice.device) {
            Some(index) => (per_byte[index] * choice.memory_bytes as f64).floor() as u64,
            None => 0,
        };
        let penalties: Vec<Vec<u64>> =
            self.problem.variables.iter().map(|variable| variable.choices.iter().map(penalty).collect()).collect();
        let allowance = self.tight.iter().zip(per_byte).fold(0u64, |sum, (&device, price)| {
            // One part in 2^40 covers the rounding of the product itself.
            let exact = price * self.budgets[device] as f64;
            sum.saturating_add((exact * (1.0 + 1e-12)).ceil() as u64).saturating_add(1)
        });
        let mut prices = Prices { penalties, allowance, to_go: Vec::new() };
        prices.to_go = self.trellis.cost_to_go(|stage, transition| prices.cost(stage, transition));
        prices
    }

    fn cost_of(&self, choices: &[usize]) -> u64 {
        let mut state = 0u32;
        let mut total = 0u64;
        for (stage, &choice) in self.trellis.stages.iter().zip(choices) {
            let start = stage.transitions.partition_point(|transition| transition.from < state);
            let step = stage.transitions[start..].iter().find(|t| t.from == state && t.choice as usize == choice);
            let Some(step) = step else { return FORBIDDEN };
            total = total.saturating_add(step.cost);
            state = step.to;
        }
        total
    }

    /// Raises prices until something fits, then halves the way between prices that are too low and prices
    /// that are high enough: where they meet, the bound is best.
    fn price_memory(&self, incumbent: &mut Option<Solution>) -> Prices {
        const RAISES: usize = 40;
        const HALVINGS: usize = 20;
        let mut best = self.prices(&vec![0.0; self.tight.len()]);
        let mut low = vec![0.0; self.tight.len()];
        let mut high = None;
        let mut next = low.clone();
        for round in 0..RAISES + HALVINGS {
            let prices = self.prices(&self.per_byte(&next));
            let path = self.trellis.best_path(&prices.to_go, |stage, transition| prices.cost(stage, transition));
            let Some(path) = path else { break };
            let memory = self.problem.memory(&path);
            if prices.bound() > best.bound() {
                best = prices;
            }
            if fits(&memory, self.budgets) {
                let cost = self.cost_of(&path);
                if incumbent.as_ref().is_none_or(|known| cost < known.cost) {
                    *incumbent = Some(Solution { choices: path, cost, bound: 0, optimal: false });
                }
                high = Some(next.clone());
            } else {
                low = next.clone();
            }
            let raised =
                || self.tight.iter().zip(&low).map(|(&device, &price)| self.raise(price, memory[device], device));
            next = match &high {
                None if round == RAISES => break,
                None => raised().collect(),
                Some(high) => low.iter().zip(high).map(|(low, high)| (low + high) / 2.0).collect(),
            };
        }
        best
    }

    /// Prices are kept per whole budget, so that devices of different size move alike.
    fn per_byte(&self, per_budget: &[f64]) -> Vec<f64> {
        let of = |(&device, price): (&usize, &f64)| price / self.budgets[device].max(1) as f64;
        self.tight.iter().zip(per_budget).map(of).collect()
    }

    fn raise(&self, price: f64, used: u64, device: usize) -> f64 {
        let start = (self.free[0][0].max(1) as f64) / 64.0;
        if used > self.budgets[device] { (price * 2.0).clamp(start, 1e18) } else { price }
    }

    fn run(&self, max_labels: usize) -> Result<Solution, Failure> {
        let mut incumbent = None;
        let prices = self.price_memory(&mut incumbent);
        let outcome = self.carry_labels(
            &prices,
            incumbent.as_ref().map_or(FORBIDDEN, |known| known.cost),
            max_labels,
            Order::Bound,
        );
        let mut dropped = outcome.least_dropped;
        let mut found = outcome.found;
        if found.is_none() && incumbent.is_none() && dropped < FORBIDDEN {
            let again = self.carry_labels(&prices, FORBIDDEN, max_labels, Order::Memory);
            dropped = dropped.min(again.least_dropped);
            found = again.found;
        }
        let mut solution = found.or(incumbent).ok_or(Failure::Memory)?;
        solution.optimal = !self.trellis.cut && dropped >= solution.cost;
        solution.bound = match (solution.optimal, self.trellis.cut) {
            (true, _) => solution.cost,
            (false, false) => prices.bound().max(self.free[0][0]).min(solution.cost),
            (false, true) => 0,
        };
        Ok(solution)
    }

    fn carry_labels(&self, prices: &Prices, better_than: u64, max_labels: usize, order: Order) -> Outcome {
        let width = self.tight.len();
        let mut least_dropped = FORBIDDEN;
        let mut history: Vec<Vec<(u32, u32)>> = Vec::with_capacity(self.trellis.stages.len());
        let mut labels = vec![Label { state: 0, cost: 0, penalty: 0, bound: 0, parent: 0, choice: 0 }];
        let mut memory = vec![0u64; width];
        for (index, stage) in self.trellis.stages.iter().enumerate() {
            let mut next: Vec<Label> = Vec::new();
            let mut next_memory: Vec<u64> = Vec::new();
            for (parent, label) in labels.iter().enumerate() {
                let start = stage.transitions.partition_point(|transition| transition.from < label.state);
                for step in stage.transitions[start..].iter().take_while(|step| step.from == label.state) {
                    let Some(new) = self.extend(prices, index, label, parent, step) else { continue };
                    if new.bound >= better_than {
                        continue;
                    }
                    let at = next_memory.len();
                    for (slot, &device) in self.tight.iter().enumerate() {
                        let own = self.memory_of(index, step.choice as usize, device);
                        next_memory.push(memory[parent * width + slot].saturating_add(own));
                    }
                    let fits = |slot: usize| {
                        let least = self.least_memory[slot][index + 1][step.to as usize];
                        next_memory[at + slot].saturating_add(least) <= self.budgets[self.tight[slot]]
                    };
                    if (0..width).all(fits) {
                        next.push(new);
                    } else {
                        next_memory.truncate(at);
                    }
                }
            }
            let mut kept = undominated(&next, &next_memory, width);
            if kept.len() > max_labels {
                match order {
                    Order::Bound => kept.sort_by_key(|&label| next[label].bound),
                    Order::Memory => kept.sort_by_key(|&label| {
                        let room = |slot: usize| self.budgets[self.tight[slot]] / 1024 + 1;
                        (0..width).map(|slot| next_memory[label * width + slot] / room(slot)).max()
                    }),
                }
                least_dropped = kept[max_labels..].iter().map(|&label| next[label].bound).fold(least_dropped, u64::min);
                kept.truncate(max_labels);
            }
            labels = kept.iter().map(|&label| next[label]).collect();
            memory = kept.iter().flat_map(|&label| next_memory[label * width..(label + 1) * width].to_vec()).collect();
            history.push(labels.iter().map(|label| (label.parent, label.choice)).collect());
        }
        let best = labels.iter().enumerate().min_by_key(|(_, label)| label.cost);
        let found = best.map(|(index, label)| Solution {
            choices: trace(&history, index),
            cost: label.cost,
            bound: 0,
            optimal: false,
        });
        Outcome { found, least_dropped }
    }

    fn extend(&self, prices: &Prices, stage: usize, label: &Label, parent: usize, step: &Transition) -> Option<Label> {
        let cost = label.cost.saturating_add(step.cost);
        let penalty = label.penalty.saturating_add(prices.penalties[stage][step.choice as usize]);
        let free = self.free[stage + 1][step.to as usize];
        if free == FORBIDDEN {
            return None;
        }
        let priced = prices.to_go[stage + 1][step.to as usize];
        let bound = cost.saturating_add(priced).saturating_add(penalty).saturating_sub(prices.allowance);
        let bound = bound.max(cost.saturating_add(free));
        Some(Label { state: step.to, cost, penalty, bound, parent: parent as u32, choice: step.choice })
    }
}

/// A partial decision.
#[derive(Clone, Copy)]
struct Label {
    state: u32,
    cost: u64,
    penalty: u64,
    /// No completion within the budgets is cheaper.
    bound: u64,
    parent: u32,
    choice: u32,
}

/// Which labels to keep when there are too many.
#[derive(Clone, Copy)]
enum Order {
    Bound,
    Memory,
}

struct Outcome {
    found: Option<Solution>,
    /// The least bound among dropped labels.
    least_dropped: u64,
}

/// Indices of the labels that no other label of their state beats in cost and all memory.
fn undominated(labels: &[Label], memory: &[u64], width: usize) -> Vec<usize> {
    let of = |label: usize| &memory[label * width..(label + 1) * width];
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_unstable_by(|&a, &b| {
        (labels[a].state, labels[a].cost).cmp(&(labels[b].state, labels[b].cost)).then_with(|| of(a).cmp(of(b)))
    });
    let mut kept: Vec<usize> = Vec::with_capacity(order.len());
    let mut group = 0;
    for label in order {
        if kept.last().is_some_and(|&last| labels[last].state != labels[label].state) {
            group = kept.len();
        }
        let beaten = |&other: &usize| of(other).iter().zip(of(label)).all(|(a, b)| a <= b);
        // The latest kept label has the least memory so far where one device is tight: look there first.
        if !kept[group..].iter().rev().any(beaten) {
            kept.push(label);
        }
    }
    kept
}

fn trace(history: &[Vec<(u32, u32)>], last: usize) -> Vec<usize> {
    let mut at = last;
    let mut choices: Vec<usize> = Vec::with_capacity(history.len());
    for stage in history.iter().rev() {
        let (parent, choice) = stage[at];
        choices.push(choice as usize);
        at = parent as usize;
    }
    choices.reverse();
    choices
}
