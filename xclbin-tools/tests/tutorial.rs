//! The book's pages about `xclbin` do what they say: their commands run, and answer as the pages show.
//!
//! Of a page, a fenced block behind a line that ends with "`NAME`:" is that file. Blocks of `sh` run in their order, in
//! the folder with these files. A block of `text` right behind one is all that it prints, where a line `...` stands
//! for lines that the page leaves out. The guide uses the files of the tutorial, which runs first.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

#[expect(dead_code, reason = "its `main` is not run here")]
#[path = "../examples/read_package.rs"]
mod read_package;

/// Set, the picture in the book is written instead of compared.
const WRITE: &str = "BIGA_WRITE_DOCS";
/// What cargo would build and run is a module of this test.
const EXAMPLE: &str = "cargo run -p xclbin-tools --example read_package -- ";

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src")
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File(String),
    Commands,
    Output,
    Other,
}

struct Block {
    kind: Kind,
    /// Of the fence in the page, from 1.
    line: usize,
    text: String,
}

/// The fenced blocks of a page, with the files that they include.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut before, mut is_open, mut is_behind_commands) = ("", false, false);
    for (line, number) in page.lines().zip(1..) {
        if is_open {
            is_open = line != "```";
            if is_open && let Some(block) = blocks.last_mut() {
                block.text.push_str(&included(line).unwrap_or_else(|| format!("{line}\n")));
            }
        } else if let Some(language) = line.strip_prefix("```") {
            let name = before.strip_suffix("`:").and_then(|before| before.rsplit('`').next());
            let kind = match (language, name) {
                ("sh", _) => Kind::Commands,
                ("text", _) if is_behind_commands => Kind::Output,
                (_, Some(name)) => Kind::File(name.to_owned()),
                _ => Kind::Other,
            };
            (before, is_behind_commands) = ("", kind == Kind::Commands);
            blocks.push(Block { kind, line: number, text: String::new() });
            is_open = true;
        } else if !line.is_empty() {
            (before, is_behind_commands) = (line, false);
        }
    }
    assert!(!is_open, "the last fence is not closed");
    blocks
}

/// What mdBook puts in place of a line.
fn included(line: &str) -> Option<String> {
    let path = line.strip_prefix("{{#include ")?.strip_suffix("}}")?;
    Some(fs::read_to_string(book().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// What commands print, on both streams.
fn run(folder: &Path, commands: &str) -> Result<String, String> {
    if let Some(file) = commands.trim_end().strip_prefix(EXAMPLE) {
        let bytes = fs::read(folder.join(file)).map_err(|error| format!("{file}: {error}"))?;
        return read_package::describe(&bytes).map_err(|error| error.to_string());
    }
    let bin = Path::new(env!("CARGO_BIN_EXE_xclbin")).parent().expect("a folder");
    let others = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([bin.to_owned()].into_iter().chain(env::split_paths(&others))).expect("a path");
    let mut shell = Command::new("sh");
    shell.args(["-euc", &format!("exec 2>&1\n{commands}")]).current_dir(folder);
    let output = shell.env("PATH", path).env_remove("SOURCE_DATE_EPOCH").output().expect("sh starts");
    let text = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
    if output.status.success() { Ok(text) } else { Err(format!("{}\n{text}", output.status)) }
}

/// Whether a text is what a page shows of it.
fn is_shown(shown: &[&str], text: &[&str]) -> bool {
    match shown.split_first() {
        None => text.is_empty(),
        Some((&"...", rest)) => (0..=text.len()).any(|n_left_out| is_shown(rest, &text[n_left_out..])),
        Some((first, rest)) => text.split_first().is_some_and(|(line, text)| line == first && is_shown(rest, text)),
    }
}

fn check_page(folder: &Path, name: &str) {
    let page = fs::read_to_string(book().join(name)).expect(name);
    let (mut printed, mut n_run) = (String::new(), 0);
    for Block { kind, line, text } in blocks(&page) {
        match kind {
            Kind::File(file) => {
                let path = folder.join(file);
                fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                fs::write(path, text).expect("a file");
            }
            Kind::Commands => {
                printed = run(folder, &text).unwrap_or_else(|error| panic!("{name}, line {line}: {error}"));
                n_run += 1;
            }
            Kind::Output => {
                let [shown, came] = [&text, &printed].map(|text| text.lines().map(str::trim_end).collect::<Vec<_>>());
                assert!(is_shown(&shown, &came), "{name}, line {line} shows\n{text}\nand this came:\n{printed}");
            }
            Kind::Other => {}
        }
    }
    assert!(n_run > 0, "{name} has no commands");
}

#[test]
fn the_pages_show_what_the_command_does() {
    let folder = tempfile::tempdir().expect("a folder");
    check_page(folder.path(), "xclbin-tutorial.md");
    let drawn = fs::read_to_string(folder.path().join("final.svg")).expect("the tutorial draws a picture");
    let picture = book().join("xclbin-tutorial.svg");
    if env::var_os(WRITE).is_some() {
        fs::write(&picture, &drawn).expect("the book can be written");
    }
    let kept = fs::read_to_string(&picture).unwrap_or_default();
    assert!(kept == drawn, "{} is another picture: {WRITE}=1 writes it", picture.display());
    check_page(folder.path(), "xclbin.md");
}

#[test]
fn blocks_are_told_apart() {
    let page = "\
Words\n\nIn `a.txt`:\n\n```json\n{}\n```\n\n```sh\nls\n```\n\n```text\na.txt\n```\n\n```text\nb\n```\n\n`x`: no\n```rust\n```\n";
    let kinds: Vec<(Kind, String)> = blocks(page).into_iter().map(|block| (block.kind, block.text)).collect();
    let expected = [
        (Kind::File("a.txt".to_owned()), "{}\n"),
        (Kind::Commands, "ls\n"),
        (Kind::Output, "a.txt\n"),
        (Kind::Other, "b\n"),
        (Kind::Other, ""),
    ];
    assert_eq!(kinds, expected.map(|(kind, text)| (kind, text.to_owned())));
}

#[test]
fn left_out_lines_match_any_and_others_themselves() {
    let check = |shown: &str, text: &str, expected: bool| {
        let [shown, text] = [shown, text].map(|text| text.split_whitespace().collect::<Vec<_>>());
        assert_eq!(is_shown(&shown, &text), expected, "{shown:?} of {text:?}");
    };
    check("a b", "a b", true);
    check("a", "a b", false);
    check("a ...", "a b c", true);
    check("... c", "a b c", true);
    check("a ... c", "a b d", false);
    check("... b ...", "b", true);
}
