//! `xclbin split`: one package per PDI.

use std::{
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
    output::{JSON_VERSION, note, print, print_json},
    stamp::{parse_uuid, stamp},
};

/// Split a package: one file per PDI, with the kernels that run on it
///
/// The files are named after the package and numbered: FOLDER/NAME.0.xclbin and on. Kernels that no PDI lists are
/// in none of them; a note names them.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The package
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
    fs::create_dir_all(&options.output)
        .map_err(|error| anyhow::anyhow!("cannot make {}: {error}", options.output.display()))?;
    let mut paths = Vec::new();
    for (part, index) in split.packages().zip(0_u64..) {
        let mut part = part.map_err(wrong)?;
        let given = options.uuid.map(|uuid| Uuid(u128::from_be_bytes(uuid.0).wrapping_add(index.into()).to_be_bytes()));
        let stamp = stamp(given)?;
        part.header_mut().uuid = stamp.uuid;
        part.header_mut().set_time(stamp.time);
        let path = options.output.join(part_name(&options.file, index));
        files::write(&path, &part.to_bytes()?, options.force)?;
        paths.push(path.display().to_string());
    }
    let left_out = split.left_out();
    if options.json {
        print_json(&json!({"version": JSON_VERSION, "files": paths, "left_out": left_out}))?;
        return Ok(Outcome::Done);
    }
    if !left_out.is_empty() {
        note(format_args!("xclbin: no PDI lists the kernels {}: they are left out", left_out.join(", ")));
    }
    print(&format!("{}\n", paths.join("\n")))?;
    Ok(Outcome::Done)
}

fn part_name(whole: &Path, index: u64) -> String {
    let stem = whole.file_stem().unwrap_or_default().to_string_lossy();
    format!("{stem}.{index}.xclbin")
}
