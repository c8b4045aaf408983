//! The command `xclbin` as its users run it: files, streams, exit codes.

mod diff;
mod draw;
mod hostile;
mod inspect;
mod package;
mod pdi;
mod stream;
mod verify;

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// What a run left.
struct Run {
    code: i32,
    out: Vec<u8>,
    notes: String,
}

/// Runs `xclbin` in a folder with a standard input.
fn run_with(folder: &Path, args: &[&str], input: &[u8]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xclbin"));
    command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("xclbin starts");
    // A command that needs no input may have left.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    let output = child.wait_with_output().expect("xclbin ends");
    let code = output.status.code().expect("xclbin ends by itself");
    Run { code, out: output.stdout, notes: String::from_utf8(output.stderr).expect("notes are text") }
}

/// As [`run_with`], with no input.
fn run(folder: &Path, args: &[&str]) -> Run {
    run_with(folder, args, &[])
}

/// Runs what must succeed, and returns its standard output.
fn done(folder: &Path, args: &[&str]) -> Vec<u8> {
    let run = run(folder, args);
    assert_eq!(run.code, 0, "{args:?}: {}", run.notes);
    run.out
}

/// Runs what must end with an exit code and words about it.
fn fails(folder: &Path, args: &[&str], code: i32, words: &str) {
    let run = run(folder, args);
    assert_eq!(run.code, code, "{args:?}: {}", run.notes);
    assert!(run.notes.contains(words), "{args:?}: {}", run.notes);
}
