//! What a rule is. The rules themselves stand beside the code that checks them, one file per subject.

use std::fmt;

/// How bad it is to break a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Odd, or wrong in some uses only; working files break the rule.
    Warning,
    /// The package does not load, or computes something else than what was meant.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// Something that every file of a kind should keep.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// In kebab case: `kernel-without-pdi`.
    pub name: &'static str,
    /// How bad it is to break it.
    pub severity: Severity,
    /// What it asks for.
    pub asks: &'static str,
    /// What breaking it does on hardware.
    pub effect: &'static str,
    /// How to put it right.
    pub mend: &'static str,
    /// Where the fact is from: a URL, or `repository:path` on GitHub.
    pub source: &'static str,
}

/// The rules of a subject: a static each, and `RULES` with all of them.
macro_rules! rules {
    ($($id:ident: $severity:ident $name:literal { asks: $asks:literal, effect: $effect:literal, mend: $mend:literal,
        source: $source:literal $(,)? })*) => {
        $(pub(in crate::verify) static $id: crate::verify::rule::Rule = crate::verify::rule::Rule {
            name: $name,
            severity: crate::verify::rule::Severity::$severity,
            asks: $asks,
            effect: $effect,
            mend: $mend,
            source: $source,
        };)*

        /// The rules of this subject.
        pub(in crate::verify) static RULES: &[&crate::verify::rule::Rule] = &[$(&$id),*];
    };
}

pub(super) use rules;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::{rule, rules};

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let mut names = HashSet::new();
        for rule in rules() {
            assert!(names.insert(rule.name), "{} stands twice", rule.name);
            assert!(rule.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", rule.name);
            assert_eq!(super::super::rule(rule.name), Some(rule));
        }
        assert_eq!(rule("no-such-rule"), None);
    }

    #[test]
    fn every_rule_says_why_and_from_where() {
        for rule in rules() {
            for text in [rule.asks, rule.effect, rule.mend] {
                assert!(text.len() > 10 && !text.ends_with('.'), "{}: {text:?}", rule.name);
                assert!(!text.contains("  "), "{}: {text:?}", rule.name);
            }
            let is_url = rule.source.starts_with("https://");
            let is_path = rule.source.split_once(':').is_some_and(|(repository, _)| repository.contains('/'));
            assert!(is_url || is_path, "{}: {}", rule.name, rule.source);
        }
    }
}
