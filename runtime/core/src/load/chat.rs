//! Chat templates: messages become the prompt that a model was trained on.
//!
//! Templates are programs from a file, so they run under limits: size of the template, of the
//! messages, of the text that comes out, of all that is made on the way, and a count of steps. A template
//! that is wrong or hostile is a [`ChatError`]. What templates may rely on is what Hugging Face gives them: Python's string and
//! list methods, `raise_exception`, `strftime_now`, `tojson`, loop controls.

mod bounded;
mod budget;
mod clock;
mod guard;
mod json;
mod rewrite;

use std::borrow::Cow;

use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};

use super::tokenizer::Tokenizer;
use guard::guarded;

/// Why a prompt cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// Something is larger than a template needs.
    #[error("chat template: {what}: {size} bytes, at most {most}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large.
        size: usize,
        /// The bound.
        most: usize,
    },
    /// The template does not parse.
    #[error("chat template: {0}")]
    Syntax(String),
    /// The template runs on after the steps it may take.
    #[error("chat template: still running after {0} steps")]
    OutOfSteps(u64),
    /// The template takes too long.
    #[error("chat template: still running after {0} s")]
    TooSlow(u64),
    /// The template refuses these messages (`raise_exception`).
    #[error("chat template refuses these messages: {0}")]
    Refused(String),
    /// The template fails.
    #[error("chat template fails: {0}")]
    Render(String),
    /// `tokenizer_config.json` holds no usable template.
    #[error("tokenizer_config.json: {0}")]
    Config(String),
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the model knows.
    pub role: String,
    /// The text.
    pub content: String,
}

impl Message {
    /// A message of a role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// What a template is told besides the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct RenderOptions<'o> {
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The name of the beginning mark.
    pub bos: &'o str,
    /// The name of the end mark.
    pub eos: &'o str,
}

/// Largest template; the largest known ones have some 30 KiB.
const TEMPLATE_BYTES_MAX: usize = 128 << 10;
/// Largest sum of all messages.
const MESSAGES_BYTES_MAX: usize = 64 << 20;
/// Steps that every template may take, and steps more for each message.
const STEPS_MAX: u64 = 300_000;
const STEPS_PER_MESSAGE: u64 = 8_000;
/// Text and lists that every template may make in one render, in total and not at a time, and how many
/// times the messages more: each of them may be trimmed, split, joined and escaped on its way out.
const MADE_BYTES_MAX: usize = 64 << 20;
const MADE_TIMES_MESSAGES: usize = 32;
const TEMPLATE_NAME: &str = "chat";
/// A template, parsed.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Parses a template: GGUF's `tokenizer.chat_template`, or the text of `chat_template.jinja`.
    ///
    /// # Errors
    /// A template that does not parse, is larger than 128 KiB, or uses other templates.
    pub fn new(source: &str) -> Result<ChatTemplate, ChatError> {
        if source.len() > TEMPLATE_BYTES_MAX {
            let what = "template";
            return Err(ChatError::TooLarge { what, size: source.len(), most: TEMPLATE_BYTES_MAX });
        }
        let mut environment = Environment::new();
        environment.set_debug(false);
        bounded::install(&mut environment);
        // The engine says that nothing can be iterated over, too; Python does not.
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_filter("tojson", json::to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| {
            // The longest field is a weekday's name.
            budget::charge_times(format.len(), 8).map(|()| clock::format_now(format))
        });
        let source = without_generation_tags(source);
        guarded(move || {
            let source = rewrite::rewrite(&source)?;
            environment
                .add_template_owned(TEMPLATE_NAME, source)
                .map_err(|error| ChatError::Syntax(error.to_string()))?;
            Ok(ChatTemplate { environment })
        })
    }

    /// The template of a `tokenizer_config.json`: one string, or a list of named ones of which
    /// `default` counts. None if the file has none.
    ///
    /// # Errors
    /// JSON that is none, or a template that does not parse.
    pub fn from_tokenizer_config(config: &[u8]) -> Result<Option<ChatTemplate>, ChatError> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            chat_template: Option<Templates>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Templates {
            One(String),
            Named(Vec<Named>),
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
            template: String,
        }
        let config: Config = serde_json::from_slice(config).map_err(|error| ChatError::Config(error.to_string()))?;
        let source = match config.chat_template {
            None => return Ok(None),
            Some(Templates::One(source)) => source,
            Some(Templates::Named(all)) => match all.into_iter().find(|named| named.name == "default") {
                Some(named) => named.template,
                None => return Err(ChatError::Config("no chat template is named \"default\"".to_owned())),
            },
        };
        ChatTemplate::new(&source).map(Some)
    }

    /// The prompt for these messages and the assistant's answer, with the marks of a tokenizer.
    ///
    /// # Errors
    /// See [`ChatTemplate::render`].
    pub fn prompt(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<String, ChatError> {
        let name = |id: Option<u32>| id.map_or(Cow::Borrowed(""), |id| tokenizer.token_text(id));
        let (bos, eos) = (name(tokenizer.bos()), name(tokenizer.eos_ids().first().copied()));
        self.render(messages, RenderOptions { add_generation_prompt: true, bos: &bos, eos: &eos })
    }

    /// The prompt for these messages.
    ///
    /// # Errors
    /// A template that fails, refuses the messages, or goes beyond its limits.
    pub fn render(&self, messages: &[Message], options: RenderOptions<'_>) -> Result<String, ChatError> {
        let size = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        if size > MESSAGES_BYTES_MAX {
            return Err(ChatError::TooLarge { what: "messages", size, most: MESSAGES_BYTES_MAX });
        }
        let steps = STEPS_MAX + STEPS_PER_MESSAGE * messages.len() as u64;
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        let values = context! {
            messages,
            add_generation_prompt => options.add_generation_prompt,
            bos_token => options.bos,
            eos_token => options.eos,
            tools => (),
            documents => (),
        };
        // The template's own text may come once per message, in each of some branches.
        let most = TEMPLATE_BYTES_MAX + 8 * size;
        let made_most = MADE_BYTES_MAX + MADE_TIMES_MESSAGES * size;
        guarded(move || {
            budget::open(made_most);
            let mut out = Bounded { text: Vec::new(), most };
            // Whatever the engine made is dropped in here too, on the deep stack.
            let rendered = environment
                .get_template(TEMPLATE_NAME)
                .and_then(|template| template.render_captured_to(values, &mut out).map(drop));
            match rendered {
                Ok(()) => String::from_utf8(out.text).map_err(|error| ChatError::Render(error.to_string())),
                Err(_) if budget::is_spent() => {
                    Err(ChatError::TooLarge { what: "what the template makes", size: made_most, most: made_most })
                }
                Err(error) => Err(error_of(&error, steps, most)),
            }
        })
    }
}

fn error_of(error: &minijinja::Error, steps: u64, most: usize) -> ChatError {
    match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => ChatError::OutOfSteps(steps),
        (ErrorKind::WriteFailure, _) => ChatError::TooLarge { what: "prompt", size: most, most },
        (ErrorKind::InvalidOperation, Some(detail)) if detail.starts_with(REFUSAL) => {
            ChatError::Refused(detail.get(REFUSAL.len()..).unwrap_or("").to_owned())
        }
        _ => ChatError::Render(error.to_string()),
    }
}

/// Marks an error as the template's own wish.
const REFUSAL: &str = "raise_exception: ";

fn raise_exception(message: &Value) -> Result<Value, minijinja::Error> {
    let message = budget::text_of(format_args!("{message}"))?;
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, format!("{REFUSAL}{message}")))
}

/// Collects text up to a bound.
struct Bounded {
    text: Vec<u8>,
    most: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.text.len().saturating_add(bytes.len()) > self.most {
            return Err(std::io::Error::other("the prompt is too large"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `{% generation %}` marks the assistant's text for training; for prompts it means nothing, but the
/// engine does not know the word. It becomes a condition that always holds.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        let Some(end) = tag.find("%}").map(|end| end + 2) else {
            rest = tag;
            break;
        };
        let (tag, behind) = tag.split_at(end);
        let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
        match inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => text.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endif")),
            _ => text.push_str(tag),
        }
        rest = behind;
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests;
