//! Stored measurements: one JSON file, keyed by what identifies a device, so that figures of other
//! hardware or of an older driver are never used. Drawn in `docs/src/formats/machine-json.md`.
//!
//! A file that is not ours, or that cannot be read, is left as it is: it is ignored with a warning, and
//! saving moves it aside instead of writing over it.

use std::{
    collections::BTreeMap,
    env, fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use biga_hal::{Choices, DeviceId, Rates};

use super::{Link, Topology, measure::Measured};

/// Measurements of one or more machines.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurements {
    version: u32,
    devices: BTreeMap<String, StoredDevice>,
    links: Vec<StoredLink>,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct StoredDevice {
    name: String,
    rates: Rates,
    #[serde(skip_serializing_if = "Choices::is_empty", default)]
    choices: Choices,
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct StoredLink {
    from: String,
    to: String,
    latency_s: f64,
    /// Absent where memory is shared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    bytes_per_s: Option<f64>,
}

/// A store that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("measurements cannot be stored in {path}: {source}")]
pub struct StoreError {
    path: PathBuf,
    source: io::Error,
}

/// The version that is written and read.
const VERSION: u32 = 1;
/// Larger files are not ours.
const MAX_BYTES: u64 = 1 << 20;
/// More choices for a device than any backend makes, and longer ones, are left out.
const MAX_CHOICES: usize = 16;
const MAX_CHOICE_BYTES: usize = 64;

impl Measurements {
    /// Where measurements are kept if the user names no file: `biga/machine.json` in the user's
    /// configuration folder, or `None` if there is none.
    pub fn default_path() -> Option<PathBuf> {
        let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
        Some(config.join("biga").join("machine.json"))
    }

    /// Reads a store. A file that is absent is empty; one that is of no use is empty too, and the second
    /// value says why.
    pub fn load(path: &Path) -> (Measurements, Option<String>) {
        match read(path) {
            Ok(measurements) => (measurements, None),
            Err(cause) => (Measurements::empty(), Some(format!("measurements in {} ignored: {cause}", path.display()))),
        }
    }

    /// True if nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.links.is_empty()
    }

    /// Takes new measurements in; those of other identities stay.
    pub fn update(&mut self, topology: &Topology, measured: &Measured) {
        let identity = |id: DeviceId| topology.device(id).map(|info| (info.identity.clone(), info.name.clone()));
        for &(id, rates) in &measured.rates {
            if let Some((identity, name)) = identity(id) {
                let choices = self.devices.remove(&identity).map_or_else(Choices::new, |stored| stored.choices);
                self.devices.insert(identity, StoredDevice { name, rates, choices });
            }
        }
        // A device that was opened with other kernels has nothing to choose; what others chose stays.
        for (id, choices) in measured.choices.iter().filter(|(_, choices)| !choices.is_empty()) {
            if let Some(stored) = identity(*id).and_then(|(identity, _)| self.devices.get_mut(&identity)) {
                stored.choices.clone_from(choices);
            }
        }
        for link in &measured.links {
            let (Some((from, _)), Some((to, _))) = (identity(link.from), identity(link.to)) else { continue };
            self.links.retain(|known| known.from != from || known.to != to);
            let bytes_per_s = (!link.shared).then_some(link.bytes_per_s);
            self.links.push(StoredLink { from, to, latency_s: link.latency_s, bytes_per_s });
        }
    }

    /// What was chosen for the device of this identity.
    pub(super) fn choices(&self, identity: &str) -> Choices {
        self.devices.get(identity).map_or_else(Choices::new, |stored| stored.choices.clone())
    }

    /// Gives devices and links of a topology their stored values where the identity is the same.
    pub fn apply(&self, topology: &mut Topology) {
        for info in &mut topology.devices {
            if let Some(stored) = self.devices.get(&info.identity) {
                info.rates = stored.rates;
            }
        }
        let mut links = Vec::new();
        for from in &topology.devices {
            for to in topology.devices.iter().filter(|to| to.id != from.id) {
                let stored = self.links.iter().find(|link| link.from == from.identity && link.to == to.identity);
                links.extend(stored.map(|stored| stored.between(from.id, to.id)));
            }
        }
        topology.links.retain(|known| !links.iter().any(|link| link.from == known.from && link.to == known.to));
        topology.links.extend(links);
    }

    /// Writes the store: whole or not at all. A file in the way that is not ours is moved aside, and its
    /// new path returned.
    ///
    /// # Errors
    /// [`StoreError`] with the path.
    pub fn save(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        let failed = |source| StoreError { path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return Err(failed(io::Error::other("it is no file")));
        }
        fs::create_dir_all(folder).map_err(failed)?;
        let aside = if read(path).is_err() { Some(move_aside(path).map_err(failed)?) } else { None };
        let new = path.with_extension(format!("json.new-{}", std::process::id()));
        let written = self.write(&new).and_then(|()| fs::rename(&new, path));
        written.map(|()| aside).map_err(|source| {
            // The half-written file is of no use to anyone; the error that matters is the first one.
            let _ = fs::remove_file(&new);
            failed(source)
        })
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = fs::File::create(path)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()
    }

    fn empty() -> Measurements {
        Measurements { version: VERSION, ..Measurements::default() }
    }

    fn check(mut self) -> Result<Measurements, String> {
        let word = |text: &String| {
            (1..=MAX_CHOICE_BYTES).contains(&text.len()) && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        };
        for StoredDevice { choices, .. } in self.devices.values_mut() {
            choices.retain(|name, value| word(name) && word(value));
            while choices.len() > MAX_CHOICES {
                choices.pop_last();
            }
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        for (identity, StoredDevice { rates, .. }) in &self.devices {
            let values = [rates.read_bytes_per_s, rates.flops_per_s, rates.launch_s, rates.submit_s];
            if !values.into_iter().all(positive) {
                return Err(format!("a rate of {identity:?} is not a positive number"));
            }
        }
        for link in &self.links {
            let latency_ok = link.latency_s.is_finite() && link.latency_s >= 0.0;
            if !latency_ok || !link.bytes_per_s.is_none_or(positive) {
                return Err(format!("the link from {:?} to {:?} has no usable figures", link.from, link.to));
            }
        }
        Ok(self)
    }
}

impl StoredLink {
    fn between(&self, from: DeviceId, to: DeviceId) -> Link {
        Link {
            from,
            to,
            latency_s: self.latency_s,
            bytes_per_s: self.bytes_per_s.unwrap_or(f64::INFINITY),
            shared: self.bytes_per_s.is_none(),
            measured: true,
        }
    }
}

fn read(path: &Path) -> Result<Measurements, String> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Measurements::empty()),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("larger than {MAX_BYTES} bytes"));
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(version) => return Err(format!("version {version}, this program reads version {VERSION}")),
        None => return Err("no version in it".to_owned()),
    }
    serde_json::from_value::<Measurements>(value).map_err(|error| error.to_string())?.check()
}

/// Renames to the first free name of `machine.json.old-N`.
fn move_aside(path: &Path) -> io::Result<PathBuf> {
    for n in 1..1000 {
        let aside = path.with_extension(format!("json.old-{n}"));
        if aside.symlink_metadata().is_err() {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other("it holds something else, and a thousand older ones stand beside it"))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use biga_hal::{DeviceId, DeviceInfo, DeviceKind, Rates};

    use super::Measurements;
    use crate::probe::{Link, Topology, measure::Measured};

    const CPU: DeviceId = DeviceId { backend: "cpu", index: 0 };
    const GPU: DeviceId = DeviceId { backend: "vulkan", index: 0 };

    fn device(id: DeviceId, kind: DeviceKind) -> DeviceInfo {
        let rates = Rates { read_bytes_per_s: 1e9, flops_per_s: 1e9, launch_s: 1e-6, submit_s: 1e-5, measured: false };
        DeviceInfo {
            id,
            name: format!("the {id}"),
            kind,
            driver: String::new(),
            memory_bytes: 1,
            max_allocation_bytes: 1,
            host_visible: true,
            rates,
            identity: format!("{id} 1.0"),
            facts: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn topology() -> Topology {
        Topology {
            devices: vec![device(GPU, DeviceKind::IntegratedGpu), device(CPU, DeviceKind::Cpu)],
            ..Topology::default()
        }
    }

    fn measured() -> Measured {
        let rates = Rates { read_bytes_per_s: 5e10, flops_per_s: 2e12, launch_s: 2e-6, submit_s: 3e-5, measured: true };
        let link =
            Link { from: GPU, to: CPU, latency_s: 4e-5, bytes_per_s: f64::INFINITY, shared: true, measured: true };
        let back = Link { from: CPU, to: GPU, latency_s: 5e-5, bytes_per_s: 1e10, shared: false, measured: true };
        let choices = [("prompt tile".to_owned(), "64x64".to_owned())].into();
        Measured {
            rates: vec![(GPU, rates)],
            choices: vec![(GPU, choices)],
            links: vec![link, back],
            failures: Vec::new(),
        }
    }

    fn saved(path: &Path) -> Measurements {
        let (mut store, warning) = Measurements::load(path);
        assert_eq!(warning, None);
        store.update(&topology(), &measured());
        assert_eq!(store.save(path).unwrap(), None);
        store
    }

    #[test]
    fn what_is_stored_comes_back_for_the_same_identity_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("biga/machine.json");
        let store = saved(&path);
        let (read, warning) = Measurements::load(&path);
        assert_eq!((&read, warning), (&store, None));

        let mut same = topology();
        read.apply(&mut same);
        assert_eq!(same.device(GPU).unwrap().rates, measured().rates[0].1);
        assert_eq!(read.choices("vulkan:0 1.0"), measured().choices[0].1);
        assert!(!same.device(CPU).unwrap().rates.measured);
        assert_eq!((same.link(GPU, CPU), same.link(CPU, GPU)), (measured().links[0], measured().links[1]));

        let mut newer_driver = topology();
        newer_driver.devices[0].identity = "vulkan:0 2.0".into();
        read.apply(&mut newer_driver);
        assert!(newer_driver.devices.iter().all(|info| !info.rates.measured));
        assert!(newer_driver.links.is_empty());
        assert!(read.choices("vulkan:0 2.0").is_empty());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn measuring_again_replaces_and_keeps_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        saved(&path);
        let mut other = topology();
        other.devices[0].identity = "another gpu".into();
        let (mut store, _) = Measurements::load(&path);
        store.update(&other, &measured());
        store.update(&other, &measured());
        assert_eq!((store.devices.len(), store.links.len()), (2, 4));
    }

    fn check_foreign(text: &[u8], cause: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        fs::write(&path, text).unwrap();
        let (store, warning) = Measurements::load(&path);
        assert!(store.is_empty());
        let warning = warning.unwrap();
        assert!(warning.contains(cause), "{warning}");
        let aside = store.save(&path).unwrap().expect("moved aside");
        assert_eq!(fs::read(aside).unwrap(), text, "nothing of the user's is lost");
        assert_eq!(Measurements::load(&path).1, None);
    }

    #[test]
    fn choices_that_no_backend_makes_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("machine.json");
        let mut store = saved(&path);
        let choices = &mut store.devices.get_mut("vulkan:0 1.0").unwrap().choices;
        choices.insert("an escape".to_owned(), "\u{1b}[31mred".to_owned());
        choices.insert("a long one".to_owned(), "x".repeat(65));
        choices.insert(String::new(), "without a name".to_owned());
        store.save(&path).unwrap();
        assert_eq!(Measurements::load(&path).0.choices("vulkan:0 1.0"), measured().choices[0].1);
        let choices = &mut store.devices.get_mut("vulkan:0 1.0").unwrap().choices;
        choices.extend((0..1000).map(|n| (format!("choice {n}"), "x".to_owned())));
        store.save(&path).unwrap();
        assert_eq!(Measurements::load(&path).0.choices("vulkan:0 1.0").len(), super::MAX_CHOICES);
    }

    #[test]
    fn measuring_with_nothing_to_choose_keeps_what_was_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = saved(&folder.path().join("machine.json"));
        store.update(&topology(), &Measured { choices: vec![(GPU, super::Choices::new())], ..measured() });
        assert_eq!(store.choices("vulkan:0 1.0"), measured().choices[0].1);
    }

    #[test]
    fn a_file_that_is_not_ours_is_ignored_and_kept() {
        check_foreign(b"", "EOF");
        check_foreign(b"\xff\xfe", "expected value");
        check_foreign(b"{\"version\": 2}", "version 2, this program reads version 1");
        check_foreign(b"{\"version\": 1, \"devices\": [], \"links\": []}", "invalid type");
        check_foreign(b"[[1]]", "no version");
        check_foreign(&vec![b' '; 2 << 20], "larger than");
        let negative = br#"{"version": 1, "links": [], "devices": {"x": {"name": "x", "rates":
            {"read_bytes_per_s": -1, "flops_per_s": 1, "launch_s": 1, "submit_s": 1, "measured": true}}}}"#;
        check_foreign(negative, "not a positive number");
    }
}
