//! Compares by meaning, then by byte: trees of values member by member, texts line by line, bytes by place.
//!
//! What means the same may lie in other bytes (the order of a string table, padding), so both are told.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use serde_json::Value;

/// One place where two things differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: a JSON pointer in which elements of lists stand under their name, or `line N`.
    pub place: String,
    /// What the first has there, if anything.
    pub left: Option<String>,
    /// What the second has there, if anything.
    pub right: Option<String>,
}

/// How two ranges of bytes differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteDifference {
    /// The first byte that differs, or that only one has.
    pub first: u64,
    /// Bytes that differ, those that only one has included.
    pub count: u64,
    /// Bytes of the first and of the second.
    pub sizes: [u64; 2],
}

/// Members that name an element of a list, the most telling first. Elements are compared with the one of the
/// same name, so that an element that was put in or taken out is one difference.
const NAMES: [&str; 5] = ["name", "m_name", "mpo_name", "m_tag", "pdi_id"];

/// After that long two texts are no longer told apart by the fewest lines, but still rightly.
const SEARCH: Duration = Duration::from_millis(500);

/// Where two trees differ, in the order of the first and then of the second.
pub fn values(left: &Value, right: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(left), Some(right), &mut found);
    found
}

fn compare(place: &str, left: Option<&Value>, right: Option<&Value>, found: &mut Vec<Difference>) {
    match (left, right) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let more = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(more) {
                compare(&format!("{place}/{key}"), a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => compare_lists(place, a, b, found),
        _ if left == right => {}
        _ => {
            let text = |value: Option<&Value>| value.map(Value::to_string);
            let place = if place.is_empty() { "/".to_owned() } else { place.to_owned() };
            found.push(Difference { place, left: text(left), right: text(right) });
        }
    }
}

/// By name where every element of both has one of its own; else by position.
fn compare_lists(place: &str, left: &[Value], right: &[Value], found: &mut Vec<Difference>) {
    let key = NAMES.iter().find(|key| named(left, key) && named(right, key));
    let Some(key) = key else {
        for index in 0..left.len().max(right.len()) {
            compare(&format!("{place}/{index}"), left.get(index), right.get(index), found);
        }
        return;
    };
    let name = |value: &Value| value.get(*key).map(shown).unwrap_or_default();
    let by_name: HashMap<String, &Value> = right.iter().map(|value| (name(value), value)).collect();
    let known: BTreeSet<String> = left.iter().map(name).collect();
    for value in left {
        compare(&format!("{place}/{}", name(value)), Some(value), by_name.get(&name(value)).copied(), found);
    }
    for value in right.iter().filter(|value| !known.contains(&name(value))) {
        compare(&format!("{place}/{}", name(value)), None, Some(value), found);
    }
    let order = |values: &[Value]| values.iter().map(name).collect::<Vec<_>>();
    let (a, b) = (order(left), order(right));
    if a != b && a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>() {
        let text = |names: Vec<String>| Some(names.join(", "));
        found.push(Difference { place: format!("{place} (order)"), left: text(a), right: text(b) });
    }
}

fn named(values: &[Value], key: &str) -> bool {
    let names: BTreeSet<String> = values.iter().filter_map(|value| value.get(key)).map(shown).collect();
    names.len() == values.len()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Where two texts differ: runs of lines that only one has, or that stand for each other.
pub fn lines(left: &str, right: &str) -> Vec<Difference> {
    let diff = similar::TextDiff::configure().timeout(SEARCH).diff_lines(left, right);
    let mut found = Vec::new();
    for op in diff.ops().iter().filter(|op| op.tag() != similar::DiffTag::Equal) {
        let [old, new] = [op.old_range(), op.new_range()];
        let text = |lines: &[&str]| (!lines.is_empty()).then(|| lines.concat().trim_end().to_owned());
        found.push(Difference {
            place: format!("line {}", old.start.saturating_add(1)),
            left: text(diff.old_slices().get(old).unwrap_or_default()),
            right: text(diff.new_slices().get(new).unwrap_or_default()),
        });
    }
    found
}

/// How two ranges of bytes differ; nothing if they are equal.
pub fn bytes(left: &[u8], right: &[u8]) -> Option<ByteDifference> {
    let shared = left.len().min(right.len());
    let differs = |index: &usize| left.get(*index) != right.get(*index);
    let first = (0..shared).find(differs).or((left.len() != right.len()).then_some(shared))?;
    let within = left.iter().zip(right).filter(|(a, b)| a != b).count() as u64;
    let beyond = left.len().abs_diff(right.len()) as u64;
    let sizes = [left.len() as u64, right.len() as u64];
    Some(ByteDifference { first: first as u64, count: within.saturating_add(beyond), sizes })
}

#[cfg(test)]
mod tests {
    use super::{ByteDifference, bytes, lines, values};
    use serde_json::{Value, json};

    fn check(left: &Value, right: &Value, expected: &[(&str, Option<&str>, Option<&str>)]) {
        let found = values(left, right);
        let found: Vec<_> =
            found.iter().map(|one| (one.place.as_str(), one.left.as_deref(), one.right.as_deref())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn members_are_compared_whatever_their_order() {
        check(&json!({"a": 1, "b": "x"}), &json!({"b": "x", "a": 1}), &[]);
        check(&json!({"a": 1}), &json!({"b": 2}), &[("/a", Some("1"), None), ("/b", None, Some("2"))]);
        check(&json!(1), &json!("1"), &[("/", Some("1"), Some("\"1\""))]);
    }

    #[test]
    fn elements_with_names_are_compared_by_name() {
        let [a, b] = [json!({"name": "a", "id": 1}), json!({"name": "b", "id": 2})];
        check(&json!([a, b]), &json!([b]), &[("/a", Some("{\"name\":\"a\",\"id\":1}"), None)]);
        check(&json!([a, b]), &json!([b, a]), &[(" (order)", Some("a, b"), Some("b, a"))]);
        check(&json!([a, {"name": "b", "id": 3}]), &json!([a, b]), &[("/b/id", Some("3"), Some("2"))]);
    }

    #[test]
    fn elements_without_names_or_with_equal_ones_are_compared_by_place() {
        check(&json!([1, 2]), &json!([1, 3, 4]), &[("/1", Some("2"), Some("3")), ("/2", None, Some("4"))]);
        let twice = json!([{"name": "a", "id": 1}, {"name": "a", "id": 2}]);
        let other = json!([{"name": "a", "id": 1}, {"name": "a", "id": 9}]);
        check(&twice, &other, &[("/1/id", Some("2"), Some("9"))]);
    }

    #[test]
    fn texts_differ_by_runs_of_lines() {
        let found = lines("a\nb\nc\n", "a\nx\nc\nd\n");
        let found: Vec<_> =
            found.iter().map(|one| (one.place.as_str(), one.left.as_deref(), one.right.as_deref())).collect();
        assert_eq!(found, [("line 2", Some("b"), Some("x")), ("line 4", None, Some("d"))]);
    }

    #[test]
    fn bytes_differ_within_and_beyond() {
        assert_eq!(bytes(b"abc", b"abc"), None);
        assert_eq!(bytes(b"abc", b"axcd"), Some(ByteDifference { first: 1, count: 2, sizes: [3, 4] }));
        assert_eq!(bytes(b"", b"d"), Some(ByteDifference { first: 0, count: 1, sizes: [0, 1] }));
    }
}
