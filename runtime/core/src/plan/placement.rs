//! The abstract placement problem: variables with choices, and what choices cost together.
//!
//! Nothing here knows of models or devices beyond their number. A [`Variable`] is whatever must be
//! decided once: the device of an op in one phase, of all ops that share a weight, or the home of a
//! layer's KV. A [`Transfer`] is a value that is made by one variable and read by others; it is paid
//! once per device that reads it elsewhere. A [`Pair`] forbids or prices two choices together.
//!
//! Costs are whole ticks, so that equal costs are equal, sums do not depend on their order, and the
//! search can be compared with brute force exactly.

mod search;
mod trellis;

#[cfg(test)]
pub(crate) use search::solve;
pub(crate) use search::{Failure, Solution, Solver};

/// The cost of what may not be.
pub(crate) const FORBIDDEN: u64 = u64::MAX;

/// Devices that a problem may have: the width of a device set.
pub(crate) const MAX_DEVICES: usize = 16;

/// One way to decide a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Where.
    pub(crate) device: usize,
    /// Ticks.
    pub(crate) cost: u64,
    /// Taken from the device's budget.
    pub(crate) memory_bytes: u64,
}

/// What is decided once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variable {
    /// At least one, else the problem has no solution.
    pub(crate) choices: Vec<Choice>,
}

/// A value made in one place and read in others.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// Variable that decides where it is made.
    pub(crate) from: usize,
    /// Variables that decide where it is read.
    pub(crate) readers: Vec<usize>,
    /// Ticks, `[from device, to device]`; paid once per device other than the maker's.
    pub(crate) cost: Vec<u64>,
}

/// Two choices that depend on each other.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// First variable.
    pub(crate) a: usize,
    /// Second variable, another one.
    pub(crate) b: usize,
    /// Ticks, `[choice of a, choice of b]`.
    pub(crate) cost: Vec<u64>,
}

/// A placement problem. Variables are decided in their order, so related ones should be neighbours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem {
    /// Devices, and bytes of each.
    pub(crate) budgets: Vec<u64>,
    /// What is decided.
    pub(crate) variables: Vec<Variable>,
    /// Values.
    pub(crate) transfers: Vec<Transfer>,
    /// Dependences.
    pub(crate) pairs: Vec<Pair>,
}

impl Problem {
    /// Bytes by device under the given choices.
    pub(crate) fn memory(&self, choices: &[usize]) -> Vec<u64> {
        let mut memory = vec![0u64; self.budgets.len()];
        for (variable, &choice) in self.variables.iter().zip(choices) {
            let choice = variable.choices[choice];
            memory[choice.device] = memory[choice.device].saturating_add(choice.memory_bytes);
        }
        memory
    }

    /// Device of each variable under the given choices.
    pub(crate) fn devices(&self, choices: &[usize]) -> Vec<usize> {
        self.variables.iter().zip(choices).map(|(variable, &choice)| variable.choices[choice].device).collect()
    }

    /// True if the memory is within every budget.
    #[cfg(test)]
    pub(crate) fn fits(&self, memory: &[u64]) -> bool {
        memory.iter().zip(&self.budgets).all(|(used, budget)| used <= budget)
    }

    /// Cost of the given choices from the definition, without regard to budgets; `None` if forbidden.
    #[cfg(test)]
    pub(crate) fn cost(&self, choices: &[usize]) -> Option<u64> {
        let device = |variable: usize| self.variables[variable].choices[choices[variable]].device;
        let own = self.variables.iter().zip(choices).map(|(variable, &choice)| variable.choices[choice].cost);
        let pairs = self.pairs.iter().map(|pair| {
            let width = self.variables[pair.b].choices.len();
            pair.cost[choices[pair.a] * width + choices[pair.b]]
        });
        let crossings = self.transfers.iter().flat_map(|transfer| {
            let from = device(transfer.from);
            let mut to: Vec<usize> = transfer.readers.iter().map(|&reader| device(reader)).collect();
            to.sort_unstable();
            to.dedup();
            let n = self.budgets.len();
            to.into_iter().filter(move |&to| to != from).map(move |to| transfer.cost[from * n + to])
        });
        own.chain(pairs)
            .chain(crossings)
            .try_fold(0u64, |sum, cost| if cost == FORBIDDEN { None } else { sum.checked_add(cost) })
    }
}

#[cfg(test)]
mod tests;
