//! What a template means must not change by being written anew.

use super::*;

#[test]
fn operators_bind_as_they_did() {
    check("{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ - -3 }}", "3 9 64 4 3");
    check("{{ 10 - 4 - 3 }} {{ 10 - (4 - 3) }} {{ 7 // 2 * 2 }} {{ 7 % 4 + 1 }} {{ 9 / 2 }}", "3 9 6 4 4.5");
    check("{{ 'a' ~ 1 + 2 ~ 'b' if false else 'c' }}", "c");
    check("{{ 'a' ~ 1 ~ none ~ [1, 'x'] }} {{ 'ab' * 2 }} {{ 2 * 'ab' }}", "a1None[1, \"x\"] abab abab");
    check("{{ [1] + [2, 3] }} {{ [1] * 3 }} {{ 1.5 + 1 }} {{ 1.5 * 2 }}", "[1, 2, 3] [1, 1, 1] 2.5 3.0");
    check("{{ not 1 == 2 }} {{ not (true and false) or false }} {{ (1 or 0) and 5 }}", "True True 5");
    check("{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 2 not in [1] }} {{ not 2 in [1] }}", "True False True True");
    check("{{ [1, 2] == [1] + [2] }} {{ 'b' in 'abc' }} {{ (1 == 1) == true }}", "True True True");
    check("{{ (1 if 0 else 2) + 3 }} {{ 1 if 0 else 2 if 0 else 3 }} {{ (1 if 0) is undefined }}", "5 3 True");
    check("{{ 9223372036854775807 + 1 }} {{ 100000000000000000000 * 2 }}", "9223372036854775808 200000000000000000000");
    check("{{ 1e999 > 1 }} {{ 1e3 }} {{ 0.1 }} {{ true }} {{ none }}", "True 1000.0 0.1 True None");
}

#[test]
fn postfixes_stay_where_they_were() {
    check("{{ ('a' + 'b').upper() }} {{ ('a' + 'b') | upper }} {{ 'a' + 'b' | upper }}", "AB AB aB");
    check("{{ (-5) | abs }} {{ -5 | abs }} {{ [3, 4][1 - 1] }} {{ {'a': {'b': 1}}.a['b'] }}", "5 5 3 1");
    check("{{ 'abcdef'[1:4] }} {{ 'abc'[::-1] }} {{ [1, 2, 3][1:] | list }} {{ [1, 2][:1][0] }}", "bcd cba [2, 3] 1");
    check("{{ [1, 2, 3][::-1][0] }} {{ [][::-1] }} {{ ''[::-1] }} {{ messages[1:][0].role }}", "3 []  user");
    check(
        "{{ 4 is divisibleby 2 }} {{ 4 is not odd }} {{ 'a' is in ['a'] }} {{ x is defined }}",
        "True True True False",
    );
    check(
        "{{ [1, 2] | map('string') | join('-') }} {{ dict(**{'a': 1}).a }} {{ range(*[1, 3]) | list }}",
        "1-2 1 [1, 2]",
    );
}

#[test]
fn texts_are_kept_to_the_byte() {
    check("a\\n\"b'\\{{ 'c\\n\\\\d\\'\"é\\u00e9' }}\r\n\te \u{0}", "a\\n\"b'\\c\n\\d'\"éé\r\n\te \u{0}");
    check("{{ 'a' 'b' \"c\" }}{% raw %}{{ x }}{% endraw %}{# not this #}", "abc{{ x }}");
    check("  {% if true %}\n  x\n  {%- endif -%}  \n y\n", "  xy");
    check("{% set t = '%}' %}{{ t }}{{ '}}' }}{{ {'a': '{{'} }}", "%}}}{\"a\": \"{{\"}");
}

#[test]
fn statements_are_kept() {
    check("{% for a, (b, c) in [(1, (2, 3))] %}{{ a + b + c }}{% else %}none{% endfor %}", "6");
    check("{% for a in [] %}{% else %}none{% endfor %}{% for a in [1, 2, 3] if a != 2 %}{{ a }}{% endfor %}", "none13");
    check("{% for a in [1, [2, [3]]] recursive %}{{ loop(a) if a is iterable else a }}{% endfor %}", "123");
    check("{% if 0 %}a{% elif 1 %}b{% else %}c{% endif %}{% if 0 %}{% elif 0 %}{% else %}d{% endif %}", "bd");
    check("{% if 0 %}a{% else %}{% if 1 %}b{% endif %}c{% endif %}", "bc");
    check("{% set a, b = 1, 2 %}{% with c = a, d = b %}{{ c }}{{ d }}{% endwith %}", "12");
    check("{% set t | upper | replace('B', 'c') %}ab{% endset %}{{ t }}{% filter upper %}x{% endfilter %}", "AcX");
    check("{% macro f(a, b='y', c=1 + 1) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }}{{ f(1, c=3) }}", "1y21y3");
    check("{% macro f(x) %}[{{ caller(x, 2) }}]{% endmacro %}{% call(a, b) f(1) %}{{ a }}{{ b }}{% endcall %}", "[12]");
    check("{% set n = namespace(a=1) %}{% macro f() %}{% endmacro %}{% do f() %}{% set n.a = n.a + 1 %}{{ n.a }}", "2");
    check(
        "{% for a in range(9) %}{% if a == 1 %}{% continue %}{% endif %}{% if a == 3 %}{% break %}{% endif %}{{ a }}{% endfor %}",
        "02",
    );
}

#[test]
fn errors_name_the_line_of_the_template() {
    let error = render("a\n\n{% if true %}\n{{ 'x' + 1 }}\n{% endif %}").unwrap_err();
    assert!(error.to_string().ends_with("(in chat:4)"), "{error}");
}
