//! Starting an engine's process: with a time limit, its output kept, the first byte timed.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

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

/// How long a process that was killed, or its output after its end, may take to go. One that hangs in a GPU's
/// driver may never go, and a process that it started itself may keep its output open.
const GRACE: Duration = Duration::from_secs(5);

/// Runs a command to its end; `None` if it was stopped because `limit` was over. Returns soon after the limit
/// whatever the process does.
///
/// # Errors
/// If it cannot be started or read from, or cannot be stopped.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Option<Output>> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let stdout = child.stdout.take().map(|pipe| reading(pipe, start));
    let stderr = child.stderr.take().map(|pipe| reading(pipe, start));
    let Some(status) = wait(&mut child, start + limit)? else {
        child.kill()?;
        return match wait(&mut child, Instant::now() + GRACE)? {
            Some(_) => Ok(None),
            None => bail!("process {} took longer than {} s and cannot be ended", child.id(), limit.as_secs_f64()),
        };
    };
    let ((stdout, first_byte), (stderr, _)) = (rest(stdout)?, rest(stderr)?);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Some(Output { status, stdout: text(stdout), stderr: text(stderr), first_byte }))
}

/// What was read, and when its first byte came.
type Timed = io::Result<(Vec<u8>, Option<Duration>)>;

/// Reads on a thread, which nobody waits for once time is over.
fn reading(pipe: impl Read + Send + 'static, start: Instant) -> mpsc::Receiver<Timed> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(read_timed(pipe, start)));
    receiver
}

/// What a process that is gone has left.
fn rest(reading: Option<mpsc::Receiver<Timed>>) -> Result<(Vec<u8>, Option<Duration>)> {
    let Some(reading) = reading else { return Ok((Vec::new(), None)) };
    let read = reading.recv_timeout(GRACE).map_err(|_| anyhow!("the process has ended, its output has not"))?;
    Ok(read?)
}

/// The status, or `None` if there is none by then.
fn wait(child: &mut Child, until: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        // Seldom, for a process that is being timed.
        thread::sleep(Duration::from_millis(20));
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
    use super::{last_lines, run};
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
        // One that it started keeps the output open.
        let ended = run(&mut shell("sleep 600; echo done"), Duration::from_millis(100)).unwrap();
        assert!(ended.is_none());
        let words = run(&mut shell("sleep 600 & echo done"), LONG).unwrap_err().to_string();
        assert!(words.contains("output"), "{words}");
        assert!(start.elapsed() < LONG, "it was waited for");
    }

    #[test]
    fn the_end_of_a_text_is_one_line() {
        assert_eq!(last_lines("a\n\nb\nc\n", 2), "b / c");
        assert_eq!(last_lines("a\nb\nb\nb\n", 2), "a / b");
        assert_eq!(last_lines("", 2), "");
    }
}
