//! What is measured: prompts, decoding, host time, start. Written as in the tables: `pp512`, `tg128`,
//! `tg32x8` for eight streams together, `tg128@d8192` after 8192 tokens, `host256`, `start`.

use std::{fmt, str::FromStr};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// One figure of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Test {
    /// Tokens per second of a prompt of `n`, after `depth` tokens.
    Prompt { n: usize, depth: usize },
    /// Tokens per second of `batch` streams together, `n` tokens each, after `depth` tokens each.
    Decode { n: usize, batch: usize, depth: usize },
    /// Our engine alone: `n` decoded tokens, for CPU time, submissions and objects.
    Host { n: usize },
    /// Seconds from the process' start to the first byte of text.
    Start,
}

/// What a run measures if nothing else is asked for.
pub(crate) const DEFAULT: [Test; 9] = [
    Test::Prompt { n: 512, depth: 0 },
    Test::Decode { n: 128, batch: 1, depth: 0 },
    Test::Host { n: 256 },
    Test::Start,
    Test::Decode { n: 128, batch: 1, depth: 8192 },
    Test::Decode { n: 32, batch: 4, depth: 0 },
    Test::Decode { n: 32, batch: 8, depth: 0 },
    Test::Decode { n: 32, batch: 16, depth: 0 },
    Test::Decode { n: 32, batch: 32, depth: 0 },
];

/// Longest prompt, generation or depth, and most streams, that can be asked for.
const MOST: usize = 1 << 20;

impl Test {
    /// Tokens that one stream holds at the end.
    pub(crate) fn context(self) -> usize {
        match self {
            Test::Prompt { n, depth } | Test::Decode { n, depth, .. } => n + depth,
            Test::Host { n } => n,
            Test::Start => START_CONTEXT,
        }
    }

    /// True if llama.cpp is asked as well.
    pub(crate) fn compares(self) -> bool {
        !matches!(self, Test::Host { .. })
    }
}

/// Context that both engines are told to make room for when their start is measured.
pub(crate) const START_CONTEXT: usize = 4096;

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |depth: usize| if depth == 0 { String::new() } else { format!("@d{depth}") };
        f.pad(&match *self {
            Test::Prompt { n, depth } => format!("pp{n}{}", at(depth)),
            Test::Decode { n, batch: 1, depth } => format!("tg{n}{}", at(depth)),
            Test::Decode { n, batch, depth } => format!("tg{n}x{batch}{}", at(depth)),
            Test::Host { n } => format!("host{n}"),
            Test::Start => "start".to_owned(),
        })
    }
}

impl FromStr for Test {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Test> {
        let number = |text: &str| match text.parse() {
            Ok(n) if (1..=MOST).contains(&n) => Ok(n),
            _ => Err(anyhow::anyhow!("{text:?} is no whole number from 1 to {MOST}")),
        };
        let parse = || -> Result<Test> {
            let (head, depth) = match word.split_once("@d") {
                Some((head, depth)) => (head, number(depth)?),
                None => (word, 0),
            };
            if let Some(n) = head.strip_prefix("pp") {
                return Ok(Test::Prompt { n: number(n)?, depth });
            }
            if let Some(rest) = head.strip_prefix("tg") {
                let (n, batch) = rest.split_once('x').unwrap_or((rest, "1"));
                return Ok(Test::Decode { n: number(n)?, batch: number(batch)?, depth });
            }
            match (head.strip_prefix("host"), head) {
                (Some(n), _) if depth == 0 => Ok(Test::Host { n: number(n)? }),
                (_, "start") if depth == 0 => Ok(Test::Start),
                _ => bail!("pp512, tg128, tg32x8, host256 or start is needed, the first three with @d8192 if wanted"),
            }
        };
        parse().with_context(|| format!("test {word:?}"))
    }
}

impl TryFrom<String> for Test {
    type Error = anyhow::Error;

    fn try_from(word: String) -> Result<Test> {
        word.parse()
    }
}

impl From<Test> for String {
    fn from(test: Test) -> String {
        test.to_string()
    }
}

/// Tests that one process of an engine runs: they need the same room, so that the model is loaded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// One stream.
    Single { depth: usize, tests: Vec<Test> },
    /// `n` tokens in several streams together, for each of the counts.
    Batch { n: usize, depth: usize, batches: Vec<usize> },
    /// See [`Test::Start`].
    Start,
}

impl Group {
    /// The tests in groups, in the order in which they first appear.
    pub(crate) fn of(tests: &[Test]) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for &test in tests {
            let Some(group) = groups.iter_mut().find(|group| group.holds(test)) else {
                groups.push(Group::one(test));
                continue;
            };
            match (group, test) {
                (Group::Single { tests, .. }, _) if !tests.contains(&test) => tests.push(test),
                (Group::Batch { batches, .. }, Test::Decode { batch, .. }) if !batches.contains(&batch) => {
                    batches.push(batch);
                }
                _ => {}
            }
        }
        groups
    }

    fn one(test: Test) -> Group {
        match test {
            Test::Start => Group::Start,
            Test::Decode { n, batch, depth } if batch > 1 => Group::Batch { n, depth, batches: vec![batch] },
            Test::Prompt { depth, .. } | Test::Decode { depth, .. } => Group::Single { depth, tests: vec![test] },
            Test::Host { .. } => Group::Single { depth: 0, tests: vec![test] },
        }
    }

    fn holds(&self, test: Test) -> bool {
        match (self, Group::one(test)) {
            (Group::Single { depth, .. }, Group::Single { depth: own, .. }) => *depth == own,
            (Group::Batch { n, depth, .. }, Group::Batch { n: own_n, depth: own, .. }) => (*n, *depth) == (own_n, own),
            (Group::Start, Group::Start) => true,
            _ => false,
        }
    }

    /// Its tests.
    pub(crate) fn tests(&self) -> Vec<Test> {
        match self {
            Group::Single { tests, .. } => tests.clone(),
            &Group::Batch { n, depth, ref batches } => {
                batches.iter().map(|&batch| Test::Decode { n, batch, depth }).collect()
            }
            Group::Start => vec![Test::Start],
        }
    }

    /// Without the tests for which `keep` is false; `None` if none is left.
    pub(crate) fn filtered(&self, keep: impl Fn(Test) -> bool) -> Option<Group> {
        let tests: Vec<Test> = self.tests().into_iter().filter(|&test| keep(test)).collect();
        Group::of(&tests).into_iter().next()
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, Group, Test};

    #[test]
    fn names_are_read_back() {
        for test in DEFAULT.into_iter().chain([
            Test::Prompt { n: 7, depth: 9 },
            Test::Decode { n: 64, batch: 4, depth: 16 },
            Test::Decode { n: 1, batch: 1, depth: 1 },
        ]) {
            assert_eq!(test.to_string().parse::<Test>().unwrap(), test);
        }
        assert_eq!("tg64x8@d16".parse::<Test>().unwrap(), Test::Decode { n: 64, batch: 8, depth: 16 });
    }

    #[test]
    fn what_is_no_test_is_refused_by_name() {
        for word in ["", "pp", "pp0", "tg-1", "tg4x", "tg4x0", "pp512@d", "start@d4", "host4@d4", "tg99999999", "go"] {
            let words = format!("{:#}", word.parse::<Test>().unwrap_err());
            assert!(words.contains(&format!("{word:?}")), "{words}");
        }
    }

    #[test]
    fn tests_that_need_the_same_room_share_a_process() {
        let groups = Group::of(&DEFAULT);
        assert_eq!(groups.len(), 4);
        assert_eq!(groups[0].tests(), DEFAULT[..3]);
        assert_eq!(groups[1], Group::Start);
        assert_eq!(groups[2].tests(), DEFAULT[4..5]);
        assert_eq!(groups[3], Group::Batch { n: 32, depth: 0, batches: vec![4, 8, 16, 32] });
        let twice = [DEFAULT[5], DEFAULT[5]];
        assert_eq!(Group::of(&twice)[0].tests().len(), 1);
        assert_eq!(groups[0].filtered(Test::compares).unwrap().tests(), DEFAULT[..2]);
        assert_eq!(Group::of(&DEFAULT[2..3])[0].filtered(Test::compares), None);
    }
}
