//! The text of [`mod@super::dump`] as bytes. The grammar stands there.

use super::{
    VERSION_END, VERSION_MIN,
    build::Builder,
    command::{Command, addresses_of_id, fields_of_id, id_of, is_typed, known, usage_of},
    scan::{Line, Token},
    stream::Form,
};
use crate::error::Result;
use crate::words::Words;

/// The CDO that a text describes.
///
/// # Errors
/// [`crate::Error::Text`]: an unknown name, a number that is none or too large, too few or too many operands, commands
/// behind the padding.
pub fn assemble(text: &str) -> Result<Vec<u8>> {
    let mut assembler = Assembler::new();
    for (index, line) in text.lines().enumerate() {
        assembler.line(&mut Line::new(line, index.saturating_add(1)))?;
    }
    assembler.finish()
}

struct Assembler {
    builder: Builder,
    checksum: Option<u32>,
    open: Open,
    trailing: Vec<u8>,
}

/// What the next line of numbers goes on with.
enum Open {
    Nothing,
    Command(Pending),
    Padding,
    Bytes,
}

/// A command whose words may go on in the next line.
struct Pending {
    /// Its name, for errors.
    name: Token,
    id: u16,
    form: Form,
    /// It was written as `command`, so that its words need not fit its type.
    is_raw: bool,
    payload: Vec<u8>,
}

impl Assembler {
    fn new() -> Assembler {
        Assembler { builder: Builder::new(), checksum: None, open: Open::Nothing, trailing: Vec::new() }
    }

    fn line(&mut self, line: &mut Line<'_>) -> Result<()> {
        let Some(first) = line.next()? else { return Ok(()) };
        if first.is_number() {
            return self.numbers(&first, line);
        }
        self.close()?;
        if first.text.starts_with('.') {
            return self.directive(&first, line);
        }
        if !self.trailing.is_empty() {
            return Err(first.error("commands stand before `.padding` and `.bytes`"));
        }
        self.open = Open::Command(Pending::read(first, line)?);
        Ok(())
    }

    /// Words, or bytes, of what is open.
    fn numbers(&mut self, first: &Token, line: &mut Line<'_>) -> Result<()> {
        let mut next = Some(first.clone());
        while let Some(token) = next {
            match &mut self.open {
                Open::Nothing => return Err(token.error("a line of words follows a command; this one follows none")),
                Open::Command(pending) => pending.payload.extend(token.u32()?.to_le_bytes()),
                Open::Padding => self.trailing.extend(token.u32()?.to_le_bytes()),
                Open::Bytes => self.trailing.push(token.u8()?),
            }
            next = line.next()?;
        }
        Ok(())
    }

    fn directive(&mut self, name: &Token, line: &mut Line<'_>) -> Result<()> {
        match name.text.as_str() {
            ".version" => {
                let version = line.expect("the version: 0x200 mostly")?;
                let value = version.u32()?;
                if !(VERSION_MIN..VERSION_END).contains(&value) {
                    return Err(version.error("versions 0x132 to 0x2ff have this layout"));
                }
                self.builder.set_version(value);
                line.end()
            }
            ".checksum" => {
                self.checksum = Some(line.expect("the checksum")?.u32()?);
                line.end()
            }
            ".padding" if self.trailing.len().is_multiple_of(4) => self.open_with(Open::Padding, line),
            ".padding" => Err(name.error("`.padding` stands before `.bytes`")),
            ".bytes" => self.open_with(Open::Bytes, line),
            _ => Err(name.error("`.version`, `.checksum`, `.padding` and `.bytes` are known")),
        }
    }

    fn open_with(&mut self, open: Open, line: &mut Line<'_>) -> Result<()> {
        self.open = open;
        match line.next()? {
            Some(first) => self.numbers(&first, line),
            None => Ok(()),
        }
    }

    /// Appends the command that is open.
    fn close(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Command(pending) => pending.push(&mut self.builder),
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.close()?;
        let mut bytes = self.builder.finish_with(self.checksum);
        bytes.extend(self.trailing);
        Ok(bytes)
    }
}

impl Pending {
    /// A command's name, its addresses, and the words beside them.
    fn read(name: Token, line: &mut Line<'_>) -> Result<Pending> {
        let mut parts = name.text.split('.');
        let mnemonic = parts.next().unwrap_or_default();
        let is_raw = mnemonic == "command";
        let form = form_of(&name, parts)?;
        let id = if is_raw {
            line.expect("the command's id")?.u16()?
        } else {
            id_of(mnemonic).ok_or_else(|| {
                let known = known().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
                name.error(format!("no command has this name: there are {known}; `command ID` takes any id"))
            })?
        };
        let mut pending = Pending { id, form, is_raw, payload: Vec::new(), name };
        let addresses = if is_raw { &[][..] } else { addresses_of_id(id) };
        for is_wide in addresses {
            let address = line.expect(&usage_of(id))?.address(*is_wide)?;
            let low = (address & u64::from(u32::MAX)) as u32;
            if *is_wide {
                pending.payload.extend(((address >> 32) as u32).to_le_bytes());
            }
            pending.payload.extend(low.to_le_bytes());
        }
        let mut fields = if is_raw { &[][..] } else { fields_of_id(id) }.iter();
        while let Some(token) = line.next()? {
            let value = match (token.text.split_once('='), fields.next()) {
                (Some((name, value)), Some(field)) if name == *field => token.part(value),
                (None, None) => token,
                _ => return Err(token.error(usage_of(id))),
            };
            pending.payload.extend(value.u32()?.to_le_bytes());
        }
        Ok(pending)
    }

    fn push(self, builder: &mut Builder) -> Result<()> {
        let payload = Words::new(&self.payload);
        let is_misfit = matches!(Command::new(self.id, payload), Command::Other { .. }) && is_typed(self.id);
        if is_misfit && !self.is_raw {
            return Err(self.name.error(usage_of(self.id)));
        }
        if self.form.long && payload.len() >= 255 {
            return Err(self.name.error("`.long` is for fewer than 255 words: more always have a length of their own"));
        }
        builder.push_as(self.form, &Command::Other { id: self.id, payload });
        Ok(())
    }
}

/// The parts behind a name: `.long`, `.reserved=0x12`.
fn form_of<'a>(name: &Token, parts: impl Iterator<Item = &'a str>) -> Result<Form> {
    let mut form = Form::default();
    for part in parts {
        match part.split_once('=') {
            None if part == "long" => form.long = true,
            Some(("reserved", value)) => form.reserved = name.part(value).u8()?,
            _ => return Err(name.part(part).error("`long` and `reserved=0x12` may stand behind a command's name")),
        }
    }
    Ok(form)
}

#[cfg(test)]
mod tests;
