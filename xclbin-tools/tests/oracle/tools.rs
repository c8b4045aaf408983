//! Where the other tools are: in the Debian root that `BIGA_NPU_TOOLS` names, run by the root's own loader.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The Debian root with `xclbinutil`, `bootgen`, `aiebu-asm` and `aiebu-dump`.
pub(crate) struct Tools {
    root: PathBuf,
}

impl Tools {
    /// The tools, or a printed reason why the test cannot check anything.
    pub(crate) fn find() -> Option<Tools> {
        let root = std::env::var_os("BIGA_NPU_TOOLS").filter(|root| !root.is_empty());
        if root.is_none() {
            println!(
                "skipped: BIGA_NPU_TOOLS names no Debian root with NPU packaging tools; `cargo xtask setup` makes one"
            );
        }
        root.map(|root| Tools { root: PathBuf::from(root) })
    }

    /// Runs a tool in a folder and returns what it said; its failure is the test's.
    pub(crate) fn run(&self, tool: &str, folder: &Path, args: &[&str]) -> String {
        let output = self.try_run(tool, folder, args);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{tool} {args:?}: {}\n{text}", output.status);
        text
    }

    /// As [`Tools::run`], where a failure may be what is expected.
    pub(crate) fn try_run(&self, tool: &str, folder: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(self.root.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.root.join("usr/lib/x86_64-linux-gnu"));
        command.arg(self.root.join("usr/bin").join(tool)).args(args).current_dir(folder);
        command.output().expect("the root's loader starts")
    }
}
