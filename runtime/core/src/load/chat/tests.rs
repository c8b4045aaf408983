use super::*;

mod hostile;
mod rewritten;

fn messages() -> Vec<Message> {
    vec![Message::new("system", "Be brief."), Message::new("user", "Say <hi> & \"bye\" ")]
}

fn render(source: &str) -> Result<String, ChatError> {
    let options = RenderOptions { add_generation_prompt: true, bos: "<s>", eos: "</s>" };
    ChatTemplate::new(source)?.render(&messages(), options)
}

fn check(source: &str, expected: &str) {
    assert_eq!(render(source).unwrap(), expected, "{source}");
}

#[test]
fn a_template_as_models_have_them() {
    check(
        "{% for message in messages %}\n{{ '<|im_start|>' + message['role'] + '\\n' + message.content + '<|im_end|>\\n' }}\
         {% endfor %}\n{% if add_generation_prompt %}\n{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay <hi> & \"bye\" <|im_end|>\n<|im_start|>assistant\n",
    );
}

#[test]
fn what_templates_rely_on() {
    check("{{ bos_token ~ eos_token }}", "<s></s>");
    check("{{ messages[1]['content'].strip().upper() }}", "SAY <HI> & \"BYE\"");
    check("{{ messages[0] | tojson }}", r#"{"role": "system", "content": "Be brief."}"#);
    check("{{ [1, {'a': '<é>'}] | tojson }}", r#"[1, {"a": "<é>"}]"#);
    check("{{ [1] | tojson(indent=2) }}", "[\n  1\n]");
    check("{{ tools is none }}{{ tools is iterable }}{{ 'a' is iterable }}", "TrueFalseTrue");
    check("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}", "user");
    check("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2");
    check("a{%- generation -%} b {%- endgeneration %}c", "abc");
    check("{{ messages[::-1][0].role }}{{ 'a,b'.split(',')[1] }}", "userb");
    let year = render("{{ strftime_now('%Y') }}").unwrap();
    assert!(year.parse::<u32>().unwrap() > 2000, "{year}");
}

#[test]
fn a_refusal_is_the_templates_own_words() {
    let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
    assert!(matches!(&error, ChatError::Refused(words) if words == "roles must alternate"), "{error:?}");
}

#[test]
fn hostile_templates_are_errors() {
    let steps = render("{% for a in range(9999) %}{% for b in range(9999) %}{% set c = b %}{% endfor %}{% endfor %}");
    assert!(matches!(steps, Err(ChatError::OutOfSteps(_))), "{steps:?}");
    let large = render("{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}");
    assert!(matches!(large, Err(ChatError::TooLarge { what: "prompt", .. })), "{large:?}");
    assert!(matches!(render("{% if %}"), Err(ChatError::Syntax(_))));
    assert!(matches!(render("{{ undefined.field }}"), Err(ChatError::Render(_))));
    assert!(render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_err());
    assert!(matches!(render(&"x".repeat(TEMPLATE_BYTES_MAX + 1)), Err(ChatError::TooLarge { .. })));
}

#[test]
fn deep_templates_do_not_exhaust_the_stack() {
    assert_eq!(render(&"(".repeat(100_000)).unwrap().len(), 100_000);
    check(&format!("{{{{ 1{} }}}}", "+1".repeat(30_000)), "30001");
    // Text or error, it has to end; an exhausted stack would end the test.
    let nested = "{% set n = namespace(l=[]) %}{% for i in range(20000) %}{% set n.l = [n.l] %}{% endfor %}";
    for template in [
        format!("{{{{ {} }}}}", "(".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(30_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ 'a'{} }}}}", "|e".repeat(60_000)),
        format!("{{{{ a{} }}}}", ".a".repeat(60_000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{%elif 1%}".repeat(10_000)),
        nested.to_owned(),
        format!("{nested}{{{{ n.l | tojson }}}}"),
        format!("{nested}{{{{ n.l }}}}"),
    ] {
        if let Ok(text) = render(&template) {
            assert!(text.len() < 1 << 20);
        }
    }
}

#[test]
fn a_panic_of_the_engine_is_an_error() {
    // Slicing an empty list backwards panics inside the engine of this version.
    let reversed = ChatTemplate::new("{% for m in messages[::-1] %}{{ m }}{% endfor %}").unwrap();
    match reversed.render(&[], RenderOptions::default()) {
        Ok(text) => assert_eq!(text, ""),
        Err(error) => assert!(matches!(error, ChatError::Render(_)), "{error:?}"),
    }
}

#[test]
fn configurations_hold_one_template_or_named_ones() {
    let of = |config: &str| ChatTemplate::from_tokenizer_config(config.as_bytes());
    let render = |template: ChatTemplate| template.render(&[], RenderOptions::default()).unwrap();
    assert_eq!(render(of(r#"{"chat_template": "one"}"#).unwrap().unwrap()), "one");
    let named = r#"{"chat_template": [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]}"#;
    assert_eq!(render(of(named).unwrap().unwrap()), "b");
    assert!(of("{}").unwrap().is_none());
    assert!(matches!(of(r#"{"chat_template": []}"#), Err(ChatError::Config(_))));
    assert!(matches!(of("["), Err(ChatError::Config(_))));
}
