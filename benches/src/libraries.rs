//! Where programs find their libraries: in Debian roots beside the system, in further folders, in the system's.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::process;

/// Where programs find their libraries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Libraries {
    loader: Option<PathBuf>,
    folders: Vec<PathBuf>,
    /// llama.cpp looks for its backends in the current folder, among others.
    backends: Option<PathBuf>,
    programs: Vec<PathBuf>,
}

/// Asking the system's dynamic loader takes no longer.
const LDCONFIG_LIMIT: Duration = Duration::from_secs(10);

impl Libraries {
    /// Of Debian roots, whose dynamic loader (the first one's) then runs every program, and of plain
    /// folders. With neither, programs run as the system runs them. A root's loader does not look where the
    /// system keeps its libraries, which a driver of the system may need: their folders come last.
    ///
    /// # Errors
    /// If a folder is not there.
    pub(crate) fn of(places: &[PathBuf]) -> Result<Libraries> {
        let mut libraries = Libraries::default();
        for place in places {
            let place = std::path::absolute(place)?;
            if !place.is_dir() {
                bail!("no folder {}", place.display());
            }
            let folder = place.join("usr/lib/x86_64-linux-gnu");
            if !folder.is_dir() {
                libraries.folders.push(place);
                continue;
            }
            let loader = place.join("usr/lib64/ld-linux-x86-64.so.2");
            libraries.loader = libraries.loader.or(loader.is_file().then_some(loader));
            libraries.backends = libraries.backends.or_else(|| backends(&folder.join("ggml")));
            libraries.programs.push(place.join("usr/bin"));
            let own = folder.join("llama");
            libraries.folders.push(folder);
            libraries.folders.extend(own.is_dir().then_some(own));
        }
        if libraries.loader.is_some() {
            libraries.folders.extend(system_folders());
        }
        Ok(libraries)
    }

    /// A program of this name: in a root, in one of `folders`, or on PATH.
    pub(crate) fn find(&self, name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = folders.iter().chain(&self.programs).cloned().chain(std::env::split_paths(&path));
        places.map(|folder| folder.join(name)).find(|program| program.is_file())
    }

    /// A command that runs the program on these libraries.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let joined = self.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
        let mut command = match &self.loader {
            Some(loader) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(joined).arg(program);
                command
            }
            None => {
                let mut command = Command::new(program);
                if !joined.is_empty() {
                    command.env("LD_LIBRARY_PATH", joined);
                }
                command
            }
        };
        if let Some(folder) = &self.backends {
            command.current_dir(folder);
        }
        command
    }
}

/// The folder of llama.cpp's backends; its name carries the version of their interface.
fn backends(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).max()
}

/// Where the system's own dynamic loader finds libraries: what it says, or else the usual folders.
fn system_folders() -> Vec<PathBuf> {
    let usual = ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/lib"];
    // An administrator's program, so often not on PATH.
    let listed = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"].into_iter().find_map(|program| {
        let output = process::run(Command::new(program).arg("-p"), LDCONFIG_LIMIT).ok()??;
        Some(listed_folders(&output.success().ok()?.stdout))
    });
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in listed.unwrap_or_default().into_iter().chain(usual.map(PathBuf::from)) {
        // One folder often has two names.
        let Ok(folder) = folder.canonicalize() else { continue };
        if folder.is_dir() && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The folders in the answer of `ldconfig -p`: `libX11.so.6 (libc6,x86-64) => /usr/lib/libX11.so.6`.
fn listed_folders(listed: &str) -> BTreeSet<PathBuf> {
    let own = listed.lines().filter(|line| line.contains("x86-64"));
    own.filter_map(|line| Some(Path::new(line.split_once(" => ")?.1.trim()).parent()?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::{Libraries, listed_folders, system_folders};
    use std::path::{Path, PathBuf};

    #[test]
    fn roots_and_folders_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu/ggml/backends7")).unwrap();
        std::fs::create_dir_all(root.join("usr/lib64")).unwrap();
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::write(root.join("usr/lib64/ld-linux-x86-64.so.2"), "").unwrap();
        std::fs::write(root.join("usr/bin/engine"), "").unwrap();
        let plain = folder.path().join("plain");
        std::fs::create_dir(&plain).unwrap();
        let libraries = Libraries::of(&[root.clone(), plain.clone()]).unwrap();
        let program = libraries.find("engine", &[]).unwrap();
        let command = libraries.command(&program);
        assert!(command.get_program().to_string_lossy().ends_with("ld-linux-x86-64.so.2"));
        let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let mut folders = vec![root.join("usr/lib/x86_64-linux-gnu"), plain.clone()];
        folders.extend(system_folders());
        assert!(folders.len() > 2, "this machine has libraries of its own");
        assert_eq!(words[1].split(':').map(PathBuf::from).collect::<Vec<_>>(), folders);
        assert!(folders.contains(&Path::new("/usr/lib").canonicalize().unwrap()));
        assert!(command.get_current_dir().unwrap().ends_with("backends7"));
        assert!(Libraries::of(&[folder.path().join("none")]).is_err());
        assert_eq!(Libraries::default().command(&program).get_program(), program.as_os_str());
    }

    #[test]
    fn the_systems_folders_are_those_of_our_kind_of_processor() {
        let listed = "2 libs found\n\tliba.so.1 (libc6,x86-64, OS ABI: Linux 3.2.0) => /usr/lib/a/liba.so.1\n\t\
                      liba.so.1 (libc6) => /usr/lib/i386/liba.so.1\n\tlibb.so (libc6,x86-64) => /usr/lib/a/libb.so\n";
        assert_eq!(listed_folders(listed).into_iter().collect::<Vec<_>>(), [PathBuf::from("/usr/lib/a")]);
        assert!(system_folders().iter().all(|folder| folder.is_dir()));
    }
}
