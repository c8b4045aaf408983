//! `xclbin diff`: what two files say differently, then where their bytes differ.

mod parts;

use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use serde_json::{Value, json};
use xclbin_tools::diff::{self, ByteDifference, Difference};

use super::{
    exit::{Outcome, usage},
    files, kind,
    output::{self, word},
};
use parts::{Meaning, Part};

/// Differences of one part that the report lists; `--json` lists all.
const MOST_LISTED: usize = 20;

/// Lines of one difference that the report shows.
const MOST_LINES: usize = 8;

/// Compare two files by meaning, then by byte
///
/// Two packages (.xclbin), PDIs, CDOs, instruction streams (insts.bin) or aiebu ELF files. A package's sections are
/// compared member by member, kernels, memories and the like by their names; PDIs and streams command by command.
/// Exit code 0: no difference; 1: some; 3: a file that cannot be read.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The first file; `-` is standard input
    #[arg(value_name = "FIRST")]
    left: PathBuf,
    /// The second file
    #[arg(value_name = "SECOND")]
    right: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Compare meaning alone: neither bytes, nor a package's uuid and times, which every build makes anew
    #[arg(long)]
    meaning: bool,
}

/// How one part of the files differs.
struct Compared {
    part: String,
    /// Which file has no such part.
    only_in: Option<&'static str>,
    meaning: Vec<Difference>,
    bytes: Option<ByteDifference>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let [left, right] = [files::read(&options.left)?, files::read(&options.right)?];
    let names = [&options.left, &options.right].map(|path| path.display().to_string());
    let (left_kind, left_parts) = parts::of(&left, &options.left, options.meaning)?;
    let (right_kind, right_parts) = parts::of(&right, &options.right, options.meaning)?;
    if left_kind != right_kind {
        let [left, right] = [left_kind, right_kind].map(kind::name_of);
        return Err(usage(format!("{} is {left} and {} {right}: name two of a kind", names[0], names[1])));
    }
    let mut found = compare(&left_parts, &right_parts);
    if options.meaning {
        found.iter_mut().for_each(|part| part.bytes = None);
        found.retain(|part| part.only_in.is_some() || !part.meaning.is_empty());
    }
    let whole = if options.meaning { None } else { diff::bytes(&left, &right) };
    let is_same = found.is_empty() && whole.is_none();
    if options.json {
        output::print_json(&to_json(&names, &found, whole))?;
    } else {
        output::print(&report(&names, &found, whole))?;
    }
    Ok(if is_same { Outcome::Done } else { Outcome::Found })
}

/// The parts that differ, in the order of the first file, then those that only the second has.
fn compare(left: &[Part<'_>], right: &[Part<'_>]) -> Vec<Compared> {
    let by_name = |parts: &[Part<'_>]| -> BTreeMap<String, usize> {
        parts.iter().enumerate().map(|(index, part)| (part.name.clone(), index)).collect()
    };
    let (in_left, in_right) = (by_name(left), by_name(right));
    let alone = |part: &Part<'_>, only_in| Compared {
        part: part.name.clone(),
        only_in: Some(only_in),
        meaning: Vec::new(),
        bytes: None,
    };
    let mut found = Vec::new();
    for part in left {
        match in_right.get(&part.name).and_then(|&index| right.get(index)) {
            Some(other) => {
                let compared = Compared {
                    part: part.name.clone(),
                    only_in: None,
                    meaning: compare_meaning(part, other),
                    bytes: diff::bytes(&part.bytes, &other.bytes),
                };
                if !compared.meaning.is_empty() || compared.bytes.is_some() {
                    found.push(compared);
                }
            }
            None => found.push(alone(part, "first")),
        }
    }
    found.extend(right.iter().filter(|part| !in_left.contains_key(&part.name)).map(|part| alone(part, "second")));
    found
}

fn compare_meaning(left: &Part<'_>, right: &Part<'_>) -> Vec<Difference> {
    match (&left.meaning, &right.meaning) {
        (Meaning::Tree(left), Meaning::Tree(right)) => diff::values(left, right),
        (Meaning::Text(left), Meaning::Text(right)) => diff::lines(left, right),
        (Meaning::Bytes, Meaning::Bytes) => Vec::new(),
        // The same bytes cannot be read for the same reason.
        _ if left.bytes == right.bytes => Vec::new(),
        (a, b) => {
            let words = |meaning: &Meaning| match meaning {
                Meaning::Unreadable(error) => Some(format!("cannot be read: {error}")),
                _ => Some("can be read".to_owned()),
            };
            vec![Difference { place: "as a whole".to_owned(), left: words(a), right: words(b) }]
        }
    }
}

fn report(names: &[String; 2], found: &[Compared], whole: Option<ByteDifference>) -> String {
    let mut text = format!("- {}\n+ {}\n", word(&names[0]), word(&names[1]));
    for part in found {
        match part.only_in {
            Some(which) => {
                let _ = writeln!(text, "\n{}: only in the {which}", word(&part.part));
            }
            None => {
                let bytes = part.bytes.map_or_else(|| "the same bytes".to_owned(), bytes_in_words);
                let _ = writeln!(text, "\n{}: {}", word(&part.part), bytes);
            }
        }
        for one in part.meaning.iter().take(MOST_LISTED) {
            let _ = writeln!(text, "  {}", word(&one.place));
            side(&mut text, '-', one.left.as_deref());
            side(&mut text, '+', one.right.as_deref());
        }
        if part.meaning.len() > MOST_LISTED {
            let _ = writeln!(text, "  and {} more; --json lists all", part.meaning.len().saturating_sub(MOST_LISTED));
        }
        if part.meaning.is_empty() && part.bytes.is_some() {
            text.push_str("  the same meaning in other bytes, or bytes without one that is known\n");
        }
    }
    match whole {
        None if found.is_empty() => text.push_str("no difference\n"),
        None => {}
        Some(bytes) => {
            let _ = writeln!(text, "\nfiles: {}", bytes_in_words(bytes));
        }
    }
    text
}

/// What one file has there, its first lines.
fn side(text: &mut String, sign: char, lines: Option<&str>) {
    let lines: Vec<&str> = lines.unwrap_or_default().lines().collect();
    for line in lines.iter().take(MOST_LINES) {
        let _ = writeln!(text, "    {sign} {}", word(line));
    }
    if lines.len() > MOST_LINES {
        let _ = writeln!(text, "    {sign} and {} more lines", lines.len().saturating_sub(MOST_LINES));
    }
}

fn bytes_in_words(bytes: ByteDifference) -> String {
    let ByteDifference { first, count, sizes: [left, right] } = bytes;
    let sizes = if left == right { format!("{left}") } else { format!("{left} and {right}") };
    format!("{count} of {sizes} bytes differ, the first at {first:#x}")
}

fn to_json(names: &[String; 2], found: &[Compared], whole: Option<ByteDifference>) -> Value {
    let bytes = |bytes: Option<ByteDifference>| {
        bytes.map(|it| json!({"first": it.first, "count": it.count, "sizes": it.sizes}))
    };
    let difference = |one: &Difference| json!({"place": one.place, "first": one.left, "second": one.right});
    let part = |part: &Compared| {
        json!({"part": part.part, "only_in": part.only_in, "bytes": bytes(part.bytes),
            "differences": part.meaning.iter().map(difference).collect::<Vec<_>>()})
    };
    json!({"version": output::JSON_VERSION, "files": names, "bytes": bytes(whole),
        "parts": found.iter().map(part).collect::<Vec<_>>()})
}
