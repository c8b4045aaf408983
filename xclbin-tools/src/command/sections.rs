//! Sections in files of their own: `KIND[INDEX]:FORMAT:FILE`.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use xclbin_tools::{
    axlf::{Format, Kind, Section},
    section::{self, AiePartition, Name, json::Tree},
};

use super::{
    exit::{input, usage},
    files,
};

/// What an option says about such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SectionFile {
    /// Empty where the file holds several sections.
    pub(crate) kind: String,
    /// The text in brackets behind the kind: the name of an AIE_PARTITION.
    pub(crate) index: String,
    /// `RAW` or `JSON`.
    pub(crate) format: Format,
    pub(crate) file: PathBuf,
}

impl SectionFile {
    /// Reads an option's value; a colon after the second is part of the file's name.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(text: &str) -> Result<SectionFile, String> {
        let wrong = |why: &str| format!("{text:?}: {why}: KIND:FORMAT:FILE is expected");
        let mut parts = text.splitn(3, ':');
        let (Some(kind), Some(format), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(wrong("too few parts"));
        };
        let format = Format::from_name(format).filter(|format| matches!(format, Format::Raw | Format::Json));
        let format = format.ok_or_else(|| wrong("the format is neither RAW nor JSON"))?;
        if kind.is_empty() && format != Format::Json {
            return Err(wrong("without a kind the format is JSON"));
        }
        if kind.contains('-') {
            return Err(wrong("parts of sections are not supported"));
        }
        if file.is_empty() {
            return Err(wrong("the file has no name"));
        }
        let (kind, index) = split_index(kind).ok_or_else(|| wrong("the index is not closed"))?;
        Ok(SectionFile { kind: kind.to_owned(), index: index.to_owned(), format, file: file.into() })
    }

    /// The kind of that name.
    ///
    /// # Errors
    /// A name that is none, an index for a kind without.
    pub(crate) fn kind(&self) -> anyhow::Result<Kind> {
        kind(&self.kind, &self.index)
    }
}

/// The kind of a name, with an index only where the kind has some.
///
/// # Errors
/// A name that is none, an index for a kind without.
pub(crate) fn kind(name: &str, index: &str) -> anyhow::Result<Kind> {
    let names = || Kind::all().filter_map(Kind::name).collect::<Vec<_>>().join(", ");
    let kind = Kind::from_name(name).ok_or_else(|| usage(format!("no section {name:?}: there are {}", names())))?;
    if !index.is_empty() && kind != Kind::AIE_PARTITION {
        return Err(usage(format!("{name}[{index}]: AIE_PARTITION alone may have an index")));
    }
    Ok(kind)
}

/// `KIND[INDEX]` in its parts; the index is empty where there is none.
pub(crate) fn split_index(text: &str) -> Option<(&str, &str)> {
    match text.split_once('[') {
        None => Some((text, "")),
        Some((kind, index)) => index.strip_suffix(']').map(|index| (kind, index)),
    }
}

/// Reads the section that a file holds.
///
/// # Errors
/// A file that cannot be read, a format that the kind does not take, what contradicts the kind.
pub(crate) fn read(from: &SectionFile) -> anyhow::Result<Section<'static>> {
    let (kind, path) = (from.kind()?, from.file.as_path());
    if !kind.takes().contains(&from.format) {
        let name_of = |format: &Format| format!("{format:?}").to_uppercase();
        let formats: Vec<String> = kind.takes().iter().map(name_of).collect();
        let formats = if formats.is_empty() { "no format".to_owned() } else { formats.join(" and ") };
        return Err(usage(format!("{kind} is given as {formats}, not as {}", name_of(&from.format))));
    }
    let refused = || usage(format!("{kind} is of no NPU package and not made from JSON here: use XRT's xclbinutil"));
    let bytes = match from.format {
        Format::Raw => files::read(path)?,
        _ if kind == Kind::AIE_PARTITION => {
            AiePartition::from_json(&json(path)?, &from.index, |file| image(path, file))?.to_bytes()?
        }
        _ => {
            let made = section::from_json(kind, &json(path)?);
            made.map_err(|error| input(format!("{}: {error}", path.display())))?.ok_or_else(refused)?
        }
    };
    Ok(Section { kind, name: name(path), bytes: Cow::Owned(bytes) })
}

/// The JSON in a file.
///
/// # Errors
/// A file that cannot be read or is no JSON.
pub(crate) fn json(path: &Path) -> anyhow::Result<Tree> {
    let text = files::read_text(path)?;
    Tree::parse(&text).map_err(|error| input(format!("{}: {error}", path.display())))
}

/// A file that a JSON file names, from that one's folder.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn image(json: &Path, file: &str) -> anyhow::Result<Cow<'static, [u8]>> {
    files::read(&json.with_file_name("").join(file)).map(Cow::Owned)
}

/// The name of the section from a file: the file's, without extension and cut to 15 bytes.
pub(crate) fn name(path: &Path) -> Name<16> {
    Name::cut(path.file_stem().unwrap_or_default().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_an_option_says() {
        let check = |text: &str, kind: &str, index: &str, format, file: &str| {
            let expected = SectionFile { kind: kind.to_owned(), index: index.to_owned(), format, file: file.into() };
            assert_eq!(SectionFile::parse(text).unwrap(), expected);
        };
        check("MEM_TOPOLOGY:JSON:m.json", "MEM_TOPOLOGY", "", Format::Json, "m.json");
        check("AIE_PARTITION[a]:json:b:c", "AIE_PARTITION", "a", Format::Json, "b:c");
        check(":JSON:all", "", "", Format::Json, "all");
    }

    #[test]
    fn says_what_is_wrong_with_an_option() {
        let check = |text: &str, expected: &str| {
            let error = SectionFile::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("A:B", "too few parts");
        check("A:HTML:x", "neither RAW nor JSON");
        check(":RAW:x", "without a kind");
        check("A[b:RAW:x", "not closed");
        check("BMC-FW:RAW:x", "parts of sections");
        check("A:RAW:", "no name");
        assert!(kind("NOTHING", "").is_err());
        assert!(kind("IP_LAYOUT", "x").is_err());
        assert_eq!(kind("AIE_PARTITION", "x").unwrap(), Kind::AIE_PARTITION);
    }
}
