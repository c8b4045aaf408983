//! `compare --pack DIR`: a folder that compares the engines on a machine with neither Rust, nor Debian
//! roots, nor network.
//!
//! ```text
//! DIR/run.sh        unpacks, generates the models, measures; --help says more
//! DIR/README.txt    how to use it
//! DIR/bin/          biga, compare
//! DIR/root.tar.gz   of a Debian root what llama.cpp's tools need: they, their libraries and backends, the
//!                   Vulkan loader, libraries of X that drivers need, the dynamic loader; both engines run on
//!                   these, and what they lack is looked for among the system's
//! ```
//! Models are not packed: they are shapes, and are generated there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{biga_command, cache::Cache, claims::pack, debian, process};

const TOOLS: [&str; 3] = ["llama-bench", "llama-batched-bench", "llama-completion"];
/// Libraries that nothing here is linked with: the Vulkan loader, and what drivers of the other machine need.
const OTHERS: [&str; 4] = ["libGLdispatch.so.0", "libX11.so.6", "libXext.so.6", "libvulkan.so.1"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// Writes the pack.
///
/// # Errors
/// If the folder is in use, something does not build, or the pack is too large to travel.
pub(super) fn write(folder: &Path) -> Result<()> {
    pack::begin(folder, &["bin"])?;
    for (program, name) in [(biga_command::build()?, "biga"), (super::program()?, "compare")] {
        pack::strip_into(&program, &folder.join("bin").join(name))?;
    }
    let cache = Cache::open()?;
    let root = debian::LLAMA_VULKAN.ensure(&cache)?;
    let scratch = cache.scratch("compare-pack")?;
    for file in needed(&root)? {
        let to = scratch.path().join(&file);
        fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
        // Through links: what is asked for by a name lies under that name.
        fs::copy(root.join(&file), &to).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let archive = std::path::absolute(folder)?.join("root.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "-I", "gzip -9", "-cf"]).arg(archive);
    process::stdout_of(tar.arg("-C").arg(scratch.path()).arg("usr"))?;
    pack::write_runnable(&folder.join("run.sh"), include_str!("run.sh"))?;
    fs::write(folder.join("README.txt"), include_str!("README.txt"))?;
    println!("{}: {:.1} MiB; `{}/run.sh --help`", folder.display(), pack::end(folder)?, folder.display());
    Ok(())
}

/// The tools, backends, loaders, and every library that these are linked with, as paths inside the root.
fn needed(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut programs: Vec<PathBuf> = TOOLS.iter().map(|tool| Path::new("usr/bin").join(tool)).collect();
    let backends = backends(root)?;
    programs.extend(backends);
    programs.extend(OTHERS.iter().map(|library| Path::new(LIBRARIES).join(library)));
    let mut files = BTreeSet::from([PathBuf::from(LOADER)]);
    for program in programs {
        let listed =
            process::stdout_of(Command::new("chroot").arg(root).arg("ldd").arg(Path::new("/").join(&program)))?;
        files.extend(linked(&listed)?);
        files.insert(program);
    }
    Ok(files)
}

fn backends(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let folder = root.join(LIBRARIES).join("ggml");
    for version in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        for file in fs::read_dir(version?.path())? {
            found.push(file?.path().strip_prefix(root)?.to_owned());
        }
    }
    Ok(found)
}

/// The libraries in ldd's answer, as paths inside the root.
fn linked(listed: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listed.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
        match rest.split_whitespace().next().and_then(|path| path.strip_prefix('/')) {
            Some(path) => libraries.push(PathBuf::from(path)),
            None => bail!("{name} is not in the root"),
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::linked;
    use std::path::PathBuf;

    #[test]
    fn libraries_are_those_with_a_path() {
        let listed =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /usr/lib/libc.so.6 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert_eq!(linked(listed).unwrap(), [PathBuf::from("usr/lib/libc.so.6")]);
        assert!(linked("\tlibx.so.1 => not found\n").unwrap_err().to_string().contains("libx.so.1"));
    }
}
