//! Packages beside `xclbinutil` 2.25: with the same options both write the same files, byte for byte.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use xclbin_tools::{
    axlf::Axlf,
    cdo::assemble,
    pdi::{self, build},
    section::json::Tree,
};

use crate::tools::Tools;

const UUID: &str = "SYS:XclbinUUID:00112233-4455-6677-8899-aabbccddeeff";
const FIXTURES: [(&str, &str); 12] = [
    ("kernels.json", include_str!("../fixtures/package/kernels.json")),
    ("kernels_16.json", include_str!("../fixtures/package/kernels_16.json")),
    ("kernels_odd.json", include_str!("../fixtures/package/kernels_odd.json")),
    ("kernels_banks.json", include_str!("../fixtures/package/kernels_banks.json")),
    ("mem_topology.json", include_str!("../fixtures/package/mem_topology.json")),
    ("mem_banks.json", include_str!("../fixtures/package/mem_banks.json")),
    ("partition_npu1.json", include_str!("../fixtures/package/partition_npu1.json")),
    ("partition_npu4.json", include_str!("../fixtures/package/partition_npu4.json")),
    ("partition_both.json", include_str!("../fixtures/package/partition_both.json")),
    ("manifest.json", include_str!("../fixtures/package/manifest.json")),
    (
        "units.json",
        r#"{"ip_layout": {"m_count": "1", "m_ip_data": [{"m_type": "IP_KERNEL", "properties": "0x305",
      "m_base_address": "0x1000", "m_name": "k:k"}]}}"#,
    ),
    (
        "odd.xml",
        "<project name='a&quot;b'>\n <!-- c -->\n <platform><device><core><kernel name=\"k\">\n\
                 </kernel></core></device></platform><t>  x   y </t></project>",
    ),
];

/// Two folders with the same files: in one `xclbinutil` works, in the other we do.
struct Sides<'t> {
    tools: &'t Tools,
    folder: TempDir,
}

impl Sides<'_> {
    fn new(tools: &Tools) -> Sides<'_> {
        let sides = Sides { tools, folder: tempfile::tempdir().expect("a folder") };
        let cdos = ["passthrough.cdo.txt", "passthrough-npu4.cdo.txt"].map(|name| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
            assemble(&fs::read_to_string(path).expect("a fixture")).expect("a CDO")
        });
        let [a, mut b] = cdos.map(|cdo| build(&[&cdo], &pdi::Options::default()).expect("a PDI"));
        // A length that needs padding behind it.
        b.push(7);
        for folder in [sides.theirs(""), sides.ours("")] {
            fs::create_dir_all(folder.join("sub")).expect("a folder");
            for (name, text) in FIXTURES {
                fs::write(folder.join(name), text).expect("a file");
            }
            fs::write(folder.join("a.pdi"), &a).expect("a file");
            fs::write(folder.join("sub/b.pdi"), &b).expect("a file");
        }
        sides
    }

    fn theirs(&self, file: &str) -> PathBuf {
        self.folder.path().join("theirs").join(file)
    }

    fn ours(&self, file: &str) -> PathBuf {
        self.folder.path().join("ours").join(file)
    }

    /// What we answer, at the time of a package that they made.
    fn run_ours(&self, args: &[&str], time_of: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xclbin"));
        command.args(args).current_dir(self.ours(""));
        let made = time_of.and_then(|file| fs::read(self.theirs(file)).ok()).unwrap_or_default();
        if let Ok(package) = Axlf::parse(&made) {
            command.env("SOURCE_DATE_EPOCH", package.header().timestamp.to_string());
        }
        command.output().expect("xclbin starts")
    }

    /// Both run the same command line, and the files that it writes are the same.
    fn check(&self, args: &str, files: &[&str]) {
        let args: Vec<&str> = args.split_whitespace().collect();
        self.tools.run("xclbinutil", &self.theirs(""), &args);
        let output = self.run_ours(&args, files.first().copied());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        for file in files {
            self.check_file(file, &format!("{args:?}"));
        }
    }

    fn check_file(&self, file: &str, args: &str) {
        let [theirs, ours] = [self.theirs(file), self.ours(file)].map(|path| fs::read(path).expect(file));
        let at = theirs.iter().zip(&ours).position(|(a, b)| a != b);
        assert_eq!((at, theirs.len()), (None, ours.len()), "{args}: {file} differs");
    }

    /// Both refuse.
    fn refuse(&self, args: &str, words: &str) {
        let args: Vec<&str> = args.split_whitespace().collect();
        let theirs = self.tools.try_run("xclbinutil", &self.theirs(""), &args);
        assert!(!theirs.status.success(), "xclbinutil takes {args:?}");
        let ours = self.run_ours(&args, None);
        let text = String::from_utf8_lossy(&ours.stderr);
        assert!(!ours.status.success() && text.contains(words), "{args:?}: {text}");
    }
}

/// The command line of mlir-aie's `aiecc`.
fn aiecc(kernels: &str, partition: &str, output: &str) -> String {
    format!(
        "--add-replace-section MEM_TOPOLOGY:JSON:mem_topology.json --add-kernel {kernels} --add-replace-section \
         AIE_PARTITION:JSON:{partition} --force --output {output} --key-value {UUID}"
    )
}

#[test]
fn packages_of_a_compiler_are_the_same() {
    let Some(tools) = Tools::find() else { return };
    let sides = Sides::new(&tools);
    for partition in ["partition_npu1.json", "partition_npu4.json"] {
        sides.check(&aiecc("kernels.json", partition, "x.xclbin"), &["x.xclbin"]);
        let uuid = UUID.rsplit(':').next().expect("a uuid");
        let options = ["build", "--kernels", "kernels.json", "--mem-topology", "mem_topology.json", "--partition"];
        let options = [&options[..], &[partition, "-o", "x.xclbin", "--force", "--uuid", uuid]].concat();
        let output = sides.run_ours(&options, Some("x.xclbin"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sides.check_file("x.xclbin", "build");
    }
    // A second kernel, as aiecc's `--xclbin-input` adds it, with the partition as dumped and extended.
    sides.check(&aiecc("kernels.json", "partition_npu1.json", "x.xclbin"), &["x.xclbin"]);
    let dumped = ["p.json", "12345678-9abc-4def-8123-456789abcdef.pdi"];
    sides.check("--dump-section AIE_PARTITION:JSON:p.json --force --quiet --input x.xclbin", &dumped);
    let add = "--input x.xclbin --add-kernel kernels_16.json --add-replace-section \
               AIE_PARTITION:JSON:partition_both.json --force --output y.xclbin";
    sides.check(&format!("{add} --key-value {UUID}"), &["y.xclbin"]);
}

#[test]
fn kernels_of_all_sorts_are_the_same() {
    let Some(tools) = Tools::find() else { return };
    let sides = Sides::new(&tools);
    let odd = "--add-section MEM_TOPOLOGY:JSON:mem_topology.json EMBEDDED_METADATA:RAW:odd.xml --add-kernel \
               kernels_odd.json kernels_16.json -o odd.xclbin";
    sides.check(&format!("{odd} --key-value {UUID}"), &["odd.xclbin"]);
    // An argument that reaches several banks, neighbours or not.
    let banks = "--add-section MEM_TOPOLOGY:JSON:mem_banks.json --add-kernel kernels_banks.json -o banks.xclbin";
    sides.check(&format!("{banks} --key-value {UUID}"), &["banks.xclbin"]);
}

#[test]
fn changes_are_the_same() {
    let Some(tools) = Tools::find() else { return };
    let sides = Sides::new(&tools);
    sides.check(&aiecc("kernels.json", "partition_npu4.json", "x.xclbin"), &["x.xclbin"]);
    let check = |options: &str| {
        sides.check(&format!("-ix.xclbin -o y.xclbin --force --skip-uuid {options}"), &["y.xclbin"]);
    };
    check("");
    check("--remove-section IP_LAYOUT AIE_PARTITION");
    check("--remove-section GROUP_TOPOLOGY GROUP_CONNECTIVITY");
    check("--remove-section GROUP_TOPOLOGY GROUP_CONNECTIVITY --skip-bank-grouping");
    check("--reset-bank-grouping");
    check("--add-kernel kernels_16.json --skip-bank-grouping");
    check("--replace-section MEM_TOPOLOGY:JSON:mem_topology.json");
    check(
        "--remove-section MEM_TOPOLOGY GROUP_TOPOLOGY --add-section MEM_TOPOLOGY:JSON:mem_topology.json PDI:RAW:a.pdi",
    );
    check("--add-replace-section EMBEDDED_METADATA:RAW:odd.xml");
    check("--remove-section IP_LAYOUT --append-section :JSON:units.json");
    check("--remove-section IP_LAYOUT --add-section :JSON:units.json USER_METADATA:RAW:units.json");
    check("--key-value USER:b:x USER:a:y/z USER:b:q sys:mode:hw_emu SYS:action_mask:LOAD_PDI");
    check("--key-value SYS:action_mask:LOAD_AIE SYS:PlatformVBNV:a_b_c SYS:FeatureRomTimestamp:77 USER:k:v:w");
    check("--key-value SYS:InterfaceUUID:00112233445566778899aabbccddeeff");
    sides.check("-i x.xclbin -o k.xclbin --skip-uuid-insertion --key-value USER:b:x USER:a:y", &["k.xclbin"]);
    sides.check("-i k.xclbin -o l.xclbin --skip-uuid-insertion --remove-key b --key-value USER:c:", &["l.xclbin"]);
}

#[test]
fn dumps_are_the_same_and_each_reads_the_others_files() {
    let Some(tools) = Tools::find() else { return };
    let sides = Sides::new(&tools);
    sides.check(&aiecc("kernels.json", "partition_npu1.json", "x.xclbin"), &["x.xclbin"]);
    let (mut options, mut files) = (String::new(), Vec::new());
    for kind in ["MEM_TOPOLOGY", "IP_LAYOUT", "CONNECTIVITY", "GROUP_TOPOLOGY", "GROUP_CONNECTIVITY"] {
        options.push_str(&format!("{kind}:JSON:{kind}.json {kind}:RAW:{kind}.bin "));
        files.extend([format!("{kind}.json"), format!("{kind}.bin")]);
    }
    let files: Vec<&str> = files.iter().map(String::as_str).chain(["em.xml", "ap.json"]).collect();
    let rest = ":JSON:all.json EMBEDDED_METADATA:RAW:em.xml AIE_PARTITION:JSON:ap.json";
    let line = format!("--input x.xclbin --dump-section {options} {rest}");
    let args: Vec<&str> = line.split_whitespace().collect();
    tools.run("xclbinutil", &sides.theirs(""), &args);
    assert!(sides.run_ours(&args, None).status.success());
    for file in files {
        sides.check_file(file, "dumped");
    }
    // Of all sections xclbinutil forgets those before EMBEDDED_METADATA; we do not.
    let [theirs, all] = [sides.theirs("all.json"), sides.ours("all.json")]
        .map(|path| Tree::parse(&fs::read_to_string(path).expect("a dump")).expect("JSON").children);
    assert_eq!(all.first().map(|(node, _)| node.as_str()), Some("mem_topology"));
    assert_eq!(all.get(1..), Some(&theirs[..]));
    // What was dumped makes the same package again.
    let again = aiecc("kernels.json", "ap.json", "again.xclbin").replace("mem_topology.json", "MEM_TOPOLOGY.json");
    sides.check(&again, &["again.xclbin"]);
}

#[test]
fn both_refuse_the_same() {
    let Some(tools) = Tools::find() else { return };
    let sides = Sides::new(&tools);
    sides.check(&aiecc("kernels.json", "partition_npu1.json", "x.xclbin"), &["x.xclbin"]);
    let check = |options: &str, words: &str| sides.refuse(&format!("-i x.xclbin -o y.xclbin {options}"), words);
    check("--add-kernel kernels.json", "\"MLIR_AIE\"");
    check("--add-section MEM_TOPOLOGY:JSON:mem_topology.json", "section MEM_TOPOLOGY");
    check("--add-section MEM_TOPOLOGY:RAW:mem_topology.json", "MEM_TOPOLOGY is given as JSON, not as RAW");
    check("--add-section NOTHING:RAW:mem_topology.json", "no section \"NOTHING\"");
    check("--remove-section PDI", "section PDI");
    check("--replace-section PDI:RAW:a.pdi", "section PDI");
    check("--dump-section PDI:RAW:z.pdi", "section PDI");
    check("--dump-section EMBEDDED_METADATA:JSON:z.json", "EMBEDDED_METADATA is not dumped as Json");
    check("--remove-key k", "no such key");
    check("--key-value SYS:nothing:1", "SYS:nothing");
    check("--key-value OTHER:nothing:1", "neither SYS nor USER");
    check("--key-value SYS:mode:none", "SYS:mode:none");
    check("--add-section A:B", "too few parts");
    check("--add-kernel mem_topology.json", "no \"ps-kernels\"");
    check("--add-kernel nothing.json", "nothing.json");
    check("--in x.xclbin", "");
    check("--nonsense", "unknown option --nonsense");
    check("x.xclbin", "belongs to no option");
    sides.refuse("-i x.xclbin -o x.xclbin --force", "is read and written");
    sides.refuse("-i x.xclbin --dump-section AIE_PARTITION:JSON:x.xclbin --force", "is read and written");
    sides.refuse("-i x.xclbin --dump-section IP_LAYOUT:JSON:mem_topology.json", "--force overwrites it");
    let other_id = "--add-section MEM_TOPOLOGY:JSON:mem_topology.json AIE_PARTITION:JSON:partition_npu1.json";
    sides.refuse(&format!("{other_id} --add-kernel kernels_16.json -o z.xclbin"), "kernel id 0x90a");
    sides.refuse("--add-kernel kernels.json -o z.xclbin", "MEM_TOPOLOGY has no memory");
}

#[test]
fn xclbinutil_reads_what_we_describe_split_and_merge() {
    let Some(tools) = Tools::find() else { return };
    let sides = Sides::new(&tools);
    let ours = |line: &str| {
        let output = sides.run_ours(&line.split_whitespace().collect::<Vec<_>>(), None);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    };
    ours("build --manifest manifest.json -o m.xclbin");
    ours("split m.xclbin -o parts");
    ours("merge parts/m.0.xclbin parts/m.1.xclbin -o n.xclbin");
    for file in ["m.xclbin", "n.xclbin", "parts/m.0.xclbin", "parts/m.1.xclbin"] {
        let info = tools.run("xclbinutil", &sides.ours(""), &["--info", "--input", file]);
        assert!(info.contains("IP_LAYOUT, CONNECTIVITY, GROUP_CONNECTIVITY"), "{file}: {info}");
        // Their copy, with the sections that depend on others made anew, is ours.
        let copy = ["--reset-bank-grouping", "--skip-uuid-insertion", "--force", "-o", "copy.xclbin", "-i", file];
        tools.run("xclbinutil", &sides.ours(""), &copy);
        assert!(fs::read(sides.ours(file)).expect("ours") == fs::read(sides.ours("copy.xclbin")).expect("theirs"));
    }
}
