//! `xclbin draw`.

use std::{fs, path::Path};

use tempfile::TempDir;
use xclbin_tools::{
    axlf::{Axlf, Header, Kind, Section},
    section::{AiePartition, Name, aie_partition},
};

use crate::{done, fails};

const TEXT: &str = include_str!("../fixtures/passthrough.cdo.txt");

const STREAM: &str = "stream version=0.1 generation=3 rows=6 columns=1 memory_tile_rows=1
block_write tile(0,0)+0x1d000
    0x00000400 0x00000000 0x00000000 0x00000000 0x80000000 0x00000000 0x00000000 0x02000000
patch tile(0,0)+0x1d004 argument=1 offset=0x0
write tile(0,0)+0x1d214 value=0x80000000
";

/// A folder with the fixture as CDO, PDI and package of two PDIs, and a stream for it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.txt"), TEXT).expect("the folder can be written");
    fs::write(at("insts.txt"), STREAM).expect("the folder can be written");
    done(folder.path(), &["cdo", "asm", "a.txt", "-o", "a.cdo"]);
    done(folder.path(), &["pdi", "pack", "a.cdo", "-o", "a.pdi"]);
    done(folder.path(), &["txn", "asm", "insts.txt", "-o", "insts.bin"]);
    done(folder.path(), &["elf", "build", "--stream", "insts.bin", "-o", "a.elf"]);
    let image = fs::read(at("a.pdi")).expect("the PDI is there");
    let pdi = aie_partition::Pdi { image: image.into(), ..Default::default() };
    let partition =
        AiePartition { column_width: 2, start_columns: vec![0], pdis: vec![pdi.clone(), pdi], ..Default::default() };
    let bytes = partition.to_bytes().expect("a partition");
    let section = Section { kind: Kind::AIE_PARTITION, name: Name::default(), bytes: bytes.into() };
    let package = Axlf::new(Header::default(), vec![section]).to_bytes().expect("a package");
    fs::write(at("a.xclbin"), package).expect("the folder can be written");
    folder
}

/// How often an element of a class begins with it, and whether words stand somewhere.
fn check(folder: &Path, args: &[&str], counts: &[(&str, usize)], words: &[&str]) {
    let args = [&["draw", "-o", "-"], args].concat();
    let svg = String::from_utf8(done(folder, &args)).expect("SVG is text");
    let document = roxmltree::Document::parse(&svg).expect("SVG is XML");
    let classes: Vec<&str> = document.descendants().filter_map(|node| node.attribute("class")).collect();
    for (class, expected) in counts {
        let found = classes.iter().filter(|found| found.split(' ').any(|found| found == *class)).count();
        assert_eq!(found, *expected, "{args:?}: {class}");
    }
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for expected in words {
        assert!(texts.contains(expected), "{args:?}: {expected:?} is not in {texts:?}");
    }
}

#[test]
fn every_kind_of_file_is_drawn() {
    let folder = folder();
    let folder = folder.path();
    let counts = [("tile", 6), ("buffer", 2), ("flow", 2)];
    let flows = ["0,0 MM2S 0 → 0,1 S2MM 0", "0,1 MM2S 0 → 0,0 S2MM 0"];
    check(folder, &["a.cdo"], &counts, &[&flows[..], &["a.cdo"]].concat());
    check(folder, &["a.pdi"], &counts, &flows);
    let wide = [("tile", 12), ("buffer", 2), ("flow", 2)];
    check(folder, &["a.xclbin", "--pdi", "1"], &wide, &[&flows[..], &["a.xclbin, PDI 1 of 2"]].concat());
    check(folder, &["insts.bin"], &[("tile", 6), ("flow", 0)], &["MM2S 0: bo1 4 KiB"]);
    check(folder, &["a.elf"], &[("tile", 6), ("flow", 0)], &["a.elf", "MM2S 0: bo1 4 KiB"]);
    let both = [&flows[..], &["MM2S 0: bo1 4 KiB"]].concat();
    check(folder, &["a.pdi", "--insts", "insts.bin"], &counts, &both);
    check(folder, &["a.pdi", "--tile", "0,1"], &[("tile", 1)], &["locks 0=2 1=0", "stream  DMA 0 -> south 0"]);
}

#[test]
fn wishes_that_make_no_sense_are_refused() {
    let folder = folder();
    let folder = folder.path();
    fails(folder, &["draw", "a.xclbin", "--pdi", "2", "-o", "-"], 2, "has 2 of them");
    fails(folder, &["draw", "a.elf", "--pdi", "1", "-o", "-"], 2, "no such .pdi section");
    fails(folder, &["draw", "a.pdi", "--pdi", "1", "-o", "-"], 2, "--pdi is for packages");
    fails(folder, &["draw", "a.pdi", "--tile", "1,2", "-o", "-"], 2, "its last is 0");
    fails(folder, &["draw", "a.pdi", "--tile", "2", "-o", "-"], 2, "as 0,2");
    fails(folder, &["draw", "a.txt", "-o", "-"], 3, "starts like no package");
    fails(folder, &["draw", "a.pdi"], 2, "--output");
    done(folder, &["draw", "a.pdi", "-o", "a.svg"]);
    fails(folder, &["draw", "a.pdi", "-o", "a.svg"], 1, "--force");
    done(folder, &["draw", "a.pdi", "-o", "a.svg", "--force"]);
}
