//! `xclbin merge`: several packages in one.

use std::path::PathBuf;

use serde_json::json;
use xclbin_tools::{
    axlf::{Axlf, Uuid},
    package::{Merge, Renumbered, edit},
};

use super::{
    exit::{Outcome, input, usage},
    files,
    output::{JSON_VERSION, note, print_json},
    stamp::{parse_uuid, stamp},
};

/// Merge packages into one, which a program loads once
///
/// All must have the same columns, start columns and memories, and each kernel's name once. Ids of kernels and PDIs
/// that are taken are given anew, the lowest free ones above; notes say which. Sections other than those of kernels
/// and PDIs are the first package's.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The packages, in the order of their kernels
    #[arg(value_name = "XCLBIN", required = true, num_args = 2..)]
    files: Vec<PathBuf>,
    /// Where the package goes; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
    /// Refuse ids that are taken instead of giving others
    #[arg(long)]
    keep_ids: bool,
    /// Keep images that are equal once, for the kernels of all
    #[arg(long)]
    share_images: bool,
    /// Give a kernel another name, where packages have one of the same: `2:MLIR_AIE=scale` is for the kernel of that
    /// name in the second package; may be given several times
    #[arg(long, value_name = "N:OLD=NEW", value_parser = Rename::parse)]
    rename: Vec<Rename>,
    /// The package's uuid; a random one without it
    #[arg(long, value_parser = parse_uuid)]
    uuid: Option<Uuid>,
    /// Say as JSON which ids were given anew
    #[arg(long)]
    json: bool,
}

/// A kernel's new name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rename {
    /// The package's number, from 1.
    package: usize,
    old: String,
    new: String,
}

impl Rename {
    fn parse(text: &str) -> Result<Rename, String> {
        let parts = text.split_once(':').and_then(|(package, names)| Some((package, names.rsplit_once('=')?)));
        let parts = parts.and_then(|(package, names)| Some((package.parse().ok()?, names)));
        let (package, (old, new)) = parts.ok_or("N:OLD=NEW is expected, N the package's number from 1")?;
        Ok(Rename { package, old: old.to_owned(), new: new.to_owned() })
    }

    fn apply(&self, packages: &mut [(&str, Axlf<'_>)]) -> anyhow::Result<()> {
        let n_packages = packages.len();
        let package = self.package.checked_sub(1).and_then(|index| packages.get_mut(index));
        let none = || usage(format!("--rename {}: the packages are 1 to {n_packages}", self.package));
        let (name, package) = package.ok_or_else(none)?;
        edit::rename_kernel(package, &self.old, &self.new).map_err(|error| error.within(*name).into())
    }
}

/// Merges.
///
/// # Errors
/// Files that cannot be read or written, and what [`Merge::run`] refuses.
pub(crate) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if options.json && options.output.as_os_str() == "-" {
        return Err(usage("--json and --output - both want standard output"));
    }
    let bytes = options.files.iter().map(|path| files::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let parsed = options
        .files
        .iter()
        .zip(&bytes)
        .map(|(path, bytes)| Axlf::parse(bytes).map_err(|error| input(format!("{}: {error}", path.display()))));
    let packages = parsed.collect::<anyhow::Result<Vec<_>>>()?;
    let names: Vec<String> = options.files.iter().map(|path| path.display().to_string()).collect();
    let mut packages: Vec<(&str, Axlf<'_>)> = names.iter().map(String::as_str).zip(packages).collect();
    options.rename.iter().try_for_each(|rename| rename.apply(&mut packages))?;
    let merge = Merge { keeps_ids: options.keep_ids, shares_images: options.share_images };
    let (mut merged, renumbered) = merge.run(&packages)?;
    let stamp = stamp(options.uuid)?;
    merged.header_mut().uuid = stamp.uuid;
    merged.header_mut().set_time(stamp.time);
    files::write(&options.output, &merged.to_bytes()?, options.force)?;
    let name =
        |id: &Renumbered| options.files.get(id.package).map(|path| path.display().to_string()).unwrap_or_default();
    if options.json {
        let rows = renumbered.iter().map(|id| json!({"file": name(id), "what": id.what, "from": id.from, "to": id.to}));
        print_json(&json!({"version": JSON_VERSION, "renumbered": rows.collect::<Vec<_>>()}))?;
        return Ok(Outcome::Done);
    }
    for id in &renumbered {
        note(format_args!("xclbin: {}: {} id {:#x} is taken: it becomes {:#x}", name(id), id.what, id.from, id.to));
    }
    Ok(Outcome::Done)
}
