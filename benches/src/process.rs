//! Starting an engine's process: with a time limit, its output kept, the first byte timed.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// Where programs find their libraries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Libraries {
    loader: Option<PathBuf>,
    folders: Vec<PathBuf>,
    /// llama.cpp looks for its backends in the current folder, among others.
    backends: Option<PathBuf>,
    programs: Vec<PathBuf>,
}

impl Libraries {
    /// Of Debian roots, whose dynamic loader (the first one's) then runs every program, and of plain
    /// folders. With neither, programs run as the system runs them.
    ///
    /// # Errors
    /// If a folder is not there.
    pub(crate) fn of(places: &[PathBuf]) -> Result<Libraries> {
        let mut libraries = Libraries::default();
        for place in places {
            let place = std::path::absolute(place)?;
            if !place.is_dir() {
                bail!("no folder {}", place.display());
            }
            let folder = place.join("usr/lib/x86_64-linux-gnu");
            if !folder.is_dir() {
                libraries.folders.push(place);
                continue;
            }
            let loader = place.join("usr/lib64/ld-linux-x86-64.so.2");
            libraries.loader = libraries.loader.or(loader.is_file().then_some(loader));
            libraries.backends = libraries.backends.or_else(|| backends(&folder.join("ggml")));
            libraries.programs.push(place.join("usr/bin"));
            let own = folder.join("llama");
            libraries.folders.push(folder);
            libraries.folders.extend(own.is_dir().then_some(own));
        }
        Ok(libraries)
    }

    /// A program of this name: in a root, in one of `folders`, or on PATH.
    pub(crate) fn find(&self, name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = folders.iter().chain(&self.programs).cloned().chain(std::env::split_paths(&path));
        places.map(|folder| folder.join(name)).find(|program| program.is_file())
    }

    /// A command that runs the program on these libraries.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let joined = self.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
        let mut command = match &self.loader {
            Some(loader) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(joined).arg(program);
                command
            }
            None => {
                let mut command = Command::new(program);
                if !joined.is_empty() {
                    command.env("LD_LIBRARY_PATH", joined);
                }
                command
            }
        };
        if let Some(folder) = &self.backends {
            command.current_dir(folder);
        }
        command
    }
}

/// The folder of llama.cpp's backends; its name carries the version of their interface.
fn backends(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).max()
}

/// No engine has more to say.
const MAX_OUTPUT_BYTES: u64 = 64 << 20;

/// What a process did.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From its start to the first byte on standard output.
    pub(crate) first_byte: Option<Duration>,
}

impl Output {
    /// Standard output of a process that succeeded.
    ///
    /// # Errors
    /// With the end of what it wrote to standard error, for one that did not.
    pub(crate) fn success(self) -> Result<Output> {
        if self.status.success() {
            return Ok(self);
        }
        bail!("{}: {}", self.status, last_lines(&self.stderr, 6));
    }
}

/// Runs a command to its end; `None` if it was stopped because `limit` was over.
///
/// # Errors
/// If it cannot be started or read from.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Option<Output>> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let (ended, end) = mpsc::channel();
    let stdout = child.stdout.take().map(|pipe| {
        thread::spawn(move || {
            let read = read_timed(pipe, start);
            // The receiver is gone once the limit is over.
            let _ = ended.send(());
            read
        })
    });
    let stderr = child.stderr.take().map(|pipe| thread::spawn(move || read_timed(pipe, start)));
    // Standard output ends with the process, or shortly before it.
    let _ = end.recv_timeout(limit);
    let status = wait(&mut child, start + limit)?;
    let ((stdout, first_byte), (stderr, _)) = (collect(stdout)?, collect(stderr)?);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let output = |status| Output { status, stdout: text(stdout), stderr: text(stderr), first_byte };
    Ok(status.map(output))
}

/// What was read, and when its first byte came.
type Timed = io::Result<(Vec<u8>, Option<Duration>)>;

fn collect(thread: Option<thread::JoinHandle<Timed>>) -> Timed {
    match thread {
        Some(thread) => thread.join().unwrap_or_else(|_| Err(io::Error::other("a reading thread panicked"))),
        None => Ok((Vec::new(), None)),
    }
}

/// The status, or `None` after having ended it because time is over.
fn wait(child: &mut Child, until: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn read_timed(mut pipe: impl Read, start: Instant) -> Timed {
    let mut bytes = Vec::new();
    let mut first = [0];
    if pipe.read(&mut first)? == 0 {
        return Ok((bytes, None));
    }
    let after = start.elapsed();
    bytes.push(first[0]);
    pipe.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok((bytes, Some(after)))
}

/// The end of a text, in one line; what is said several times in a row is said once.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.dedup();
    lines[lines.len().saturating_sub(count)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::{Libraries, last_lines, run};
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_and_failure_are_told() {
        let output = run(&mut shell("echo one; echo two >&2"), LONG).unwrap().unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\n", "two\n"));
        assert!(output.first_byte.is_some());
        assert!(output.success().is_ok());
        let words = run(&mut shell("echo why >&2; exit 3"), LONG).unwrap().unwrap().success().unwrap_err().to_string();
        assert!(words.contains('3') && words.contains("why"), "{words}");
        assert!(run(&mut Command::new("/nonexistent"), LONG).is_err());
    }

    #[test]
    fn a_process_that_takes_too_long_is_ended() {
        let start = Instant::now();
        let ended = run(&mut shell("echo one; exec sleep 600"), Duration::from_millis(100)).unwrap();
        assert!(ended.is_none());
        assert!(start.elapsed() < LONG, "it was waited for");
    }

    #[test]
    fn roots_and_folders_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu/ggml/backends7")).unwrap();
        std::fs::create_dir_all(root.join("usr/lib64")).unwrap();
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::write(root.join("usr/lib64/ld-linux-x86-64.so.2"), "").unwrap();
        std::fs::write(root.join("usr/bin/engine"), "").unwrap();
        let plain = folder.path().join("plain");
        std::fs::create_dir(&plain).unwrap();
        let libraries = Libraries::of(&[root.clone(), plain.clone()]).unwrap();
        let program = libraries.find("engine", &[]).unwrap();
        let command = libraries.command(&program);
        assert!(command.get_program().to_string_lossy().ends_with("ld-linux-x86-64.so.2"));
        let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(words[1], format!("{}:{}", root.join("usr/lib/x86_64-linux-gnu").display(), plain.display()));
        assert!(command.get_current_dir().unwrap().ends_with("backends7"));
        assert!(Libraries::of(&[folder.path().join("none")]).is_err());
        assert_eq!(Libraries::default().command(&program).get_program(), program.as_os_str());
    }

    #[test]
    fn the_end_of_a_text_is_one_line() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b / c");
        assert_eq!(last_lines("a\nb\nb\nb\n", 2), "a / b");
        assert_eq!(last_lines("", 2), "");
    }
}
