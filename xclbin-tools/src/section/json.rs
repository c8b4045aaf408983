//! JSON as `xclbinutil` reads and writes it: through boost's property tree, where every value is text, keys may
//! repeat, and an array is a list of nameless children. Numbers keep their spelling, so what it prints from the
//! same input is the same text. Not a general JSON library: an empty array, object or string are all `""`.

mod read;

use std::fmt::Write;

use crate::error::{Error, Result};

/// A value: text, or children with keys (all keys empty in an array), in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The value where there are no children.
    pub text: String,
    /// The members of an object, or with empty keys the items of an array.
    pub children: Vec<(String, Tree)>,
}

impl From<String> for Tree {
    fn from(text: String) -> Tree {
        Tree { text, children: Vec::new() }
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Tree {
        Tree::from(text.to_owned())
    }
}

impl From<&Tree> for serde_json::Value {
    /// Of members with one name the last counts. An empty list stays the empty text that stands for it.
    fn from(tree: &Tree) -> serde_json::Value {
        if tree.children.is_empty() {
            tree.text.as_str().into()
        } else if tree.is_array() {
            tree.items().map(Self::from).collect()
        } else {
            Self::Object(tree.children.iter().map(|(key, value)| (key.clone(), value.into())).collect())
        }
    }
}

impl Tree {
    /// Reads JSON text.
    ///
    /// # Errors
    /// [`Error::Text`] where it is no JSON or nests deeper than 100.
    pub fn parse(json: &str) -> Result<Tree> {
        read::parse(json)
    }

    /// An array.
    pub fn array(items: impl IntoIterator<Item = Tree>) -> Tree {
        Tree { text: String::new(), children: items.into_iter().map(|item| (String::new(), item)).collect() }
    }

    /// The same object with one more member.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Tree>) -> Tree {
        self.push(key, value);
        self
    }

    /// Adds a member behind the others; one of the same name stays.
    pub fn push(&mut self, key: &str, value: impl Into<Tree>) {
        self.children.push((key.to_owned(), value.into()));
    }

    /// The first member of that name.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.children.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Replaces the value at a path of members; those that are missing are added.
    pub fn set(&mut self, path: &[&str], value: Tree) {
        let Some((key, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if self.get(key).is_none() {
            self.push(key, Tree::default());
        }
        if let Some((_, member)) = self.children.iter_mut().find(|(name, _)| name == key) {
            member.set(rest, value);
        }
    }

    /// The values of all children.
    pub fn items(&self) -> impl Iterator<Item = &Tree> {
        self.children.iter().map(|(_, value)| value)
    }

    fn is_array(&self) -> bool {
        self.children.iter().all(|(key, _)| key.is_empty())
    }

    /// The text, indented by four, with a line end; as `--dump-section KIND:JSON:FILE` writes it.
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        self.print(&mut out, Some(0), true);
        out.push('\n');
        out
    }

    /// The text without white space, with a line end; as it stands in sections and in the mirror.
    pub fn to_line(&self) -> String {
        let mut out = String::new();
        self.print(&mut out, None, true);
        out.push('\n');
        out
    }

    /// `depth`: how far lines are indented, none for a single line. Recursion is as deep as the tree, which
    /// [`Tree::parse`] bounds and the sections' own trees do by their shape.
    fn print(&self, out: &mut String, depth: Option<usize>, is_root: bool) {
        if self.children.is_empty() && !is_root {
            return quote(out, &self.text);
        }
        let is_array = !is_root && self.is_array();
        let inner = depth.map(|depth| depth.saturating_add(1));
        let line = |out: &mut String, depth: Option<usize>| {
            if let Some(depth) = depth {
                out.push('\n');
                (0..depth).for_each(|_| out.push_str("    "));
            }
        };
        out.push(if is_array { '[' } else { '{' });
        for (index, (key, value)) in self.children.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            line(out, inner);
            if !is_array {
                quote(out, key);
                out.push_str(if depth.is_some() { ": " } else { ":" });
            }
            value.print(out, inner, false);
        }
        line(out, depth);
        out.push(if is_array { ']' } else { '}' });
    }
}

/// Text in quotes, escaped as boost's `create_escapes` does, the solidus included.
fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' => out.push_str("\\/"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String does not fail.
            c if c < ' ' => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A place in a tree, for errors: a JSON pointer that is written out only when one happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'t> {
    pub(crate) tree: &'t Tree,
    parent: Option<(&'t At<'t>, Step<'t>)>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'t> {
    Key(&'t str),
    Index(usize),
}

impl<'t> At<'t> {
    pub(crate) fn root(tree: &'t Tree) -> At<'t> {
        At { tree, parent: None }
    }

    /// The JSON pointer.
    fn path(&self) -> String {
        match self.parent {
            None => String::new(),
            Some((parent, Step::Key(key))) => format!("{}/{key}", parent.path()),
            Some((parent, Step::Index(index))) => format!("{}/{index}", parent.path()),
        }
    }

    /// An error here.
    pub(crate) fn error(&self, value: impl ToString, bound: impl Into<String>) -> Error {
        let path = self.path();
        Error::value(if path.is_empty() { "/".to_owned() } else { path }, value, bound)
    }

    /// A member that may be absent.
    pub(crate) fn find<'a>(&'a self, key: &'a str) -> Option<At<'a>> {
        Some(At { tree: self.tree.get(key)?, parent: Some((self, Step::Key(key))) })
    }

    /// A member that must be there.
    pub(crate) fn get<'a>(&'a self, key: &'a str) -> Result<At<'a>> {
        self.find(key).ok_or_else(|| self.error(format!("no {key:?}"), "it is required"))
    }

    /// The children.
    pub(crate) fn items<'a>(&'a self) -> impl Iterator<Item = At<'a>> {
        let step = move |(index, tree)| At { tree, parent: Some((self, Step::Index(index))) };
        self.tree.items().enumerate().map(step)
    }

    /// The same, if it is no text.
    pub(crate) fn list(&self) -> Result<&At<'t>> {
        match self.tree.text.as_str() {
            "" => Ok(self),
            text => Err(self.error(super::shown(text), "a list is expected")),
        }
    }

    /// The text of a value.
    pub(crate) fn text(&self) -> Result<&'t str> {
        if self.tree.children.is_empty() {
            return Ok(&self.tree.text);
        }
        Err(self.error("an array or object", "a text or number is expected"))
    }

    /// A number that `strtoul` reads: decimal, `0x` hexadecimal, or octal after `0`.
    pub(crate) fn number(&self) -> Result<u64> {
        let text = self.text()?;
        parse_number(text).ok_or_else(|| {
            self.error(format!("{text:?}"), "a number below 2^64 is expected, 0x in front if hexadecimal")
        })
    }

    /// A decimal number of a type.
    pub(crate) fn decimal<T: std::str::FromStr>(&self) -> Result<T> {
        let text = self.text()?;
        let bound = || format!("a decimal number that fits {} is expected", std::any::type_name::<T>());
        text.trim().parse().map_err(|_| self.error(format!("{text:?}"), bound()))
    }

    /// As [`At::number`], and no larger than `max`.
    pub(crate) fn number_to(&self, max: u64) -> Result<u64> {
        match self.number()? {
            number if number <= max => Ok(number),
            number => Err(self.error(format!("{number:#x}"), format!("at most {max:#x} fits the field"))),
        }
    }
}

/// A number as `strtoul(text, NULL, 0)` reads it, the whole text.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_spelled_as_boost_spells_them() {
        let check = |json: &str, line: &str| assert_eq!(Tree::parse(json).unwrap().to_line(), format!("{line}\n"));
        check("{}", "{}");
        check(r#" { "a" : 1.50 , "b" : [ true , null ] } "#, r#"{"a":"1.50","b":["true","null"]}"#);
        check(r#"{"a":[],"b":{},"c":""}"#, r#"{"a":"","b":"","c":""}"#);
        check(r#"{"a":"x/y\u00e9\u0001\n\"\\\u007f"}"#, "{\"a\":\"x\\/y\u{e9}\\u0001\\n\\\"\\\\\u{7f}\"}");
        check(r#"{"k":"1","k":"2"}"#, r#"{"k":"1","k":"2"}"#);
        check(r#"{"k":"\ud83d\ude00"}"#, "{\"k\":\"\u{1f600}\"}");
        check(r#"[1,-2e3]"#, r#"{"":"1","":"-2e3"}"#);
    }

    #[test]
    fn a_dump_is_indented_by_four() {
        let tree = Tree::default().with("a", Tree::array(["1".into(), Tree::default().with("b", "2")]));
        let text = "{\n    \"a\": [\n        \"1\",\n        {\n            \"b\": \"2\"\n        }\n    ]\n}\n";
        assert_eq!(tree.to_json(), text);
    }

    #[test]
    fn numbers_are_those_of_strtoul() {
        let check = |text, number| assert_eq!(parse_number(text), number, "{text:?}");
        check("0", Some(0));
        check("010", Some(8));
        check("0x1fF", Some(0x1ff));
        check("18446744073709551615", Some(u64::MAX));
        check("18446744073709551616", None);
        check("-1", None);
        check("0x", None);
        check("0x-1", None);
        check("", None);
        check("12a", None);
    }

    #[test]
    fn errors_name_the_place() {
        let tree = Tree::parse(r#"{"a":[{"b":"1"},{"b":"x"}]}"#).unwrap();
        let root = At::root(&tree);
        let array = root.get("a").unwrap();
        let item = array.items().nth(1).unwrap();
        assert!(item.get("b").unwrap().number().unwrap_err().to_string().starts_with("/a/1/b: \"x\": "));
        assert!(item.get("c").unwrap_err().to_string().starts_with("/a/1: no \"c\""));
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = any::<String>().prop_map(Tree::from);
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..6).prop_map(Tree::array),
                prop::collection::vec((".+", inner), 1..6).prop_map(|children| Tree { text: String::new(), children }),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_tree_reads_back(tree in trees()) {
            let root = Tree::default().with("root", tree);
            prop_assert_eq!(Tree::parse(&root.to_json()).unwrap(), root.clone());
            prop_assert_eq!(Tree::parse(&root.to_line()).unwrap(), root);
        }

        #[test]
        fn no_text_panics(text in r#"[\[\]{}",:\\ue0-9a-f. ]{0,60}"#) {
            let _ = Tree::parse(&text);
        }
    }
}
