//! The built command with stand-ins for both engines: scripts that answer in the engines' shapes and write
//! down when they were asked.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

const BIGA: &str = r#"#!/bin/sh
device='{"id":"cpu","name":"Some CPU","kind":"cpu","driver":"d","identity":"i","memory_bytes":9,
  "rates":{"measured":true,"read_bytes_per_s":1000000}}'
record='{"n_prompt":0,"n_gen":4,"n_depth":0,"batch":1,"samples_ts":[40],"type_k":"f16","host_us_per_token":5,
  "n_steps":4,"submissions":4,"objects_created":0,"allocations":0,"mappings":0}'
case $1 in
  --version) echo 'biga 9' ;;
  probe) echo "{\"devices\":[$device],\"unavailable\":[]}" ;;
  bench) echo biga >>"$CALLS"; [ -z "$HANGS" ] || sleep 600; echo "[$record]" ;;
  run) echo biga-start >>"$CALLS"; echo hello ;;
esac
"#;

const LLAMA: &str = r#"#!/bin/sh
case $1 in
  --version) echo 'version: 7 (build 1)' >&2; exit ;;
esac
echo llama >>"$CALLS"
[ -z "$BROKEN" ] || { echo 'out of luck' >&2; exit 1; }
echo '[{"devices":"none","n_prompt":0,"n_gen":4,"n_depth":0,"samples_ts":[16],"type_k":"f16"}]'
"#;

/// A folder with both stand-ins.
fn stand() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, script) in
        [("biga", BIGA), ("llama-bench", LLAMA), ("llama-batched-bench", LLAMA), ("llama-completion", LLAMA)]
    {
        write(folder.path(), name, script);
    }
    folder
}

fn write(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn compare(folder: &Path, arguments: &[&str], broken: bool) -> Output {
    command(folder, arguments, broken).output().unwrap()
}

fn command(folder: &Path, arguments: &[&str], broken: bool) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    command.current_dir(folder).env("CALLS", folder.join("calls"));
    command.args(["run", "--biga", "biga", "--llama", ".", "--out", "out", "--json", "--models", "tiny-q4_0"]);
    command.env("BROKEN", if broken { "1" } else { "" });
    command.args(arguments);
    command
}

#[track_caller]
fn report(output: &Output) -> Value {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{message}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {message}"))
}

fn calls(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("calls")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn engines_take_turns_and_a_second_run_goes_on() {
    let folder = stand();
    let folder = folder.path();
    let first = report(&compare(folder, &["--tests", "tg4", "--rounds", "2"], false));
    assert_eq!(calls(folder), ["biga", "llama", "biga", "llama"]);
    let row = &first["models"][0]["tests"][0];
    assert_eq!((&row["test"], &row["ratio"]), (&"tg4".into(), &2.5.into()));
    assert_eq!((&row["biga"]["n_samples"], &row["llama"]["n_samples"]), (&2.into(), &2.into()));
    assert_eq!(first["read_bytes_per_s"], 1e6);
    assert_eq!(first["models"][0]["synthetic"], true);
    assert!(folder.join("models/tiny-q4_0.gguf").is_file());

    report(&compare(folder, &["--tests", "tg4", "--rounds", "2"], false));
    assert_eq!(calls(folder).len(), 4, "nothing was left to measure");
    let third = report(&compare(folder, &["--tests", "tg4", "--rounds", "3"], false));
    assert_eq!(calls(folder).len(), 6);
    assert_eq!(third["models"][0]["tests"][0]["biga"]["n_samples"], 3);

    // Another build is measured anew, and its figures are not mixed with the old one's.
    write(folder, "biga", &format!("{BIGA}# another build\n"));
    let other = report(&compare(folder, &["--tests", "tg4", "--rounds", "1"], false));
    assert_eq!(calls(folder).len(), 8);
    assert_eq!(other["models"][0]["tests"][0]["biga"]["n_samples"], 1);
    assert_ne!(other["session"]["id"], third["session"]["id"]);
}

#[test]
fn an_engine_that_fails_is_named_with_the_cause_and_not_asked_again() {
    let folder = stand();
    let folder = folder.path();
    let report = report(&compare(folder, &["--tests", "tg4,start", "--rounds", "3"], true));
    let tests = report["models"][0]["tests"].as_array().unwrap();
    let decode = tests.iter().find(|row| row["test"] == "tg4").unwrap();
    assert_eq!(decode["biga"]["n_samples"], 3);
    assert!(decode["ratio"].is_null());
    let why = decode["llama"]["unavailable"].as_str().unwrap();
    assert!(why.contains("out of luck") && why.contains('1'), "{why}");
    assert_eq!(calls(folder).iter().filter(|call| *call == "llama").count(), 2, "once for each group");
    assert_eq!(calls(folder).iter().filter(|call| *call == "biga-start").count(), 3);
    let log = fs::read_to_string(folder.join("out/engines.log")).unwrap();
    assert!(log.contains("out of luck"), "{log}");
}

#[test]
fn an_engine_that_hangs_is_ended_and_the_others_figures_stay() {
    let folder = stand();
    let folder = folder.path();
    let mut command = command(folder, &["--tests", "tg4,start", "--rounds", "1", "--process-seconds", "1"], false);
    let report = report(&command.env("HANGS", "1").output().unwrap());
    let tests = report["models"][0]["tests"].as_array().unwrap();
    let row = |name: &str| tests.iter().find(|row| row["test"] == name).unwrap();
    let why = row("tg4")["biga"]["unavailable"].as_str().unwrap();
    assert!(why.contains("longer than 1 s"), "{why}");
    assert_eq!(row("tg4")["llama"]["n_samples"], 1);
    assert_eq!(row("start")["biga"]["n_samples"], 1);
}

#[test]
fn an_absent_engine_leaves_the_other() {
    let folder = stand();
    let folder = folder.path();
    fs::remove_file(folder.join("llama-batched-bench")).unwrap();
    let report = report(&compare(folder, &["--tests", "tg4", "--rounds", "1"], false));
    let why = report["models"][0]["tests"][0]["llama"]["unavailable"].as_str().unwrap();
    assert!(why.contains("llama-batched-bench"), "{why}");
    assert_eq!(calls(folder), ["biga"]);
    let output = compare(folder, &["--device", "radeon"], false);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains("no device radeon"), "{message}");
}

#[test]
fn a_report_is_made_of_the_file_alone() {
    let folder = stand();
    let folder = folder.path();
    report(&compare(folder, &["--tests", "tg4", "--rounds", "1"], false));
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    let output = command.arg("report").arg(folder.join("out/results.jsonl")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("| tg4 | 40.00 |") && text.contains("synthetic weights"), "{text}");
    assert_eq!(text, fs::read_to_string(folder.join("out/report.md")).unwrap());
}

#[test]
fn a_generated_file_is_announced_as_noise() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.gguf");
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    let output = command.args(["generate", "tiny", "q8_0"]).arg(&file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("noise"), "{text}");
    assert!(fs::metadata(&file).unwrap().len() > 1_000_000);
    let mut command = Command::new(env!("CARGO_BIN_EXE_compare"));
    let output = command.args(["generate", "huge", "q8_0"]).arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("llama-8b"));
}
