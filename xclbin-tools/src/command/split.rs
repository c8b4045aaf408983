//! `xclbin split`: one package per PDI.

use std::{
    borrow::Cow,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use xclbin_tools::{
    axlf::{Axlf, Uuid},
    package::Split,
};

use super::{
    exit::{Outcome, input},
    files,
    output::{JSON_VERSION, note, print_bytes, print_json},
    stamp::{parse_uuid, stamp},
};

/// Parts may be so many times as long together as the whole: real ones are little longer than it.
const MOST_TIMES: usize = 16;

/// Split a package: one file per PDI, with the kernels that run on it
///
/// The files are named after the package and numbered: FOLDER/NAME.0.xclbin and on; NAME is `package` where it comes
/// from standard input. Kernels that no PDI lists are in none of them; a note names them. A LITE image changes the
/// configuration of a PRIMARY one: its file has the PRIMARY ones too, with their kernels.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The package; `-` is standard input
    #[arg(value_name = "XCLBIN")]
    file: PathBuf,
    /// The folder for the files; it is made where it is missing
    #[arg(short, long, value_name = "FOLDER", default_value = ".")]
    output: PathBuf,
    /// Overwrite files
    #[arg(long)]
    force: bool,
    /// The first file's uuid, to which the others' count up; random ones without it
    #[arg(long, value_parser = parse_uuid)]
    uuid: Option<Uuid>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// Splits.
///
/// # Errors
/// Files that cannot be read or written, and what [`Split::of`] refuses.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let bytes = files::read(&options.file)?;
    let wrong = |error| input(format!("{}: {error}", options.file.display()));
    let whole = Axlf::parse(&bytes).map_err(wrong)?;
    let split = Split::of(&whole).map_err(wrong)?;
    let (mut files, mut total) = (Vec::new(), 0_usize);
    for (part, index) in split.packages().zip(0_u64..) {
        let mut part = part.map_err(wrong)?;
        let given = options.uuid.map(|uuid| Uuid(u128::from_be_bytes(uuid.0).wrapping_add(index.into()).to_be_bytes()));
        let stamp = stamp(given)?;
        part.header_mut().uuid = stamp.uuid;
        part.header_mut().set_time(stamp.time);
        let part = part.to_bytes()?;
        total = total.saturating_add(part.len());
        if total / MOST_TIMES > bytes.len() {
            let bound = "all else of the package is in every part: `xclbin extract` gets images alone";
            return Err(input(format!(
                "{}: its parts have more than {MOST_TIMES} times its {} bytes: {bound}",
                options.file.display(),
                bytes.len()
            )));
        }
        files.push((options.output.join(part_name(&options.file, index)), Cow::Owned(part)));
    }
    fs::create_dir_all(&options.output)
        .map_err(|error| anyhow::anyhow!("cannot make {}: {error}", options.output.display()))?;
    files::write_all(&files, options.force)?;
    let left_out = split.left_out();
    if options.json {
        let paths: Vec<_> = files.iter().map(|(path, _)| path.display().to_string()).collect();
        print_json(&json!({"version": JSON_VERSION, "files": paths, "left_out": left_out}))?;
        return Ok(Outcome::Done);
    }
    if !left_out.is_empty() {
        note(format_args!("xclbin: no PDI lists the kernels {}: they are left out", few(&left_out)));
    }
    // File names need not be UTF-8.
    let lines = files.iter().flat_map(|(path, _)| [path.as_os_str().as_encoded_bytes(), b"\n"]);
    print_bytes(&lines.flatten().copied().collect::<Vec<_>>())?;
    Ok(Outcome::Done)
}

fn part_name(whole: &Path, index: u64) -> OsString {
    let is_stdin = whole == Path::new("-");
    let mut name = if is_stdin { "package".into() } else { whole.file_stem().unwrap_or_default().to_owned() };
    name.push(format!(".{index}.xclbin"));
    name
}

/// The first names of a list, and how many more there are.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        n_more => format!("{} and {n_more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_names_are_cut() {
        let names = |n: usize| few(&(0..n).map(|index| format!("k{index}\n")).collect::<Vec<_>>());
        assert_eq!(names(2), r#""k0\n", "k1\n""#);
        assert!(names(8).ends_with(r#""k7\n""#));
        assert!(names(60_000).ends_with(r#""k7\n" and 59992 more"#));
    }

    #[test]
    fn parts_are_named_after_the_whole() {
        let check = |whole: &str, expected: &str| assert_eq!(part_name(Path::new(whole), 3), expected);
        check("folder/a.b.xclbin", "a.b.3.xclbin");
        check("-", "package.3.xclbin");
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            let name = std::ffi::OsStr::from_bytes(b"f\xff.xclbin");
            assert_eq!(part_name(Path::new(name), 0).as_bytes(), b"f\xff.0.xclbin");
        }
    }
}
