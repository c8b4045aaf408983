//! Makes a CDO of commands.

use super::{
    Checksum, IDENTIFICATION, VERSION,
    command::Command,
    stream::{Form, put_command},
};
use crate::bytes::Writer;

/// A CDO that grows at its end.
#[derive(Clone, Debug)]
pub struct Builder {
    commands: Writer,
    version: u32,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// No commands, [`VERSION`].
    #[must_use]
    pub fn new() -> Builder {
        Builder { commands: Writer::new(), version: VERSION }
    }

    /// Another version.
    pub(super) fn set_version(&mut self, version: u32) {
        self.version = version;
    }

    /// Appends a command in its usual form.
    pub fn push(&mut self, command: &Command<'_>) {
        self.push_as(Form::default(), command);
    }

    /// Appends a command in a form of its own.
    pub fn push_as(&mut self, form: Form, command: &Command<'_>) {
        put_command(&mut self.commands, form, command);
    }

    /// Words of commands so far.
    #[must_use]
    pub fn length_words(&self) -> u64 {
        self.commands.len() / 4
    }

    /// The CDO.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.finish_with(None)
    }

    /// The CDO, with a checksum that need not be right.
    pub(super) fn finish_with(self, checksum: Option<u32>) -> Vec<u8> {
        let length_words = u32::try_from(self.length_words()).unwrap_or(u32::MAX);
        let header = [4, IDENTIFICATION, self.version, length_words];
        let mut writer = Writer::new();
        for word in header {
            writer.u32(word);
        }
        writer.u32(checksum.unwrap_or_else(|| Checksum::of(&header)));
        writer.put(&self.commands.bytes);
        writer.bytes
    }
}
