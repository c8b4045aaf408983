//! Any text as the JSON that packages and ELF files are built from. What is accepted builds the same twice.

use std::borrow::Cow;

use xclbin_tools::{
    Error,
    axlf::{Axlf, Kind, Uuid},
    elf::Config,
    package::{Inputs, Stamp, kernels_from_json, manifest},
    section::{self, AiePartition, json::Tree},
};

const STAMP: Stamp = Stamp { uuid: Uuid([7; 16]), time: 1 };

/// Reads `data` as each kind of file.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(config) = Config::parse(text) {
        let _ = config.kernels.iter().try_for_each(|kernel| kernel.signature().map(drop));
    }
    let Ok(json) = Tree::parse(text) else { return };
    // A text alone is no document, and none is written for it.
    if !json.children.is_empty() {
        assert_eq!(Tree::parse(&json.to_line()).as_ref(), Ok(&json), "JSON is written as it was read");
    }
    let image = |_: &str| -> Result<Cow<'static, [u8]>, Error> { Ok(Cow::Borrowed(b"image")) };
    if let Ok(inputs) = manifest::read(&json, image) {
        build(inputs);
    }
    for kind in Kind::all() {
        let _ = section::from_json(kind, &json);
    }
    let partition = AiePartition::from_json(&json, "", image).ok();
    let kernels = kernels_from_json(&json).unwrap_or_default();
    if partition.is_some() || !kernels.is_empty() {
        build(Inputs { partition, kernels, ..Inputs::default() });
    }
}

fn build(inputs: Inputs<'_>) {
    let bytes = |inputs: Inputs<'_>| inputs.build(STAMP).and_then(|package| package.to_bytes());
    let Ok(once) = bytes(inputs.clone()) else { return };
    assert_eq!(bytes(inputs).as_ref(), Ok(&once), "the same input makes the same bytes");
    assert!(Axlf::parse(&once).is_ok(), "what was built can be read");
}
