//! Any template over any messages: text or a typed error, nothing else.
//!
//! The input is the template and the messages, parted by byte 0xff; a message is its role and its
//! content, parted by byte 1.

use biga::load::chat::{ChatTemplate, Message, RenderOptions};

/// Parses a template and renders the messages with it.
pub(crate) fn check(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0xff).map(|part| String::from_utf8_lossy(part).into_owned());
    let Some(source) = parts.next() else { return };
    let messages: Vec<Message> = parts
        .map(|part| match part.split_once('\u{1}') {
            Some((role, content)) => Message::new(role, content),
            None => Message::new("user", part),
        })
        .collect();
    let _ = ChatTemplate::from_tokenizer_config(source.as_bytes());
    let Ok(template) = ChatTemplate::new(&source) else { return };
    let size: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
    for add_generation_prompt in [false, true] {
        let options = RenderOptions { add_generation_prompt, bos: "<s>", eos: "</s>" };
        if let Ok(text) = template.render(&messages, options) {
            assert!(text.len() <= (1 << 20) + 8 * size, "the text is in proportion");
        }
    }
}
