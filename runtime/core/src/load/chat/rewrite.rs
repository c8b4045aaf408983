//! A template is written anew so that nothing it does can grow without being counted.
//!
//! The engine evaluates `+`, `*`, `~` and slices itself, and copies the template's own text into captured
//! blocks itself; none of that can be overridden. So the template is parsed, and written again from its
//! tree with filters in their place ([`super::bounded`]): `a + b` becomes `a|bounded_add(b)`, text becomes
//! `{{ "text" }}`. Filters, unlike calls, do not nest: a sum of a thousand terms stays flat.
//!
//! The lines stay where they were, for the sake of error messages.

use std::fmt::Write;

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Filter, Macro, Stmt, UnaryOpKind};
use minijinja::machinery::{Span, WhitespaceConfig, parse};
use minijinja::value::{Value, ValueKind};

use super::{ChatError, TEMPLATE_NAME};

/// How tightly an expression binds; operands that bind less are put in parentheses.
mod binding {
    pub(super) const CONDITION: u8 = 0;
    pub(super) const OR: u8 = 1;
    pub(super) const AND: u8 = 2;
    pub(super) const NOT: u8 = 3;
    pub(super) const COMPARE: u8 = 4;
    pub(super) const SUM: u8 = 5;
    pub(super) const PRODUCT: u8 = 7;
    pub(super) const POWER: u8 = 8;
    pub(super) const NEGATION: u8 = 9;
    pub(super) const FILTER: u8 = 10;
    pub(super) const POSTFIX: u8 = 11;
    pub(super) const PRIMARY: u8 = 12;
}

/// The template, with everything that can grow replaced by what counts it.
///
/// # Errors
/// A template that does not parse, or that uses other templates or escaping: prompts have neither.
pub(super) fn rewrite(source: &str) -> Result<String, ChatError> {
    let whitespace = WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    let tree = parse(source, TEMPLATE_NAME, Default::default(), whitespace)
        .map_err(|error| ChatError::Syntax(error.to_string()))?;
    let mut writer = Writer { text: String::with_capacity(source.len() * 2), line: 1 };
    writer.statement(&tree)?;
    Ok(writer.text)
}

struct Writer {
    text: String,
    /// From 1, as the parser counts.
    line: usize,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.line += text.bytes().filter(|&byte| byte == b'\n').count();
        self.text.push_str(text);
    }

    /// Opens a tag on the line where it was.
    fn open(&mut self, tag: &str, span: Span) {
        self.push(tag);
        while self.line < usize::from(span.start_line) {
            self.push("\n");
        }
        self.push(" ");
    }

    fn statements(&mut self, all: &[Stmt<'_>]) -> Result<(), ChatError> {
        all.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), ChatError> {
        match statement {
            Stmt::Template(template) => self.statements(&template.children)?,
            Stmt::EmitExpr(emit) => {
                self.open("{{", emit.span());
                self.expression(&emit.expr, binding::CONDITION);
                self.push(" }}");
            }
            Stmt::EmitRaw(raw) => {
                self.push("{{ ");
                self.string(raw.raw);
                self.push(" }}");
            }
            Stmt::ForLoop(each) => {
                self.open("{%", each.span());
                self.push("for ");
                self.target(&each.target);
                self.push(" in ");
                self.expression(&each.iter, binding::OR);
                if let Some(filter) = &each.filter_expr {
                    self.push(" if ");
                    self.expression(filter, binding::OR);
                }
                self.push(if each.recursive { " recursive %}" } else { " %}" });
                self.statements(&each.body)?;
                if !each.else_body.is_empty() {
                    self.push("{% else %}");
                    self.statements(&each.else_body)?;
                }
                self.push("{% endfor %}");
            }
            Stmt::IfCond(_) => self.condition(statement)?,
            Stmt::WithBlock(with) => {
                self.open("{%", with.span());
                self.push("with ");
                for (index, (target, value)) in with.assignments.iter().enumerate() {
                    self.push(if index > 0 { ", " } else { "" });
                    self.target(target);
                    self.push(" = ");
                    self.expression(value, binding::CONDITION);
                }
                self.push(" %}");
                self.statements(&with.body)?;
                self.push("{% endwith %}");
            }
            Stmt::Set(set) => {
                self.open("{%", set.span());
                self.push("set ");
                self.target(&set.target);
                self.push(" = ");
                self.expression(&set.expr, binding::CONDITION);
                self.push(" %}");
            }
            Stmt::SetBlock(set) => {
                self.open("{%", set.span());
                self.push("set ");
                self.target(&set.target);
                if let Some(filter) = &set.filter {
                    self.push(" | ");
                    self.expression(filter, binding::CONDITION);
                }
                self.push(" %}");
                self.statements(&set.body)?;
                self.push("{% endset %}");
            }
            Stmt::FilterBlock(block) => {
                self.open("{%", block.span());
                self.push("filter ");
                self.expression(&block.filter, binding::CONDITION);
                self.push(" %}");
                self.statements(&block.body)?;
                self.push("{% endfilter %}");
            }
            Stmt::Macro(declared) => {
                self.open("{%", declared.span());
                self.push("macro ");
                self.push(declared.name);
                self.macro_arguments(declared);
                self.push(" %}");
                self.statements(&declared.body)?;
                self.push("{% endmacro %}");
            }
            Stmt::CallBlock(block) => {
                self.open("{%", block.span());
                self.push("call");
                self.macro_arguments(&block.macro_decl);
                self.push(" ");
                self.expression(&block.call.expr, binding::POSTFIX);
                self.arguments(&block.call.args);
                self.push(" %}");
                self.statements(&block.macro_decl.body)?;
                self.push("{% endcall %}");
            }
            Stmt::Do(run) => {
                self.open("{%", run.span());
                self.push("do ");
                self.expression(&run.call.expr, binding::POSTFIX);
                self.arguments(&run.call.args);
                self.push(" %}");
            }
            Stmt::Continue(_) => self.push("{% continue %}"),
            Stmt::Break(_) => self.push("{% break %}"),
            Stmt::AutoEscape(block) => return Err(unsupported("autoescape", block.span())),
            Stmt::Block(block) => return Err(unsupported("block", block.span())),
            Stmt::Import(import) => return Err(unsupported("import", import.span())),
            Stmt::FromImport(import) => return Err(unsupported("from", import.span())),
            Stmt::Extends(extends) => return Err(unsupported("extends", extends.span())),
            Stmt::Include(include) => return Err(unsupported("include", include.span())),
        }
        Ok(())
    }

    /// A condition with all of its `elif`, which the tree nests and the parser would count as depth.
    fn condition(&mut self, statement: &Stmt<'_>) -> Result<(), ChatError> {
        let mut next = Some(statement);
        let mut word = "if ";
        while let Some(Stmt::IfCond(condition)) = next.take() {
            self.open("{%", condition.span());
            self.push(word);
            self.expression(&condition.expr, binding::OR);
            self.push(" %}");
            self.statements(&condition.true_body)?;
            word = "elif ";
            match condition.false_body.as_slice() {
                [] => {}
                [only @ Stmt::IfCond(_)] => next = Some(only),
                other => {
                    self.push("{% else %}");
                    self.statements(other)?;
                }
            }
        }
        self.push("{% endif %}");
        Ok(())
    }

    /// Where a value goes: a name, a namespace's attribute, or a tuple of them.
    fn target(&mut self, target: &Expr<'_>) {
        match target {
            Expr::List(list) => {
                self.push("(");
                for item in &list.items {
                    self.target(item);
                    self.push(", ");
                }
                self.push(")");
            }
            other => self.expression(other, binding::POSTFIX),
        }
    }

    fn macro_arguments(&mut self, declared: &Macro<'_>) {
        self.push("(");
        let first_default = declared.args.len().saturating_sub(declared.defaults.len());
        for (index, argument) in declared.args.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.expression(argument, binding::POSTFIX);
            if let Some(default) = index.checked_sub(first_default).and_then(|index| declared.defaults.get(index)) {
                self.push("=");
                self.expression(default, binding::CONDITION);
            }
        }
        self.push(")");
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) {
        self.push("(");
        for (index, argument) in arguments.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            match argument {
                CallArg::Pos(value) => self.expression(value, binding::CONDITION),
                CallArg::Kwarg(name, value) => {
                    self.push(name);
                    self.push("=");
                    self.expression(value, binding::CONDITION);
                }
                CallArg::PosSplat(value) => self.filtered("*", value, "bounded_copy"),
                CallArg::KwargSplat(value) => self.filtered("**", value, "bounded_copy"),
            }
        }
        self.push(")");
    }

    fn filtered(&mut self, before: &str, value: &Expr<'_>, filter: &str) {
        self.push(before);
        self.expression(value, binding::FILTER);
        self.push("|");
        self.push(filter);
    }

    /// An operand of a comparison, which may take as long as the operand's text is.
    fn compared(&mut self, value: &Expr<'_>, with: &Expr<'_>) {
        if is_plain_constant(value) || is_plain_constant(with) {
            self.expression(value, binding::SUM);
        } else {
            self.filtered("", value, "bounded_compared");
        }
    }

    fn expression(&mut self, value: &Expr<'_>, least: u8) {
        let in_parentheses = binding_of(value) < least;
        self.push(if in_parentheses { "(" } else { "" });
        self.bare(value);
        self.push(if in_parentheses { ")" } else { "" });
    }

    fn bare(&mut self, value: &Expr<'_>) {
        match value {
            Expr::Var(variable) => self.push(variable.id),
            Expr::Const(constant) => self.constant(&constant.value),
            Expr::Slice(slice) => {
                self.filtered("", &slice.expr, "bounded_slice(");
                for (index, bound) in [&slice.start, &slice.stop, &slice.step].into_iter().enumerate() {
                    self.push(if index > 0 { ", " } else { "" });
                    match bound {
                        Some(bound) => self.expression(bound, binding::CONDITION),
                        None => self.push("none"),
                    }
                }
                self.push(")");
            }
            Expr::UnaryOp(operation) => match operation.op {
                UnaryOpKind::Not => {
                    self.push("not ");
                    self.expression(&operation.expr, binding::NOT);
                }
                UnaryOpKind::Neg => {
                    self.push("- ");
                    let is_negation = binding_of(&operation.expr) == binding::NEGATION;
                    self.expression(&operation.expr, if is_negation { binding::NEGATION } else { binding::PRIMARY });
                }
            },
            Expr::BinOp(operation) => self.operation(operation.op, &operation.left, &operation.right),
            Expr::Compare(compare) => {
                // Each operand in between is compared twice, with its neighbours.
                self.filtered("", &compare.expr, "bounded_compared");
                for next in &compare.ops {
                    self.push(comparison(next.op));
                    self.filtered("", &next.expr, "bounded_compared");
                }
            }
            Expr::IfExpr(condition) => {
                self.expression(&condition.true_expr, binding::OR);
                self.push(" if ");
                self.expression(&condition.test_expr, binding::OR);
                if let Some(otherwise) = &condition.false_expr {
                    self.push(" else ");
                    self.expression(otherwise, binding::CONDITION);
                }
            }
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => {
                self.expression(&test.expr, binding::FILTER);
                self.push(" is ");
                self.push(test.name);
                self.arguments(&test.args);
            }
            Expr::GetAttr(attribute) => {
                self.expression(&attribute.expr, binding::POSTFIX);
                self.push(".");
                self.push(attribute.name);
            }
            Expr::GetItem(item) => {
                self.expression(&item.expr, binding::POSTFIX);
                self.push("[");
                self.key(&item.subscript_expr);
                self.push("]");
            }
            Expr::Call(call) => {
                self.expression(&call.expr, binding::POSTFIX);
                self.arguments(&call.args);
            }
            Expr::List(list) => {
                self.push("[");
                for item in &list.items {
                    self.expression(item, binding::CONDITION);
                    self.push(", ");
                }
                self.push("]");
            }
            Expr::Map(map) => {
                self.push("{");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.key(key);
                    self.push(": ");
                    self.expression(value, binding::CONDITION);
                    self.push(", ");
                }
                self.push("}");
            }
        }
    }

    /// A key is hashed, which takes as long as its text is.
    fn key(&mut self, key: &Expr<'_>) {
        if matches!(key, Expr::Const(_) | Expr::BinOp(_) | Expr::UnaryOp(_)) {
            self.expression(key, binding::CONDITION);
        } else {
            self.filtered("", key, "bounded_compared");
        }
    }

    fn filter(&mut self, filter: &Filter<'_>) {
        // A block's filters have nothing in front: they get the block's text.
        if let Some(value) = &filter.expr {
            self.expression(value, binding::FILTER);
            self.push("|");
        }
        self.push(filter.name);
        if !filter.args.is_empty() {
            self.arguments(&filter.args);
        }
    }

    fn operation(&mut self, kind: BinOpKind, left: &Expr<'_>, right: &Expr<'_>) {
        let (word, binding) = match kind {
            BinOpKind::Add => return self.bounded(left, "|bounded_add(", right),
            BinOpKind::Mul => return self.bounded(left, "|bounded_multiply(", right),
            BinOpKind::Concat => return self.bounded(left, "|bounded_join(", right),
            BinOpKind::Eq => return self.comparison(left, " == ", right),
            BinOpKind::Ne => return self.comparison(left, " != ", right),
            BinOpKind::Lt => return self.comparison(left, " < ", right),
            BinOpKind::Lte => return self.comparison(left, " <= ", right),
            BinOpKind::Gt => return self.comparison(left, " > ", right),
            BinOpKind::Gte => return self.comparison(left, " >= ", right),
            BinOpKind::In => return self.comparison(left, " in ", right),
            BinOpKind::ScOr => (" or ", binding::OR),
            BinOpKind::ScAnd => (" and ", binding::AND),
            BinOpKind::Sub => (" - ", binding::SUM),
            BinOpKind::Div => (" / ", binding::PRODUCT),
            BinOpKind::FloorDiv => (" // ", binding::PRODUCT),
            BinOpKind::Rem => (" % ", binding::PRODUCT),
            BinOpKind::Pow => (" ** ", binding::POWER),
        };
        self.expression(left, binding);
        self.push(word);
        self.expression(right, binding + 1);
    }

    fn bounded(&mut self, left: &Expr<'_>, filter: &str, right: &Expr<'_>) {
        self.expression(left, binding::FILTER);
        self.push(filter);
        self.expression(right, binding::CONDITION);
        self.push(")");
    }

    fn comparison(&mut self, left: &Expr<'_>, word: &str, right: &Expr<'_>) {
        self.compared(left, right);
        self.push(word);
        self.compared(right, left);
    }

    fn constant(&mut self, value: &Value) {
        match (value.kind(), value.as_str()) {
            (_, Some(text)) => self.string(text),
            (ValueKind::Bool, _) => self.push(if value.is_true() { "true" } else { "false" }),
            (ValueKind::None, _) => self.push("none"),
            // A number too large for what holds it; nothing else that the parser reads has no digits.
            _ if f64::try_from(value.clone()).is_ok_and(f64::is_infinite) => self.push("1e999"),
            _ => {
                let _ = write!(self.text, "{value}");
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                // A line feed as it is would move the lines behind it.
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }
}

fn unsupported(tag: &str, span: Span) -> ChatError {
    ChatError::Syntax(format!("{{% {tag} %}} has no meaning in a prompt (in {TEMPLATE_NAME}:{})", span.start_line))
}

fn is_plain_constant(value: &Expr<'_>) -> bool {
    matches!(value, Expr::Const(_))
}

fn comparison(kind: CompareOpKind) -> &'static str {
    match kind {
        CompareOpKind::Eq => " == ",
        CompareOpKind::Ne => " != ",
        CompareOpKind::Lt => " < ",
        CompareOpKind::Lte => " <= ",
        CompareOpKind::Gt => " > ",
        CompareOpKind::Gte => " >= ",
        CompareOpKind::In => " in ",
        CompareOpKind::NotIn => " not in ",
    }
}

/// How tightly an expression binds as it is written here.
fn binding_of(value: &Expr<'_>) -> u8 {
    match value {
        Expr::IfExpr(_) => binding::CONDITION,
        Expr::BinOp(operation) => match operation.op {
            BinOpKind::ScOr => binding::OR,
            BinOpKind::ScAnd => binding::AND,
            BinOpKind::Sub => binding::SUM,
            BinOpKind::Div | BinOpKind::FloorDiv | BinOpKind::Rem => binding::PRODUCT,
            BinOpKind::Pow => binding::POWER,
            BinOpKind::Add | BinOpKind::Mul | BinOpKind::Concat => binding::FILTER,
            BinOpKind::Eq
            | BinOpKind::Ne
            | BinOpKind::Lt
            | BinOpKind::Lte
            | BinOpKind::Gt
            | BinOpKind::Gte
            | BinOpKind::In => binding::COMPARE,
        },
        Expr::Compare(_) => binding::COMPARE,
        Expr::UnaryOp(operation) => match operation.op {
            UnaryOpKind::Not => binding::NOT,
            UnaryOpKind::Neg => binding::NEGATION,
        },
        Expr::Filter(_) | Expr::Test(_) | Expr::Slice(_) => binding::FILTER,
        Expr::GetAttr(_) | Expr::GetItem(_) | Expr::Call(_) => binding::POSTFIX,
        Expr::Var(_) | Expr::Const(_) | Expr::List(_) | Expr::Map(_) => binding::PRIMARY,
    }
}
