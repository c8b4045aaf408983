//! What was found, bounded: a broken file makes no endless report.

use std::{collections::HashMap, fmt};

use super::{Rule, Severity};
use crate::{array::Device, error::Error};

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: &'static Rule,
    /// Where: `AIE_PARTITION, PDI 1, command 12`.
    pub place: String,
    /// What stands there.
    pub value: String,
    /// What may stand there.
    pub bound: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.value, self.bound)
    }
}

/// Why a device is taken for the one that a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The caller says it.
    Given,
    /// No other device can hold the partition.
    Partition,
    /// An instruction stream names it.
    Stream,
}

impl Basis {
    /// `given`, `partition`, `stream`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Basis::Given => "given",
            Basis::Partition => "partition",
            Basis::Stream => "stream",
        }
    }
}

/// Findings in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    device: Option<(&'static Device, Basis)>,
    listed: Vec<Finding>,
    counts: HashMap<&'static str, (Severity, usize)>,
}

impl Findings {
    /// So many findings of one rule are listed; the rest is counted.
    pub const MOST_PER_RULE: usize = 50;

    /// Bytes of a text from the file in a finding; what is longer is cut.
    const MOST_BYTES: usize = 200;

    /// The device that was asked for, and why it was; none where all were, what holds for each of them.
    #[must_use]
    pub fn device(&self) -> Option<(&'static Device, Basis)> {
        self.device
    }

    /// Takes the first device that is known for the one to ask for.
    pub(super) fn assume<const N: usize>(
        &mut self,
        devices: [(Option<&'static Device>, Basis); N],
    ) -> Option<&'static Device> {
        self.device = devices.into_iter().find_map(|(device, basis)| Some((device?, basis)));
        self.device.map(|(device, _)| device)
    }

    /// The listed ones.
    #[must_use]
    pub fn listed(&self) -> &[Finding] {
        &self.listed
    }

    /// How often a rule was broken, listed or not.
    #[must_use]
    pub fn count(&self, rule: &str) -> usize {
        self.counts.get(rule).map_or(0, |(_, count)| *count)
    }

    /// How many findings of a severity there are, listed or not.
    #[must_use]
    pub fn count_of(&self, severity: Severity) -> usize {
        self.counts.values().filter(|(of, _)| *of == severity).fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Adds a finding. Texts are made only where it will be listed.
    pub(super) fn add(
        &mut self,
        rule: &'static Rule,
        place: impl fmt::Display,
        value: impl fmt::Display,
        bound: impl fmt::Display,
    ) {
        let (_, count) = self.counts.entry(rule.name).or_insert((rule.severity, 0));
        *count = count.saturating_add(1);
        if *count <= Findings::MOST_PER_RULE {
            let [place, value, bound] = [cut(place.to_string()), cut(value.to_string()), cut(bound.to_string())];
            self.listed.push(Finding { rule, place, value, bound });
        }
    }

    /// Adds what a parser refused, which is at `place`.
    pub(super) fn add_error(&mut self, rule: &'static Rule, place: &dyn fmt::Display, error: &Error) {
        match error {
            Error::Malformed { part, offset, what, value, bound } => {
                self.add(rule, format_args!("{place}, {part}, byte {offset:#x}, {what}"), value, bound);
            }
            Error::Value { path, value, bound } => self.add(rule, format_args!("{place}, {path}"), value, bound),
            Error::TooLarge { value, bound, .. } => self.add(rule, place, value, bound),
            Error::Refused { what, value, bound } => self.add(rule, format_args!("{place}, {what}"), value, bound),
            Error::In { place: inner, error } => self.add_error(rule, &format_args!("{place}, {inner}"), error),
            Error::Text { .. } => self.add(rule, place, error, "see above"),
        }
    }
}

/// One line for a terminal: control characters escaped, not too long.
fn cut(text: String) -> String {
    let mut text = match text.chars().any(char::is_control) {
        true => text.chars().fold(String::new(), |mut out, it| {
            match it.is_control() {
                true => out.extend(it.escape_default()),
                false => out.push(it),
            }
            out
        }),
        false => text,
    };
    if text.len() > Findings::MOST_BYTES {
        let end = (0..=Findings::MOST_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_rule() -> &'static Rule {
        super::super::rules().next().unwrap()
    }

    #[test]
    fn many_findings_of_a_rule_are_counted_not_listed() {
        let mut found = Findings::default();
        assert!(found.is_empty());
        for index in 0..Findings::MOST_PER_RULE + 7 {
            found.add(any_rule(), index, "value", "bound");
        }
        assert_eq!(found.listed().len(), Findings::MOST_PER_RULE);
        assert_eq!(found.count(any_rule().name), Findings::MOST_PER_RULE + 7);
        assert_eq!(found.count_of(any_rule().severity), Findings::MOST_PER_RULE + 7);
        assert_eq!(found.count("another"), 0);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut found = Findings::default();
        found.add(any_rule(), "ä".repeat(500), "value", "bound");
        assert_eq!(found.listed()[0].place, format!("{}...", "ä".repeat(100)));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut found = Findings::default();
        found.add(any_rule(), "a\u{1b}[2Jé", "b\nc", "d\u{9b}e");
        assert_eq!(found.listed()[0].to_string(), "a\\u{1b}[2Jé: b\\nc: d\\u{9b}e");
    }

    #[test]
    fn a_parsers_error_says_where() {
        let mut found = Findings::default();
        let error = Error::Malformed { part: "CDO", offset: 4, what: "length", value: "9".into(), bound: "7".into() };
        found.add_error(any_rule(), &"PDI 1", &error.within("partition 0"));
        assert_eq!(found.listed()[0].to_string(), "PDI 1, partition 0, CDO, byte 0x4, length: 9: 7");
    }
}
