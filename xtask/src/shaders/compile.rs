//! The target GPUs, and how their compiler is run and answers.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{debian, process, workspace};

/// A GPU that kernels are compiled for.
pub(super) struct Target {
    /// The compiler's name for it.
    pub(super) name: &'static str,
    /// The chip that Mesa's shim stands in for.
    chip: &'static str,
    /// The source beside it that makes another chip of it, in `xtask/shim`.
    edit: Option<&'static str>,
    /// What the driver's name for the device ends with: proof that it is this one.
    device: &'static str,
}

/// Phoenix and Hawk Point; Strix Point; Strix Halo.
pub(super) const TARGETS: [Target; 3] = [
    Target { name: "gfx1103", chip: "phoenix", edit: None, device: "(RADV PHOENIX)" },
    Target { name: "gfx1150", chip: "strix1", edit: None, device: "(RADV STRIX1)" },
    Target { name: "gfx1151", chip: "strix1", edit: Some("gfx1151"), device: "(RADV STRIX_HALO)" },
];

/// What the compiler made of every kernel for one target.
#[derive(Debug, Deserialize)]
pub(super) struct Report {
    /// The driver's name for the device.
    device: String,
    /// The driver and its version.
    pub(super) driver: String,
    /// Why the backend does not open the device; absent if it does.
    refusal: Option<String>,
    /// Each once.
    pub(super) kernels: Vec<Kernel>,
    /// Compiled variants of the shaders, as (source, format), that the device is given nowhere.
    pub(super) unreached: Vec<(String, String)>,
}

/// A compiled kernel.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Kernel {
    /// File name without its ending, in `shaders/glsl`.
    pub(super) source: String,
    /// Storage format; empty if it has none.
    pub(super) format: String,
    /// Specialisation constants.
    pub(super) constants: Vec<(String, u32)>,
    pub(super) subgroup_size: u32,
    /// By the driver's names.
    statistics: BTreeMap<String, f64>,
    /// How often each instruction stands in the machine code.
    pub(super) instructions: BTreeMap<String, u64>,
}

impl Kernel {
    /// A figure that the driver must give.
    pub(super) fn statistic(&self, name: &str) -> Result<u64> {
        match self.statistics.get(name) {
            Some(&value) if value >= 0.0 && value.fract() == 0.0 => Ok(value as u64),
            Some(value) => bail!("{}: {name} is {value}, which is no count", self.title()),
            None => bail!("{}: the driver gives no figure `{name}`", self.title()),
        }
    }

    /// Its name in messages.
    pub(super) fn title(&self) -> String {
        let constants = self.constants.iter().map(|(name, value)| format!(" {name}={value}"));
        format!("{} {}", self.source, self.format).trim_end().to_owned() + &constants.collect::<String>()
    }
}

/// Runs the compiler.
pub(super) struct Compiler<'a> {
    libraries: debian::Libraries<'a>,
    program: PathBuf,
    edits: PathBuf,
}

impl Compiler<'_> {
    /// Builds what is run: the program, and the libraries that edit the shim's answers.
    ///
    /// # Errors
    /// If something does not build.
    pub(super) fn new(root: &Path) -> Result<Compiler<'_>> {
        // Of the whole workspace, so that dependencies are built with the features that the tests use.
        process::run(workspace::cargo().args(["build", "--quiet", "--workspace", "--example", "compiled_kernels"]))?;
        let built = workspace::target_folder()?;
        let edits = built.join("shim");
        fs::create_dir_all(&edits)?;
        for edit in TARGETS.iter().filter_map(|target| target.edit) {
            let source = workspace::root().join(format!("xtask/shim/{edit}.c"));
            let mut command = Command::new("cc");
            command.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
            command.arg(edits.join(format!("{edit}.so"))).arg(source).arg("-ldl");
            process::stdout_of(&mut command).context("a C compiler is needed: apt install gcc")?;
        }
        let program = built.join("debug/examples/compiled_kernels");
        Ok(Compiler { libraries: debian::Libraries::of(root), program, edits })
    }

    fn command(&self, target: &Target) -> Command {
        let edit = target.edit.map(|edit| self.edits.join(format!("{edit}.so")));
        self.libraries.radv_command(target.chip, edit.as_deref(), &self.program)
    }

    /// The machine code of the kernels that have all these words in their name.
    ///
    /// # Errors
    /// If the program fails.
    pub(super) fn code(&self, target: &Target, words: &[String]) -> Result<String> {
        process::stdout_of(self.command(target).args(words))
    }

    /// A report a target, in their order.
    ///
    /// # Errors
    /// If a kernel does not compile, a device is not the target, or the backend would open it for work.
    pub(super) fn reports(&self) -> Result<Vec<Report>> {
        thread::scope(|scope| {
            let runs = TARGETS.each_ref().map(|target| scope.spawn(move || self.report(target)));
            runs.into_iter()
                .zip(TARGETS)
                .map(|(run, target)| match run.join() {
                    Ok(report) => report.with_context(|| format!("for {}", target.name)),
                    Err(_) => bail!("compiling for {} panicked", target.name),
                })
                .collect()
        })
    }

    fn report(&self, target: &Target) -> Result<Report> {
        let text = process::stdout_of(&mut self.command(target))?;
        let report: Report = serde_json::from_str(&text).context("the program wrote no report")?;
        if !report.device.ends_with(target.device) {
            bail!("Mesa took the chip for `{}`, not for `{}`", report.device, target.device);
        }
        // Tests and users must never get results from a device that computes nothing.
        match &report.refusal {
            Some(refusal) if refusal.contains("computes nothing") => Ok(report),
            Some(refusal) => bail!("the backend refuses the shim's device for another reason: {refusal}"),
            None => bail!("the backend opens the shim's device for work, and it computes nothing"),
        }
    }
}
