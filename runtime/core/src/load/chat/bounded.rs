//! What templates may call, with the size of what it makes taken from the budget first.
//!
//! Operators come here as filters ([`super::rewrite`]). Built-in filters, tests and methods keep the
//! engine's meaning: each is counted, then done by the engine's own function. Those that make nothing
//! larger than their steps pay for (`length`, `first`, `default`, ...) stay as they are.

use std::fmt::Write;
use std::sync::LazyLock;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, Output, State, context, filters, functions, tests};

use super::budget::{Charged, charge, charge_copy, charge_items, charge_times, item_count, text_of, text_size};

/// What a call costs by its arguments; the first one is the value in front of a filter.
type Cost = fn(&[Value]) -> Result<(), Error>;

/// Replaces whatever can grow.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_formatter(emit);
    environment.add_filter("bounded_add", add);
    environment.add_filter("bounded_multiply", multiply);
    environment.add_filter("bounded_join", |left: &Value, right: &Value| text_of(format_args!("{left}{right}")));
    environment.add_filter("bounded_slice", slice);
    environment.add_filter("bounded_copy", |value: Value| charge_copy(&value).map(|()| value));
    environment
        .add_filter("bounded_compared", |value: Value| comparison_cost(std::slice::from_ref(&value)).map(|()| value));
    install_filters(environment);
    install_tests(environment);
    environment.set_unknown_method_callback(method);
    for (name, function) in
        [("dict", Value::from_function(functions::dict)), ("namespace", Value::from_function(functions::namespace))]
    {
        environment.add_function(name, move |state: &State<'_, '_>, arguments: Rest<Value>| {
            copies_cost(&arguments)?;
            function.call(state, &arguments)
        });
    }
    // It prints everything that a template can reach, and Python has none.
    environment.remove_global("debug");
}

fn install_filters(environment: &mut Environment<'static>) {
    let mut add = |cost: Cost, names: &[&'static str], filter: Value| {
        for &name in names {
            let filter = filter.clone();
            environment.add_filter(name, move |state: &State<'_, '_>, arguments: Rest<Value>| {
                cost(&arguments)?;
                filter.call(state, &arguments)
            });
        }
    };
    let escape = Value::from_function(filters::escape);
    add(text_cost, &["safe"], Value::from_function(filters::safe));
    add(escape_cost, &["escape", "e"], escape);
    add(case_cost, &["lower"], Value::from_function(filters::lower));
    add(case_cost, &["upper"], Value::from_function(filters::upper));
    add(case_cost, &["title"], Value::from_function(filters::title));
    add(case_cost, &["capitalize"], Value::from_function(filters::capitalize));
    add(replace_cost, &["replace"], Value::from_function(filters::replace));
    add(text_cost, &["trim"], Value::from_function(filters::trim));
    add(text_cost, &["string"], Value::from_function(filters::string));
    add(join_cost, &["join"], Value::from_function(filters::join));
    add(split_cost, &["split"], Value::from_function(filters::split));
    add(lines_cost, &["lines"], Value::from_function(filters::lines));
    add(indent_cost, &["indent"], Value::from_function(filters::indent));
    add(format_cost, &["format"], Value::from_function(filters::format));
    add(copies_cost, &["reverse"], Value::from_function(filters::reverse));
    add(copies_cost, &["list"], Value::from_function(filters::list));
    add(copies_cost, &["select"], Value::from_function(filters::select));
    add(copies_cost, &["reject"], Value::from_function(filters::reject));
    add(copies_cost, &["selectattr"], Value::from_function(filters::selectattr));
    add(copies_cost, &["rejectattr"], Value::from_function(filters::rejectattr));
    add(copies_cost, &["map"], Value::from_function(filters::map));
    add(copies_cost, &["chain"], Value::from_function(filters::chain));
    add(copies_cost, &["zip"], Value::from_function(filters::zip));
    add(groups_cost, &["batch"], Value::from_function(filters::batch));
    add(groups_cost, &["slice"], Value::from_function(filters::slice));
    add(sort_cost, &["sort"], Value::from_function(filters::sort));
    add(sort_cost, &["dictsort"], Value::from_function(filters::dictsort));
    add(sort_cost, &["groupby"], Value::from_function(filters::groupby));
    add(sort_cost, &["unique"], Value::from_function(filters::unique));
    add(sort_cost, &["min"], Value::from_function(filters::min));
    add(sort_cost, &["max"], Value::from_function(filters::max));
    environment.add_filter("pprint", |value: &Value| text_of(format_args!("{value:#?}")));
}

fn install_tests(environment: &mut Environment<'static>) {
    let mut add = |cost: Cost, names: &[&'static str], test: Value| {
        for &name in names {
            let test = test.clone();
            environment.add_test(name, move |state: &State<'_, '_>, arguments: Rest<Value>| {
                cost(&arguments)?;
                test.call(state, &arguments).map(|answer| answer.is_true())
            });
        }
    };
    add(comparison_cost, &["eq", "equalto", "=="], Value::from_function(tests::is_eq));
    add(comparison_cost, &["ne", "!="], Value::from_function(tests::is_ne));
    add(comparison_cost, &["lt", "lessthan", "<"], Value::from_function(tests::is_lt));
    add(comparison_cost, &["le", "<="], Value::from_function(tests::is_le));
    add(comparison_cost, &["gt", "greaterthan", ">"], Value::from_function(tests::is_gt));
    add(comparison_cost, &["ge", ">="], Value::from_function(tests::is_ge));
    add(comparison_cost, &["in"], Value::from_function(tests::is_in));
    add(comparison_cost, &["startingwith"], Value::from_function(tests::is_startingwith));
    add(comparison_cost, &["endingwith"], Value::from_function(tests::is_endingwith));
    add(comparison_cost, &["lower"], Value::from_function(tests::is_lower));
    add(comparison_cost, &["upper"], Value::from_function(tests::is_upper));
}

/// Writes a value where the template prints it: to the prompt, or to what a block captures.
fn emit(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(text) => {
            charge(text.len())?;
            out.write_str(text)?;
        }
        None => write!(Charged(out), "{value}")?,
    }
    Ok(())
}

/// Python's methods of strings, lists and dictionaries.
fn method(state: &State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        let cost: Cost = match name {
            "upper" | "lower" | "title" | "capitalize" => case_cost,
            "replace" => replace_cost,
            "split" => split_cost,
            "splitlines" => lines_cost,
            "format" => format_cost,
            // Python counts the gaps between the characters; the engine's function would count forever.
            "count" if matches!(arguments, [wanted] if wanted.as_str() == Some("")) => {
                return Ok(Value::from(item_count(value) + 1));
            }
            "startswith" | "endswith" | "find" | "rfind" | "count" => comparison_cost,
            _ if name.starts_with("is") => comparison_cost,
            "join" => |both| match both {
                // The filter has the list in front, the method the text between its items.
                [between, list, ..] => join_cost(&[list.clone(), between.clone()]),
                _ => Ok(()),
            },
            _ => text_cost,
        };
        let mut all = Vec::with_capacity(arguments.len() + 1);
        all.push(value.clone());
        all.extend_from_slice(arguments);
        cost(&all)?;
    } else {
        comparison_cost(arguments)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

/// The engine's operators, for what costs nothing.
static OPERATORS: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::empty();
    environment.set_debug(false);
    environment
});

fn operate(operation: &str, values: Value) -> Result<Value, Error> {
    OPERATORS.compile_expression(operation).and_then(|expression| expression.eval(values)).map_err(|error| {
        // It says where in the operation it failed; the template's own place is added later.
        let detail = error.detail().unwrap_or("an operator failed").to_owned();
        Error::new(error.kind(), detail)
    })
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn small_integer(value: &Value) -> Option<i64> {
    if value.is_integer() { value.as_i64() } else { None }
}

fn add(left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        charge(left.len().saturating_add(right.len()))?;
        return Ok(Value::from([left, right].concat()));
    }
    if let Some(sum) = small_integer(left).zip(small_integer(right)).and_then(|(left, right)| left.checked_add(right)) {
        return Ok(Value::from(sum));
    }
    if is_list(left) && is_list(right) {
        charge_items(item_count(left).saturating_add(item_count(right)))?;
    }
    operate("left + right", context! { left, right })
}

fn multiply(left: &Value, right: &Value) -> Result<Value, Error> {
    for (value, times) in [(left, right), (right, left)] {
        let Some(times) = times.as_usize() else { continue };
        if let Some(text) = value.as_str() {
            charge_times(text.len(), times)?;
        } else if is_list(value) {
            charge_items(item_count(value).saturating_mul(times))?;
        }
    }
    operate("left * right", context! { left, right })
}

fn slice(value: &Value, start: &Value, stop: &Value, step: &Value) -> Result<Value, Error> {
    let is_backwards = step.as_i64().is_some_and(|step| step < 0);
    if let Some(text) = value.as_str() {
        // Backwards, the engine takes the characters apart first.
        charge_times(text.len(), if is_backwards { 1 + size_of::<char>() } else { 1 })?;
        if text.is_empty() {
            return Ok(value.clone());
        }
    } else if is_list(value) && is_backwards {
        // The engine collects the list each time that somebody reads it, and fails for an empty one.
        let count = item_count(value);
        charge_items(count)?;
        if count == 0 {
            return Ok(Value::from(Vec::<Value>::new()));
        }
        let reversed = operate("value[start:stop:step]", context! { value, start, stop, step })?;
        return Ok(reversed.try_iter()?.collect());
    }
    operate("value[start:stop:step]", context! { value, start, stop, step })
}

/// The text of all arguments.
fn text_cost(arguments: &[Value]) -> Result<(), Error> {
    arguments.iter().try_for_each(|value| charge(text_size(value)?))
}

/// A letter may have three in the other case.
fn case_cost(arguments: &[Value]) -> Result<(), Error> {
    arguments.iter().try_for_each(|value| charge_times(text_size(value)?, 3))
}

/// A character takes at most six to escape.
fn escape_cost(arguments: &[Value]) -> Result<(), Error> {
    arguments.iter().try_for_each(|value| charge_times(text_size(value)?, 6))
}

/// Lists and maps may be compared item by item, and hashed; texts and numbers cost nothing to look at.
fn comparison_cost(arguments: &[Value]) -> Result<(), Error> {
    let containers = arguments.iter().filter(|value| value.as_object().is_some());
    containers.into_iter().try_for_each(|value| charge(text_size(value)?))
}

/// Copies of the arguments, which share what the items hold.
fn copies_cost(arguments: &[Value]) -> Result<(), Error> {
    arguments.iter().try_for_each(charge_copy)
}

fn sort_cost(arguments: &[Value]) -> Result<(), Error> {
    comparison_cost(arguments)?;
    // Keys beside values, and letters in lower case.
    copies_cost(arguments)?;
    copies_cost(arguments)
}

fn groups_cost(arguments: &[Value]) -> Result<(), Error> {
    copies_cost(arguments)?;
    copies_cost(arguments)?;
    let counts = arguments.iter().filter_map(Value::as_usize);
    counts.into_iter().try_for_each(|count| charge_items(count.saturating_mul(3)))
}

/// The text of an argument, if it is one that names what to look for.
fn text_argument(arguments: &[Value], index: usize) -> Result<Option<String>, Error> {
    match arguments.get(index) {
        None => Ok(None),
        Some(value) if value.is_none() || value.is_undefined() => Ok(None),
        Some(value) => text_of(format_args!("{value}")).map(Some),
    }
}

fn occurrences(text: &Value, wanted: Option<&str>) -> Result<usize, Error> {
    match (text.as_str(), wanted) {
        (_, Some("")) => text_size(text).map(|size| size.saturating_add(2)),
        (Some(text), Some(wanted)) => Ok(text.matches(wanted).count()),
        (Some(text), None) => Ok(text.split_whitespace().count()),
        // What is no text yet is written first; it may hold as many as it has bytes.
        (None, _) => text_size(text),
    }
}

fn replace_cost(arguments: &[Value]) -> Result<(), Error> {
    text_cost(arguments)?;
    let (Some(text), Some(new)) = (arguments.first(), arguments.get(2)) else { return Ok(()) };
    let old = text_argument(arguments, 1)?.unwrap_or_default();
    charge_times(text_size(new)?, occurrences(text, Some(&old))?)
}

fn join_cost(arguments: &[Value]) -> Result<(), Error> {
    let Some(list) = arguments.first() else { return Ok(()) };
    let between = arguments.get(1).map_or(Ok(0), text_size)?;
    if list.try_iter().is_err() {
        return Ok(());
    }
    for item in list.try_iter()? {
        charge(text_size(&item)?.saturating_add(between))?;
    }
    Ok(())
}

fn split_cost(arguments: &[Value]) -> Result<(), Error> {
    text_cost(arguments)?;
    let Some(text) = arguments.first() else { return Ok(()) };
    let by = text_argument(arguments, 1)?;
    pieces_cost(occurrences(text, by.as_deref())?.saturating_add(1))
}

fn lines_cost(arguments: &[Value]) -> Result<(), Error> {
    text_cost(arguments)?;
    let Some(text) = arguments.first() else { return Ok(()) };
    pieces_cost(occurrences(text, Some("\n"))?.saturating_add(1))
}

/// Each piece is a value, with counts of its owners where it is long.
fn pieces_cost(count: usize) -> Result<(), Error> {
    charge_times(count, 2 * size_of::<Value>())
}

fn indent_cost(arguments: &[Value]) -> Result<(), Error> {
    text_cost(arguments)?;
    let Some(text) = arguments.first() else { return Ok(()) };
    let lines = occurrences(text, Some("\n"))?.saturating_add(1);
    let widths = arguments.iter().skip(1).filter_map(Value::as_usize);
    let named = arguments.iter().filter(|value| value.kind() == ValueKind::Map).filter_map(|named| {
        let width = named.get_attr("width").ok()?;
        width.as_usize()
    });
    let width = widths.chain(named).fold(0, usize::saturating_add);
    charge_times(lines, width)
}

/// Longest number that a format writes by itself.
const NUMBER_BYTES_MAX: usize = 512;

/// Each field may write any of the arguments, in the largest width that is named anywhere.
fn format_cost(arguments: &[Value]) -> Result<(), Error> {
    text_cost(arguments)?;
    let Some(format) = arguments.first().and_then(Value::as_str) else { return Ok(()) };
    let fields = format.bytes().filter(|byte| matches!(byte, b'%' | b'{')).count();
    let mut most = NUMBER_BYTES_MAX;
    for value in arguments.iter().skip(1) {
        most = most.max(text_size(value)?).max(value.as_usize().filter(|_| format.contains('*')).unwrap_or(0));
    }
    let widths = format.split(|character: char| !character.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let width = widths.map(|digits| digits.parse::<usize>().unwrap_or(usize::MAX)).fold(0, usize::saturating_add);
    // Filled with characters of four bytes each, grouped, and copied once.
    charge_times(most.saturating_add(width.saturating_mul(8)), fields)
}

#[cfg(test)]
mod tests_of_costs {
    use super::*;

    fn cost_of(cost: Cost, arguments: &[Value]) -> bool {
        super::super::budget::open(1000);
        cost(arguments).is_ok()
    }

    fn check(cost: Cost, fits: &[Value], exceeds: &[Value]) {
        assert!(cost_of(cost, fits), "{fits:?}");
        assert!(!cost_of(cost, exceeds), "{exceeds:?}");
    }

    #[test]
    fn costs_are_in_proportion_to_what_is_made() {
        let text = |size| Value::from("x".repeat(size));
        check(text_cost, &[text(1000)], &[text(1001)]);
        check(case_cost, &[text(333)], &[text(334)]);
        check(replace_cost, &[text(10), Value::from("x"), text(20)], &[text(10), Value::from("x"), text(100)]);
        check(replace_cost, &[text(10), Value::from("y"), text(900)], &[text(10), Value::from(""), text(100)]);
        check(join_cost, &[Value::from(vec![1; 8]), text(100)], &[Value::from(vec![1; 11]), text(100)]);
        check(split_cost, &[text(100), Value::from("y")], &[text(100), Value::from("x")]);
        check(indent_cost, &[text(1), Value::from(900)], &[Value::from("a\nb"), Value::from(900)]);
        check(format_cost, &[Value::from("%d"), Value::from(1)], &[Value::from("%99d"), Value::from(1)]);
        check(groups_cost, &[Value::from(vec![1; 2]), Value::from(2)], &[Value::from(vec![1; 4]), Value::from(99)]);
    }
}
