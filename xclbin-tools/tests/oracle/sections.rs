//! Containers and sections beside `xclbinutil`: from the same JSON the same bytes, and each reads the other's.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use xclbin_tools::{
    Error,
    axlf::{Axlf, Header, Kind, Section},
    section::{self, AiePartition, BuildMetadata, Name, json::Tree},
};

use super::tools::Tools;

const MEM_TOPOLOGY: &str = r#"{"mem_topology": {"m_count": "3", "m_mem_data": [
    {"m_type": "MEM_DRAM", "m_used": "1", "m_sizeKB": "0x10000", "m_tag": "HOST", "m_base_address": "0x4000000"},
    {"m_type": "MEM_DRAM", "m_used": 1, "m_size": "0x3000000", "m_tag": "SRAM", "m_base_address": "67108864"},
    {"m_type": "MEM_STREAMING_CONNECTION", "m_used": "0", "m_tag": "dc_0", "m_base_address": "0x1"}]}}"#;

const IP_LAYOUT: &str = r#"{"ip_layout": {"m_count": 5, "m_ip_data": [
    {"m_type": "IP_PS_KERNEL", "m_subtype": "DPU", "m_functional": "PrePost", "m_kernel_id": "0x901",
     "m_base_address": "not_used", "m_name": "MLIR_AIE:MLIRAIE"},
    {"m_type": "IP_PS_KERNEL", "m_subtype": "1", "m_functional": "0", "m_kernel_id": "0x902",
     "m_base_address": "not_used", "m_name": "second:one"},
    {"m_type": "IP_KERNEL", "properties": "0x12", "m_int_enable": "true", "m_interrupt_id": "5",
     "m_ip_control": "AP_CTRL_CHAIN", "m_base_address": "0x80000", "m_name": "vadd:vadd_1"},
    {"m_type": "IP_MEM_HBM", "m_index": "3", "m_pc_index": "1", "m_base_address": "0x0", "m_name": "hbm"},
    {"m_type": "IP_DNASC", "properties": "0xffffffff", "m_base_address": "010", "m_name": "dna"}]}}"#;

const CONNECTIVITY: &str = r#"{"connectivity": {"m_count": "2", "m_connection": [
    {"arg_index": "1", "m_ip_layout_index": "0", "mem_data_index": "1"},
    {"arg_index": 3, "m_ip_layout_index": 1, "mem_data_index": 0}]}}"#;

const AIE_PARTITION: &str = r#"{"aie_partition": {"name": "QoS", "operations_per_cycle": "2048",
    "inference_fingerprint": "23423", "pre_post_fingerprint": "12345", "kernel_commit_id": "0123456789abcdef",
    "partition": {"column_width": 4, "start_columns": [0, 1, 4]},
    "PDIs": [
        {"uuid": "00000000-0000-0000-0000-000000000001", "file_name": "./first.pdi", "cdo_groups": [
            {"name": "DPU", "type": "PRIMARY", "pdi_id": "0x01", "dpu_kernel_ids": ["0x901"], "pre_cdo_groups": ["0xC1"]},
            {"name": "other", "type": "LITE", "pdi_id": "2"}]},
        {"uuid": "0x2", "file_name": "second.pdi", "cdo_groups": [
            {"type": "pre_post", "pdi_id": "0x03", "dpu_kernel_ids": ["0x902", "2307"]}]}]}}"#;

const BUILD_METADATA: &str = r#"{"schema_version": {"major": 1}, "build_metadata": {"dsa": {"vendor": "a/b",
    "feature_roms": [{"timeSinceEpoch": "1234", "vbnvName": "xilinx_v1_ipu_0_0"}], "empty": [], "none": null},
    "xclbin": {"generated_by": {"name": "v++", "version": 1.50, "text": "\u0001\t\u00e9\u007f"}}}}"#;

const AIE_METADATA: &str = r#"{"schema_version": 1, "aie_metadata": {"driver_config": {"hw_gen": 2, "on": true}}}"#;

const EMBEDDED_METADATA: &str = "<?xml version=\"1.0\"?>\n<project/>\n";

/// A folder with an input file per section, and the tools.
struct Bench {
    tools: Tools,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Bench> {
        let bench = Bench { tools: Tools::find()?, folder: tempfile::tempdir().expect("a folder") };
        let group = |json: &str, from: &str, to: &str| json.replace(from, to);
        bench.put("mem.json", MEM_TOPOLOGY);
        bench.put("ip.json", IP_LAYOUT);
        bench.put("connectivity_with_a_long_name.json", CONNECTIVITY);
        bench.put("gt.json", &group(MEM_TOPOLOGY, "mem_topology", "group_topology"));
        bench.put("gc.json", &group(CONNECTIVITY, "connectivity", "group_connectivity"));
        bench.put("partition.json", AIE_PARTITION);
        bench.put("build.json", BUILD_METADATA);
        bench.put("aie.json", AIE_METADATA);
        bench.put("kernels.xml", EMBEDDED_METADATA);
        fs::write(bench.path("first.pdi"), [1, 2, 3, 4, 5]).expect("a file");
        fs::write(bench.path("second.pdi"), vec![0xa5; 4096]).expect("a file");
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn xclbinutil(&self, args: &[&str]) -> String {
        self.tools.run("xclbinutil", self.folder.path(), &[args, &["--force"]].concat())
    }

    /// What our side makes of a section's input file.
    fn ours(&self, kind: Kind, file: &str) -> Section<'static> {
        let text = String::from_utf8(self.read(file)).expect("text");
        let bytes = if !file.ends_with(".json") {
            text.into_bytes()
        } else {
            let json = Tree::parse(&text).expect("JSON");
            let image = |name: &str| Ok::<_, Error>(Cow::Owned(self.read(name)));
            match kind {
                Kind::AIE_PARTITION => AiePartition::from_json(&json, "", image).and_then(|made| made.to_bytes()),
                _ => section::from_json(kind, &json).map(|bytes| bytes.expect("a kind with JSON")),
            }
            .unwrap_or_else(|error| panic!("{kind}: {error}"))
        };
        let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).expect("a name");
        Section { kind, name: Name::cut(stem.as_bytes()), bytes: Cow::Owned(bytes) }
    }
}

/// Every kind that has a model here, in an order that is not that of the numbers.
const INPUTS: [(Kind, &str, &str); 9] = [
    (Kind::MEM_TOPOLOGY, "JSON", "mem.json"),
    (Kind::AIE_PARTITION, "JSON", "partition.json"),
    (Kind::EMBEDDED_METADATA, "RAW", "kernels.xml"),
    (Kind::IP_LAYOUT, "JSON", "ip.json"),
    (Kind::CONNECTIVITY, "JSON", "connectivity_with_a_long_name.json"),
    (Kind::GROUP_CONNECTIVITY, "JSON", "gc.json"),
    (Kind::GROUP_TOPOLOGY, "JSON", "gt.json"),
    (Kind::BUILD_METADATA, "JSON", "build.json"),
    (Kind::AIE_METADATA, "JSON", "aie.json"),
];

#[track_caller]
fn assert_same(what: &str, ours: &[u8], theirs: &[u8]) {
    if ours != theirs {
        let at = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(ours.len().min(theirs.len()));
        let near = |bytes: &[u8]| bytes[at.saturating_sub(40)..bytes.len().min(at + 40)].escape_ascii().to_string();
        panic!("{what}: {} bytes, theirs {}, from {at:#x}\n{}\n{}", ours.len(), theirs.len(), near(ours), near(theirs));
    }
}

#[test]
fn a_section_alone_is_theirs() {
    let Some(bench) = Bench::new() else { return };
    for (kind, format, file) in INPUTS {
        let wish = format!("{kind}:{format}:{file}");
        bench.xclbinutil(&["--add-section", &wish, "--skip-uuid-insertion", "--output", "theirs.xclbin"]);
        let theirs = bench.read("theirs.xclbin");
        let theirs = Axlf::parse(&theirs).expect("their file");
        let ours = bench.ours(kind, file);
        let section = theirs.section(kind).expect("their section");
        assert_same(&kind.to_string(), &ours.bytes, &section.bytes);
        assert_eq!(ours.name, section.name);
    }
}

#[test]
fn a_whole_file_is_theirs_and_each_reads_the_other() {
    let Some(bench) = Bench::new() else { return };
    let wishes: Vec<String> = INPUTS.iter().map(|(kind, format, file)| format!("{kind}:{format}:{file}")).collect();
    let mut args: Vec<&str> = wishes.iter().flat_map(|wish| ["--add-section", wish]).collect();
    args.extend(["--skip-bank-grouping", "--output", "theirs.xclbin"]);
    bench.xclbinutil(&args);
    let theirs_bytes = bench.read("theirs.xclbin");
    let theirs = Axlf::parse(&theirs_bytes).expect("their file");

    let sections: Vec<_> = INPUTS.iter().map(|(kind, _, file)| bench.ours(*kind, file)).collect();
    let mut header = Header { uuid: theirs.header().uuid, ..Header::default() };
    header.set_time(theirs.header().timestamp);
    let build = BuildMetadata::parse(&theirs.section(Kind::BUILD_METADATA).expect("their section").bytes);
    header.set_platform(&build.and_then(|build| build.feature_rom()).expect("their platform"));
    let ours = Axlf::new(header, sections);
    let ours_bytes = ours.to_bytes().expect("our file");
    assert_same("file", &ours_bytes, &theirs_bytes);

    fs::write(bench.path("ours.xclbin"), &ours_bytes).expect("a file");
    let info = bench.xclbinutil(&["--info", "--input", "ours.xclbin"]);
    assert!(info.contains(&theirs.header().uuid.to_string()) && info.contains("HOST"), "{info}");
    for section in ours.sections() {
        let json = match section.kind {
            Kind::EMBEDDED_METADATA => continue,
            Kind::AIE_PARTITION => {
                let partition = AiePartition::parse(&section.bytes).expect("our section");
                Tree::default().with("aie_partition", partition.to_json(&partition.file_names()))
            }
            kind => section::to_json(kind, &section.bytes).expect("our section").expect("JSON"),
        };
        let wish = format!("{}:JSON:dump.json", section.kind);
        bench.xclbinutil(&["--dump-section", &wish, "--input", "ours.xclbin"]);
        assert_same(&format!("dump of {}", section.kind), json.to_json().as_bytes(), &bench.read("dump.json"));
    }
    let wish = "IP_LAYOUT:JSON:all.json";
    let mut all = Command::new(env!("CARGO_BIN_EXE_xclbin"));
    all.args(["dump", "ours.xclbin"]).current_dir(bench.folder.path());
    fs::write(bench.path("all.json"), all.output().expect("xclbin starts").stdout).expect("a file");
    bench.xclbinutil(&["--add-section", wish, "--output", "again.xclbin"]);
    let again = bench.read("again.xclbin");
    let again = Axlf::parse(&again).expect("their file");
    assert_eq!(again.section(Kind::IP_LAYOUT).map(|ip| &ip.bytes), ours.section(Kind::IP_LAYOUT).map(|ip| &ip.bytes));
    let images = AiePartition::parse(&ours.section(Kind::AIE_PARTITION).expect("ours").bytes).expect("ours").pdis.len();
    assert_eq!(images, 2);
    assert_eq!(bench.read("00000000-0000-0000-0000-000000000002.pdi"), bench.read("second.pdi"));
}

#[test]
fn removed_and_replaced_sections_leave_the_same_file() {
    let Some(bench) = Bench::new() else { return };
    let add = ["--add-section", "MEM_TOPOLOGY:JSON:mem.json", "--add-section", "EMBEDDED_METADATA:RAW:kernels.xml"];
    let more = ["--add-section", "CONNECTIVITY:JSON:connectivity_with_a_long_name.json", "--output", "first.xclbin"];
    bench.xclbinutil(&[&add[..], &more].concat());
    let change = ["--input", "first.xclbin", "--remove-section", "CONNECTIVITY", "--skip-uuid-insertion"];
    let replace = ["--add-replace-section", "MEM_TOPOLOGY:JSON:mem.json", "--output", "second.xclbin"];
    bench.xclbinutil(&[&change[..], &replace].concat());
    let first = bench.read("first.xclbin");
    let mut axlf = Axlf::parse(&first).expect("their file");
    assert_same("as it was", &axlf.to_bytes().expect("a file"), &first);
    let sections = axlf.sections_mut();
    sections.retain(|section| section.kind != Kind::CONNECTIVITY);
    sections.rotate_left(1);
    assert_same("changed", &axlf.to_bytes().expect("a file"), &bench.read("second.xclbin"));
}

/// A package that is kept for fuzzing, and those of the folder that `BIGA_NPU_FILES` names, if it does.
#[test]
fn files_are_laid_out_anew_as_theirs() {
    let Some(bench) = Bench::new() else { return };
    // Of other devices; what the mirror would hold of them is not written.
    let bare = [9, 11, 15, 20, 28].map(Kind);
    let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/xclbin/copy")];
    if let Some(folder) = std::env::var_os("BIGA_NPU_FILES").filter(|folder| !folder.is_empty()) {
        let files = fs::read_dir(folder).expect("the folder can be listed");
        let files = files.map(|file| file.expect("an entry").path());
        paths.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "xclbin")));
    }
    for path in paths {
        let bytes = fs::read(&path).expect("a file");
        let mut axlf = Axlf::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if axlf.sections().iter().any(|section| bare.contains(&section.kind)) {
            continue;
        }
        let path = path.to_str().expect("a path in UTF-8");
        bench.xclbinutil(&["--input", path, "--output", "anew.xclbin", "--skip-uuid-insertion"]);
        axlf.header_mut();
        assert_same(path, &axlf.to_bytes().expect("a file"), &bench.read("anew.xclbin"));
    }
}
