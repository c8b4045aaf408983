//! Debian roots beside the system: newer Mesa, validation layers and llama.cpp without touching the
//! machine's own packages.
//!
//! A root is a folder made by `mmdebstrap`. Programs of the host run on a root's libraries through the
//! root's own dynamic loader; the root's programs run by `chroot`, which needs no mounts. Signatures are
//! checked by apt with the host's keyring.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{cache::Cache, process, workspace};

/// What a root is made of.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Folder name in the cache, and what messages call it.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
    suite: &'static str,
    /// Suite and components of each source.
    sources: &'static [&'static str],
    apt_options: &'static [&'static str],
    packages: &'static [&'static str],
}

/// Mesa (lavapipe, RADV and its shim), validation layers, SPIR-V tools, mdBook, and the tools that NPU
/// packages are compared with: `xclbinutil`, `aiebu-asm`, `aiebu-dump`, `bootgen`.
pub(crate) const GRAPHICS: Recipe = Recipe {
    name: "trixie",
    purpose: "Mesa's drivers, validation layers, SPIR-V tools, mdBook, NPU packaging tools",
    suite: "trixie",
    sources: &["trixie main non-free-firmware", "trixie-backports main non-free-firmware"],
    apt_options: &["APT::Install-Recommends \"false\"", "APT::Default-Release \"trixie-backports\""],
    packages: &[
        "libvulkan1",
        "libxrt-utils",
        "libxrt-utils-npu",
        "mdbook",
        "mesa-drm-shim",
        "mesa-vulkan-drivers",
        "spirv-tools",
        "vulkan-tools",
        "vulkan-validationlayers",
        "xilinx-bootgen",
    ],
};

/// llama.cpp's tools, the reference for texts, perplexity and speed. The suite moves and its index may
/// have expired on a mirror, which apt is told to accept; signatures are checked all the same.
pub(crate) const LLAMA: Recipe = Recipe {
    name: "sid",
    purpose: "llama.cpp's tools, to compare with",
    suite: "sid",
    sources: &["sid main"],
    apt_options: &["APT::Install-Recommends \"false\"", "Acquire::Check-Valid-Until \"false\""],
    packages: &["llama.cpp-tools", "llama.cpp-tools-extra"],
};

/// llama.cpp with its backend for GPUs, for comparisons of speed and for packs of them; and libraries that
/// NVIDIA's driver is linked with but does not bring.
pub(crate) const LLAMA_VULKAN: Recipe = Recipe {
    name: "sid-vulkan",
    purpose: "llama.cpp with its Vulkan backend, to compare with on a GPU",
    packages: &[
        "libggml0-backend-vulkan",
        "libglvnd0",
        "libx11-6",
        "libxext6",
        "llama.cpp-tools",
        "llama.cpp-tools-extra",
    ],
    ..LLAMA
};

const STAMP: &str = ".biga-recipe";

impl Recipe {
    /// The root's folder if it is complete and made by this recipe.
    pub(crate) fn find(&self, cache: &Cache) -> Option<PathBuf> {
        let folder = cache.path("roots").join(self.name);
        let stamp = fs::read_to_string(folder.join(STAMP)).ok()?;
        (stamp == self.stamp()).then_some(folder)
    }

    /// The root's folder, made if it is missing or its recipe has changed.
    ///
    /// # Errors
    /// If it cannot be made: no administrator, no mirror, a failed download.
    pub(crate) fn ensure(&self, cache: &Cache) -> Result<PathBuf> {
        let _lock = cache.lock("debian-root")?;
        if let Some(folder) = self.find(cache) {
            return Ok(folder);
        }
        if !workspace::is_administrator() {
            bail!("making the Debian root `{}` ({}) needs root: run `sudo cargo xtask setup`", self.name, self.purpose);
        }
        install_packages(&[("mmdebstrap", "mmdebstrap")])?;
        let mirror = mirror()?;
        let scratch = cache.scratch(&format!("root-{}", self.name))?;
        let made = scratch.path().join("root");
        let log = cache.path(format!("{}.log", self.name));
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", "--mode=root"]);
        command.args(self.apt_options.iter().map(|option| format!("--aptopt={option}")));
        command.arg(format!("--include={}", self.packages.join(",")));
        command.arg(self.suite).arg(&made);
        command.args(self.sources.iter().map(|source| format!("deb {mirror} {source}")));
        command.env("DEBIAN_FRONTEND", "noninteractive");
        let what = format!("making the Debian root `{}`: {}", self.name, self.purpose);
        process::logged(&mut command, &what, &log)?;
        fs::write(made.join(STAMP), self.stamp())?;
        let folder = cache.path("roots").join(self.name);
        fs::create_dir_all(cache.path("roots"))?;
        if folder.exists() {
            fs::rename(&folder, scratch.path().join("old"))?;
        }
        fs::rename(&made, &folder).with_context(|| format!("cannot move the root to {}", folder.display()))?;
        Ok(folder)
    }

    fn stamp(&self) -> String {
        let digest = Sha256::digest(format!("{:?}", (self.suite, self.sources, self.apt_options, self.packages)));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Installs the Debian packages whose program is not there. Each pair is (program, package).
///
/// # Errors
/// If something is missing and cannot be installed here.
pub(crate) fn install_packages(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| process::find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if process::find_program("apt-get").is_none() {
        bail!("not installed: {list}; this machine has no apt-get, so install them by hand");
    }
    if !workspace::is_administrator() {
        bail!("not installed: {list}; run `sudo apt-get install {list}`");
    }
    refresh_index()?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-q", "--no-install-recommends"]).args(&missing);
    process::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn refresh_index() -> Result<()> {
    process::run(Command::new("apt-get").args(["update", "-q"]))
}

/// The mirror that the machine's own apt uses, so that no host name stands in this project.
fn mirror() -> Result<String> {
    if let Some(mirror) = env::var("BIGA_DEBIAN_MIRROR").ok().filter(|mirror| !mirror.is_empty()) {
        return Ok(mirror);
    }
    for refreshed in [false, true] {
        if refreshed {
            refresh_index()?;
        }
        let targets = process::stdout_of(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Identifier: Packages",
            "Codename: bookworm",
        ]))?;
        if let Some(mirror) = targets.lines().map(str::trim).find(|line| !line.is_empty()) {
            return Ok(mirror.to_owned());
        }
    }
    bail!("apt's sources name no Debian 12 mirror; set BIGA_DEBIAN_MIRROR to one")
}

/// A root's libraries, for programs of the host.
pub(crate) struct Libraries<'a> {
    root: &'a Path,
}

impl Libraries<'_> {
    /// Of this root.
    pub(crate) fn of(root: &Path) -> Libraries<'_> {
        Libraries { root }
    }

    /// The words before a program that run it on these libraries.
    pub(crate) fn runner(&self) -> Vec<String> {
        let root = self.root.display();
        vec![
            format!("{root}/usr/lib64/ld-linux-x86-64.so.2"),
            "--library-path".to_owned(),
            format!("{root}/usr/lib/x86_64-linux-gnu"),
        ]
    }

    /// Runs a program on these libraries.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let words = self.runner();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }

    /// Variables that make a Vulkan loader use Mesa's CPU driver alone, at a vector width in bits
    /// (32 bits a lane: 128 gives subgroups of 4, 256 of 8).
    pub(crate) fn lavapipe_environment(&self, vector_width_bits: u32) -> Vec<(&'static str, String)> {
        let share = self.root.join("usr/share/vulkan");
        vec![
            ("VK_DRIVER_FILES", share.join("icd.d/lvp_icd.json").display().to_string()),
            ("VK_LAYER_PATH", share.join("explicit_layer.d").display().to_string()),
            ("LP_NATIVE_VECTOR_WIDTH", vector_width_bits.to_string()),
        ]
    }

    /// Runs a program with Mesa's driver for AMD GPUs as its one Vulkan driver, on Mesa's shim for absent
    /// hardware, which knows some chips by name. `before_shim` may edit what it answers. Nothing computes.
    pub(crate) fn radv_command(&self, chip: &str, before_shim: Option<&Path>, program: &Path) -> Command {
        let words = self.runner();
        let shim = self.root.join("usr/lib/x86_64-linux-gnu/libamdgpu_noop_drm_shim.so");
        let preloaded: Vec<String> = before_shim.into_iter().chain([&*shim]).map(|p| p.display().to_string()).collect();
        let mut command = Command::new(&words[0]);
        command.arg("--preload").arg(preloaded.join(":")).args(&words[1..]).arg(program);
        command.env("VK_DRIVER_FILES", self.root.join("usr/share/vulkan/icd.d/radeon_icd.json"));
        command.env("AMDGPU_GPU_ID", chip).env("MESA_SHADER_CACHE_DISABLE", "true");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::{GRAPHICS, LLAMA, LLAMA_VULKAN};

    #[test]
    fn stamps_tell_recipes_apart() {
        assert_ne!(GRAPHICS.stamp(), LLAMA.stamp());
        assert_ne!(LLAMA.stamp(), LLAMA_VULKAN.stamp());
        assert_eq!(GRAPHICS.stamp().len(), 64);
    }

    #[test]
    fn packages_are_sorted_so_that_a_stamp_changes_only_with_the_set() {
        for recipe in [GRAPHICS, LLAMA, LLAMA_VULKAN] {
            assert!(recipe.packages.is_sorted(), "{}", recipe.name);
        }
    }
}
