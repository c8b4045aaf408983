//! Replays the kept inputs of the fuzz targets, with no fuzzer needed.

use std::{fs, path::Path};

#[path = "../../fuzz/checks/aie_elf.rs"]
mod aie_elf;
#[path = "../../fuzz/checks/cdo.rs"]
mod cdo;
#[path = "../../fuzz/checks/package_json.rs"]
mod package_json;
#[path = "../../fuzz/checks/pdi.rs"]
mod pdi;
#[path = "../../fuzz/checks/txn.rs"]
mod txn;
#[path = "../../fuzz/checks/xclbin.rs"]
mod xclbin;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{} holds no input", folder.display());
}

#[test]
fn xclbin_inputs_are_harmless() {
    replay("xclbin", xclbin::check);
}

#[test]
fn pdi_inputs_are_harmless() {
    replay("pdi", pdi::check);
}

#[test]
fn cdo_inputs_are_harmless() {
    replay("cdo", cdo::check);
}

#[test]
fn txn_inputs_are_harmless() {
    replay("txn", txn::check);
}

#[test]
fn elf_inputs_are_harmless() {
    replay("aie_elf", aie_elf::check);
}

#[test]
fn json_inputs_are_harmless() {
    replay("package_json", package_json::check);
}
