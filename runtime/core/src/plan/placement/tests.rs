//! The search against brute force.

use proptest::prelude::*;

use super::{Choice, FORBIDDEN, Failure, Pair, Problem, Transfer, Variable, solve};

/// Tries everything.
fn brute_force(problem: &Problem) -> Option<u64> {
    let mut choices = vec![0; problem.variables.len()];
    let mut best: Option<u64> = None;
    if problem.variables.iter().any(|variable| variable.choices.is_empty()) {
        return None;
    }
    loop {
        let cost = problem.cost(&choices).filter(|_| problem.fits(&problem.memory(&choices)));
        best = best.into_iter().chain(cost).min();
        let mut at = 0;
        loop {
            if at == choices.len() {
                return best;
            }
            choices[at] += 1;
            if choices[at] < problem.variables[at].choices.len() {
                break;
            }
            choices[at] = 0;
            at += 1;
        }
    }
}

fn check(problem: &Problem) {
    let expected = brute_force(problem);
    match solve(problem) {
        Ok(solution) => {
            assert_eq!(Some(solution.cost), expected);
            assert_eq!(problem.cost(&solution.choices), expected, "the cost is that of the choices");
            assert!(problem.fits(&problem.memory(&solution.choices)));
            assert!(solution.optimal && solution.bound == solution.cost);
        }
        Err(failure) => {
            assert_eq!(expected, None);
            let mut unlimited = problem.clone();
            unlimited.budgets.fill(u64::MAX);
            let possible = brute_force(&unlimited).is_some();
            assert_eq!(failure, if possible { Failure::Memory } else { Failure::Forbidden });
        }
    }
}

const DEVICES: usize = 3;

fn a_cost() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..50, 1 => 50u64..1_000]
}

fn variable() -> impl Strategy<Value = Variable> {
    let choice = (any::<bool>(), a_cost(), 0u64..20);
    prop::collection::vec(choice, DEVICES).prop_map(|by_device| {
        let mut choices: Vec<Choice> = by_device
            .iter()
            .enumerate()
            .filter(|(_, (supported, ..))| *supported)
            .map(|(device, &(_, cost, memory_bytes))| Choice { device, cost, memory_bytes })
            .collect();
        if choices.is_empty() {
            choices.push(Choice { device: 0, cost: by_device[0].1, memory_bytes: by_device[0].2 });
        }
        Variable { choices }
    })
}

fn links() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop_oneof![6 => 0u64..60, 1 => Just(FORBIDDEN)], DEVICES * DEVICES)
}

fn budgets(variables: usize) -> impl Strategy<Value = Vec<u64>> {
    let most = 12 * variables as u64 + 1;
    prop::collection::vec(prop_oneof![1 => Just(u64::MAX), 3 => 0..most], DEVICES)
}

/// A chain: each variable reads the one before.
fn chain() -> impl Strategy<Value = Problem> {
    (1usize..=8).prop_flat_map(|n| {
        (prop::collection::vec(variable(), n), links(), budgets(n)).prop_map(|(variables, cost, budgets)| {
            let transfers = (1..variables.len()).map(|reader| Transfer {
                from: reader - 1,
                readers: vec![reader],
                cost: cost.clone(),
            });
            Problem { budgets, transfers: transfers.collect(), variables, pairs: Vec::new() }
        })
    })
}

/// Values with any readers, makers decided before or after their readers, and pairs of any choices.
fn tangle() -> impl Strategy<Value = Problem> {
    (2usize..=7).prop_flat_map(|n| {
        let transfer = (0..n, prop::collection::vec(0..n, 1..4), links());
        let pair =
            (0..n, 1..n, prop::collection::vec(prop_oneof![3 => 0u64..40, 1 => Just(FORBIDDEN)], DEVICES * DEVICES));
        (
            prop::collection::vec(variable(), n),
            prop::collection::vec(transfer, 0..7),
            prop::collection::vec(pair, 0..4),
            budgets(n),
        )
            .prop_map(move |(variables, transfers, pairs, budgets)| {
                let transfers =
                    transfers.into_iter().map(|(from, readers, cost)| Transfer { from, readers, cost }).collect();
                let pairs = pairs
                    .into_iter()
                    .map(|(a, step, table)| {
                        let b = (a + step) % n;
                        let size = variables[a].choices.len() * variables[b].choices.len();
                        Pair { a, b, cost: table.into_iter().take(size).collect() }
                    })
                    .collect();
                Problem { budgets, variables, transfers, pairs }
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chains_equal_brute_force(problem in chain()) {
        check(&problem);
    }

    #[test]
    fn tangles_equal_brute_force(problem in tangle()) {
        check(&problem);
    }
}

#[test]
fn a_value_is_sent_once_to_each_device() {
    let fixed = |device| Variable { choices: vec![Choice { device, cost: 0, memory_bytes: 0 }] };
    let problem = Problem {
        budgets: vec![0, 0],
        variables: vec![fixed(0), fixed(1), fixed(1)],
        transfers: vec![Transfer { from: 0, readers: vec![1, 2], cost: vec![0, 7, 7, 0] }],
        pairs: Vec::new(),
    };
    assert_eq!(solve(&problem).unwrap().cost, 7);
}

#[test]
fn an_empty_problem_has_an_empty_solution() {
    assert_eq!(solve(&Problem::default()).unwrap().choices, Vec::<usize>::new());
}

#[test]
fn a_variable_without_choices_is_forbidden() {
    let problem = Problem { budgets: vec![1], variables: vec![Variable::default()], ..Problem::default() };
    assert_eq!(solve(&problem), Err(Failure::Forbidden));
}
