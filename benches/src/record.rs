//! What was measured, one JSON object a line, each written as soon as it is known: a run that is killed
//! loses nothing, and the next one on the same machine with the same engines goes on after it.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    engines::{Name, Sample},
    machine::{Device, Machine},
    model::Facts,
    output::note,
    test::Test,
};

/// Of the lines' shape.
pub(crate) const VERSION: u32 = 1;

const MAX_BYTES: u64 = 256 << 20;

/// What must be the same for figures to be comparable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) version: u32,
    /// A digest of the rest, as far as it tells machines and engines apart.
    pub(crate) id: String,
    pub(crate) machine: Machine,
    pub(crate) device: Device,
    pub(crate) engines: Vec<EngineFacts>,
    /// CPU threads of both engines; their own defaults if absent.
    pub(crate) threads: Option<usize>,
}

/// An engine's version, or why it does not take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EngineFacts {
    pub(crate) name: Name,
    pub(crate) identity: Option<String>,
    pub(crate) unavailable: Option<String>,
}

impl Session {
    /// With its digest.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub(crate) fn new(
        machine: Machine,
        device: Device,
        engines: Vec<EngineFacts>,
        threads: Option<usize>,
    ) -> Result<Session> {
        // Memory is left out: what is free of it changes while a machine runs.
        let same = (VERSION, &machine.cpu, machine.threads, &machine.kernel, &device.identity, &engines, threads);
        let digest = Sha256::digest(serde_json::to_string(&same)?);
        let id = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Session { version: VERSION, id, machine, device, engines, threads })
    }
}

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Line {
    Session(Session),
    /// Read bandwidth by our own probe, once for every start of a run.
    Bandwidth {
        session: String,
        read_bytes_per_s: Option<f64>,
        unavailable: Option<String>,
    },
    Model {
        session: String,
        #[serde(flatten)]
        facts: Facts,
    },
    Sample {
        session: String,
        model: String,
        engine: Name,
        round: usize,
        #[serde(flatten)]
        sample: Sample,
    },
    Failure {
        session: String,
        model: String,
        engine: Name,
        tests: Vec<Test>,
        reason: String,
    },
}

/// A file of lines.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    lines: Vec<Line>,
}

impl Log {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// If it cannot be read or written, or a line other than the last is no result.
    pub(crate) fn open(path: &Path) -> Result<Log> {
        let cannot = || format!("cannot use {}", path.display());
        let text = if path.exists() { read(path)? } else { String::new() };
        let lines = parse(&text).with_context(cannot)?;
        let file = OpenOptions::new().create(true).append(true).open(path).with_context(cannot)?;
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        if whole < text.len() {
            file.set_len(whole as u64).with_context(cannot)?;
        }
        Ok(Log { file, lines })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn append(&mut self, line: Line) -> Result<()> {
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).context("cannot write results")?;
        self.lines.push(line);
        Ok(())
    }

    /// Adds a line unless the very same one is there.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub(crate) fn append_once(&mut self, line: Line) -> Result<()> {
        if self.lines.contains(&line) { Ok(()) } else { self.append(line) }
    }

    /// Every line.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// True if a session has this sample.
    pub(crate) fn has(&self, wanted: &str, of: &str, by: Name, in_round: usize, test: Test) -> bool {
        self.lines.iter().any(|line| match line {
            Line::Sample { session, model, engine, round, sample } => {
                (session.as_str(), model.as_str(), *engine, *round, sample.test) == (wanted, of, by, in_round, test)
            }
            _ => false,
        })
    }
}

/// A file of lines, which are some hundred bytes each.
///
/// # Errors
/// If it cannot be read, is no text, or is longer than [`MAX_BYTES`].
pub(crate) fn read(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let n =
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)).with_context(cannot)?;
    if n as u64 > MAX_BYTES {
        bail!("{} is longer than {MAX_BYTES} bytes", path.display());
    }
    Ok(text)
}

/// The lines of a file. A killed run may have left half a line: a last one without its end is passed over.
///
/// # Errors
/// A whole line that is no result.
pub(crate) fn parse(text: &str) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let Some(line) = line.strip_suffix('\n') else {
            note(format_args!("line {} of the results is incomplete", index + 1));
            break;
        };
        if !line.trim().is_empty() {
            lines.push(serde_json::from_str(line).with_context(|| format!("line {}", index + 1))?);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::{EngineFacts, Line, Log, Session};
    use crate::{
        engines::{Name, Sample},
        machine::{Device, Machine},
    };

    fn session(identity: &str) -> Session {
        let engine = EngineFacts { name: Name::Biga, identity: Some(identity.to_owned()), unavailable: None };
        Session::new(Machine::here(), Device::for_tests("cpu", "cpu"), vec![engine], None).unwrap()
    }

    fn sample(session: &Session, round: usize) -> Line {
        let sample: Sample = serde_json::from_str(r#"{"test": "tg128@d8", "value": 5.5}"#).unwrap();
        Line::Sample { session: session.id.clone(), model: "m".to_owned(), engine: Name::Biga, round, sample }
    }

    #[test]
    fn another_build_is_another_session() {
        assert_eq!(session("one"), session("one"));
        assert_ne!(session("one").id, session("two").id);
    }

    #[test]
    fn lines_are_there_again_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let session = session("one");
        let mut log = Log::open(&path).unwrap();
        log.append_once(Line::Session(session.clone())).unwrap();
        log.append_once(Line::Session(session.clone())).unwrap();
        log.append(sample(&session, 0)).unwrap();
        // Killed in the middle of a line.
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{{\"kind\":\"sample\",\"sess")).unwrap();
        let mut again = Log::open(&path).unwrap();
        assert_eq!(again.lines(), log.lines());
        assert_eq!(again.lines().len(), 2);
        again.append(sample(&session, 1)).unwrap();
        let last = Log::open(&path).unwrap();
        let test = "tg128@d8".parse().unwrap();
        assert!(last.has(&session.id, "m", Name::Biga, 1, test));
        assert!(!last.has(&session.id, "m", Name::Llama, 1, test));
        assert!(!last.has("other", "m", Name::Biga, 1, test));
    }

    #[test]
    fn a_line_that_is_no_result_is_refused_with_its_number() {
        let words = format!("{:#}", super::parse("\n{\"kind\":\"dance\"}\n").unwrap_err());
        assert!(words.contains("line 2") && words.contains("dance"), "{words}");
    }
}
