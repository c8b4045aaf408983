//! Starting other programs, with errors that show the command line.

use std::{
    env,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// The command line as a user would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        if argument.is_empty() || argument.contains(char::is_whitespace) {
            line.push_str(&format!(" {argument:?}"));
        } else {
            line.push_str(&format!(" {argument}"));
        }
    }
    line
}

/// Runs a command whose output the user sees.
///
/// # Errors
/// If it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// Runs a command quietly and returns what it wrote, whatever its exit status.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

/// Runs a command quietly and returns its standard output.
///
/// # Errors
/// If it cannot be started or fails; the error carries the end of its standard error.
pub(crate) fn stdout_of(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", shown(command), output.status, last_lines(&output.stderr, 20));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command, handing each line of its standard output to `each`; standard error goes through.
/// Returns whether it succeeded.
///
/// # Errors
/// If it cannot be started or read from.
pub(crate) fn each_line(command: &mut Command, mut each: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if let Some(pipe) = child.stdout.take() {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            each(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']));
            line.clear();
        }
    }
    Ok(child.wait()?.success())
}

/// Runs a command with everything it writes going to a log file, under a spinner.
///
/// # Errors
/// If it cannot be started or fails; the error carries the end of the log.
pub(crate) fn logged(command: &mut Command, what: &str, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    eprintln!("{what} (log: {})", log.display());
    let spinner = indicatif::ProgressBar::new_spinner().with_message(what.to_owned());
    spinner.enable_steady_tick(std::time::Duration::from_millis(200));
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    spinner.finish_and_clear();
    if !status.success() {
        let tail = last_lines(&std::fs::read(log).unwrap_or_default(), 20);
        bail!("`{}` failed: {status}; the end of {}:\n{tail}", shown(command), log.display());
    }
    Ok(())
}

/// The program `name`, if a folder of PATH or one of the usual folders for administrators has it.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// The last `count` lines of some program's output.
pub(crate) fn last_lines(bytes: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{each_line, last_lines, shown};

    #[test]
    fn a_shown_command_quotes_what_needs_it() {
        assert_eq!(shown(Command::new("a").args(["b", "c d", ""])), "a b \"c d\" \"\"");
    }

    #[test]
    fn lines_arrive_and_failure_is_seen() {
        let mut lines = Vec::new();
        let ok = each_line(Command::new("sh").args(["-c", "echo one; echo two; exit 3"]), |l| lines.push(l.to_owned()));
        assert!(!ok.unwrap());
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines(b"", 2), "");
    }
}
