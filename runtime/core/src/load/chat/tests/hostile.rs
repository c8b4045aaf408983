//! Templates that want all memory. Each must end in its typed error before it has taken any.

use super::*;

/// A template that asks for more than it may make.
fn check_too_large(source: &str) {
    let result = render(source);
    let shown = result.as_ref().map(String::len);
    assert!(matches!(result, Err(ChatError::TooLarge { what: "what the template makes", .. })), "{source}: {shown:?}");
}

/// Each of these expressions asks for more; `a` is a long text.
fn check_all_too_large(expressions: &[&str]) {
    let wrong: Vec<String> = expressions
        .iter()
        .filter_map(|expression| match render(&format!("{{% set a = 'a' * 99999 %}}{{% set x = {expression} %}}")) {
            Err(ChatError::TooLarge { what: "what the template makes", .. }) => None,
            other => Some(format!("{expression}: {:?}", other.map(|text| text.len()))),
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `x` grows by one step, many times, and stays out of the prompt.
fn check_growth(start: &str, step: &str) {
    check_too_large(&format!(
        "{{% set n = namespace(x={start}) %}}{{% for i in range(99) %}}{{% set n.x = {step} %}}{{% endfor %}}"
    ));
}

#[test]
fn operators_are_bounded() {
    check_too_large("{% set x = 'x' * 10000000000 %}");
    check_too_large("{% set x = 10000000000 * 'x' %}");
    check_too_large("{% set x = 'x' * 99999999 %}");
    check_too_large("{% set x = [0] * 10000000000 %}");
    check_too_large("{% set x = ([0] * 1000000 * 1000000)[::-1] %}");
    check_growth("'xx'", "n.x + n.x");
    check_growth("'xx'", "n.x ~ n.x");
    check_growth("[1]", "n.x + n.x");
    check_growth("[1]", "[n.x, n.x] | string");
    check_growth("[1]", "[n.x, n.x] ~ ''");
    check_growth("'xx'", "n.x * 2");
    check_growth("[]", "[n.x, ('x' * 9999)[:], ('x' * 999999)[1:]]");
    check_growth("[]", "[n.x, ('x' * 999999)[::-1]]");
}

#[test]
fn captured_text_is_bounded() {
    let text = "x".repeat(60_000);
    let loops = "{% for i in range(9999) %}";
    check_too_large(&format!("{{% set x %}}{loops}{text}{{% endfor %}}{{% endset %}}"));
    check_too_large(&format!(
        "{{% macro f() %}}{text}{{% endmacro %}}{{% set x %}}{loops}{{{{ f() }}}}{{% endfor %}}{{% endset %}}"
    ));
    check_too_large(&format!("{{% filter upper %}}{loops}{text}{{% endfor %}}{{% endfilter %}}"));
    check_growth("'xx'", "n.x %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y");
}

#[test]
fn filters_are_bounded() {
    check_all_too_large(&[
        "a | replace('a', a)",
        "a | replace('', a)",
        "range(99999) | join(a)",
        "a | list | join(a)",
        "a | join(a)",
        "([a] * 9999) | join",
        "([a] * 9999) | string",
        "([a] * 9999) | tojson",
        "([a] * 9999) | pprint",
        "('a\\n' * 99999) | indent(99999)",
        "a | indent(99999999999, true)",
        "a | indent(width=99999999999, first=true)",
        "'%1000000000d' | format(1)",
        "'%*d' | format(1000000000, 1)",
        "'%.1000000000f' | format(1.5)",
        "('%s' * 9999) | format(*([a] * 9999))",
        "[1] | batch(1000000000000)",
        "[1] | batch(1000000000000, 0)",
        "[] | slice(1000000000000)",
        "range(99999) | batch(99999) | map('batch', 99999999) | list",
        "([a] * 9999) | map('upper') | list",
        "([a] * 9999) | map('replace', 'a', 'aaaaaaaa') | list",
        "([1] * 1000000) | list | list | list | list",
        "([1] * 1000000) | sort | unique | sort",
        "('<' * 9999999) | e | e | e",
    ]);
    check_growth("'ab'", "n.x | replace('', 'ab')");
    check_growth("['ab']", "[n.x, n.x] | tojson");
    check_growth("['ab']", "[n.x, n.x] | pprint");
    check_growth("'<'", "(n.x ~ n.x) | e");
}

#[test]
fn methods_and_functions_are_bounded() {
    check_all_too_large(&[
        "a.replace('a', a)",
        "a.replace('', a)",
        "a.join(a)",
        "a.join(range(99999))",
        "(a * 60).split('a')",
        "('\\n' * 9999999).splitlines()",
        "'{:1000000000}'.format(1)",
        "'{:>1000000000}'.format('a')",
        "'{:.1000000000f}'.format(1.5)",
        "('{0}' * 9999).format(a)",
        "(a * 300).upper()",
        "dict(**dict(x=[a] * 9999)).x | string",
        "raise_exception([a] * 9999)",
        "strftime_now('%A' * 9999999)",
        "dict(x=1, **([1] * 9999999))",
        "[1].count(*([1] * 9999999))",
    ]);
}

#[test]
fn comparisons_of_lists_in_lists_end() {
    let nested = "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}\
                  {% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}";
    for hostile in [
        "n.x == n.y",
        "n.x in [n.y]",
        "n.x < n.y",
        "1 < n.x < n.y",
        "{n.x: 1}",
        "[n.x, n.y] | sort",
        "[n.x, n.y] | max",
    ] {
        check_too_large(&format!("{nested}{{% set z = {hostile} %}}"));
    }
    check_too_large(&format!("{nested}{{{{ n.x is eq(n.y) }}}}"));
    check_too_large(&format!("{nested}{{{{ n.x is startingwith('a') }}}}"));
}

#[test]
fn nothing_counts_forever() {
    check("{{ 'abc'.count('') }}{{ 'abc'.count('b') }}", "41");
}

#[test]
fn other_templates_are_refused() {
    for tag in
        ["{% include 'chat' %}", "{% extends 'chat' %}", "{% import 'chat' as c %}", "{% from 'chat' import c %}"]
    {
        assert!(matches!(render(tag), Err(ChatError::Syntax(_))), "{tag}");
    }
    assert!(matches!(render("{% block b %}{% endblock %}"), Err(ChatError::Syntax(_))));
    assert!(matches!(render("{{ debug() }}"), Err(ChatError::Render(_))));
}

#[test]
fn long_conversations_have_room() {
    let turns: Vec<Message> = (0..1000).map(|turn| Message::new("user", format!("turn {turn}"))).collect();
    let source = "{% set n = namespace(all=[], text='') %}{% for m in messages %}\
                  {% set n.all = n.all + [m] %}{% set n.text = n.text ~ m.content.strip() %}{% endfor %}\
                  {{ n.all | length }} {{ n.text | length }}";
    let template = ChatTemplate::new(source).unwrap();
    assert_eq!(template.render(&turns, RenderOptions::default()).unwrap(), "1000 7890");
}
