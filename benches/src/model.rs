//! The files that are measured: real ones, and ones that are generated where they are missing.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use biga::{
    hal::DType,
    load::{LoadOptions, Model},
};
use serde::{Deserialize, Serialize};

use crate::{
    cost::Cost,
    generate,
    noise::{self, FORMATS},
    output::note,
    shape::Shape,
};

/// A model that is named on the command line: `llama-8b-q4_0`, or a path to a GGUF file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Synthetic { shape: Shape, dtype: DType },
    File(PathBuf),
}

/// Measured on a GPU if nothing is named: the cheap ones first.
pub(crate) const ON_GPU: [&str; 5] =
    ["smollm2-135m-q4_0", "llama-8b-q4_0", "llama-8b-q8_0", "gemma3-27b-q4_0", "llama-13b-q4_0"];
/// Measured on a CPU if nothing is named.
pub(crate) const ON_CPU: [&str; 1] = ["smollm2-135m-q4_0"];

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) model: String,
    /// Weights of noise: its speed says something, its text does not.
    pub(crate) synthetic: bool,
    pub(crate) file: String,
    pub(crate) size_bytes: u64,
    /// Tokens that the model was made for.
    pub(crate) context: usize,
    pub(crate) cost: Cost,
}

impl Source {
    /// What results are filed under.
    pub(crate) fn name(&self) -> String {
        match self {
            Source::Synthetic { shape, dtype } => format!("{shape}-{dtype}"),
            Source::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    /// Where the file is, or will be.
    pub(crate) fn path(&self, folder: &Path) -> PathBuf {
        match self {
            Source::Synthetic { .. } => folder.join(format!("{}.gguf", self.name())),
            Source::File(path) => path.clone(),
        }
    }

    /// Makes the file if it is missing. Where space is short, files of other shapes give way: they can be
    /// made again.
    ///
    /// # Errors
    /// A real file that is not there, too little space, a file that does not load.
    pub(crate) fn prepare(&self, folder: &Path, threads: usize) -> Result<Facts> {
        let path = self.path(folder);
        if let Source::Synthetic { shape, dtype } = self {
            let size_bytes = generate::size_bytes(shape, *dtype)?;
            if fs::metadata(&path).is_ok_and(|found| found.len() == size_bytes) {
                note(format_args!("{} is there", path.display()));
            } else {
                fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
                make_room(folder, size_bytes)?;
                note(format_args!("generating {}, {:.2} GB", path.display(), size_bytes as f64 / 1e9));
                generate::generate(shape, *dtype, &path, threads)?;
            }
        }
        let size_bytes = fs::metadata(&path).with_context(|| format!("no model {}", path.display()))?.len();
        let model = Model::load(&path, &LoadOptions::default(), &mut |_| {})
            .with_context(|| format!("cannot load {}", path.display()))?;
        Ok(Facts {
            model: self.name(),
            synthetic: matches!(self, Source::Synthetic { .. }),
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            size_bytes,
            context: model.config.max_context,
            cost: Cost::of(&model),
        })
    }
}

/// Removes generated files until there is room.
fn make_room(folder: &Path, size_bytes: u64) -> Result<()> {
    let generated = |path: &PathBuf| {
        let stem = path.file_stem().is_some_and(|stem| stem.to_string_lossy().parse::<Source>().is_ok());
        stem && path.extension().is_some_and(|extension| extension == "gguf")
    };
    while generate::free_bytes(folder)? < size_bytes {
        let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
        let Some(largest) =
            entries.filter(generated).max_by_key(|path| fs::metadata(path).map_or(0, |found| found.len()))
        else {
            return Ok(());
        };
        note(format_args!("removing {} to make room", largest.display()));
        fs::remove_file(&largest)?;
    }
    Ok(())
}

/// Reads a file once, so that it is in the page cache.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn warm(path: &Path) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bytes = vec![0; 4 << 20];
    while file.read(&mut bytes)? > 0 {}
    Ok(())
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Source> {
        if word.ends_with(".gguf") {
            return Ok(Source::File(std::path::absolute(word)?));
        }
        let Some((shape, format)) = word.rsplit_once('-') else {
            bail!("{word:?} is neither a .gguf file nor a shape with a format, such as {}", ON_GPU[1]);
        };
        Ok(Source::Synthetic { shape: shape.parse()?, dtype: format_of(format)? })
    }
}

/// A format that can be generated.
///
/// # Errors
/// For another one.
pub(crate) fn format_of(word: &str) -> Result<DType> {
    match FORMATS.into_iter().find(|(dtype, _)| dtype.name() == word) {
        Some((dtype, _)) => Ok(dtype),
        None => bail!("weights cannot be generated in {word}; there are {}", noise::format_names()),
    }
}

#[cfg(test)]
mod tests {
    use super::{ON_CPU, ON_GPU, Source, make_room, warm};

    #[test]
    fn names_are_shapes_with_formats_or_files() {
        for name in ON_GPU.into_iter().chain(ON_CPU).chain(["tiny-gemma3-f16"]) {
            assert_eq!(name.parse::<Source>().unwrap().name(), name);
        }
        let file = "a/real-one.gguf".parse::<Source>().unwrap();
        assert_eq!(file.name(), "real-one");
        assert!(matches!(file, Source::File(path) if path.is_absolute()));
        for (word, part) in [("llama", "llama"), ("llama-9b-q4_0", "llama-9b"), ("llama-8b-q3_k", "q3_k")] {
            let words = word.parse::<Source>().unwrap_err().to_string();
            assert!(words.contains(part), "{words}");
        }
    }

    #[test]
    fn a_generated_file_is_made_once_and_described() {
        let folder = tempfile::tempdir().unwrap();
        let source: Source = "tiny-gemma3-q4_0".parse().unwrap();
        let facts = source.prepare(folder.path(), 2).unwrap();
        let path = source.path(folder.path());
        let written = std::fs::metadata(&path).unwrap();
        assert_eq!((facts.size_bytes, facts.context, facts.synthetic), (written.len(), 16384, true));
        assert_eq!(facts, source.prepare(folder.path(), 2).unwrap());
        assert_eq!(written.modified().unwrap(), std::fs::metadata(&path).unwrap().modified().unwrap());
        // A file that a killed run left short is made anew.
        std::fs::write(&path, "GGUF").unwrap();
        assert_eq!(facts, source.prepare(folder.path(), 2).unwrap());
        warm(&path).unwrap();
        let real: Source = path.to_str().unwrap().parse().unwrap();
        assert!(!real.prepare(folder.path(), 1).unwrap().synthetic);
        assert!("/none/x.gguf".parse::<Source>().unwrap().prepare(folder.path(), 1).is_err());
    }

    #[test]
    fn only_generated_files_give_way() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["tiny-q4_0.gguf", "mine.gguf", "tiny-q8_0.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        make_room(folder.path(), u64::MAX).unwrap();
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!((left, folder.path().join("tiny-q4_0.gguf").exists()), (2, false));
    }
}
