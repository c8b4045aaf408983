//! Each section from its JSON and back, from its bytes and back, and broken.

use std::borrow::Cow;

use proptest::prelude::*;

use super::{
    aie_partition::{CdoGroup, CdoType, Pdi},
    connectivity::Connection,
    embedded_metadata::{Argument, ExtendedData},
    ip_layout::{Ip, IpType},
    mem_topology::{MemType, Memory},
    *,
};
use crate::{axlf::Uuid, error::Error};

const PARTITION: &str = r#"{"aie_partition": {
    "name": "ignored", "operations_per_cycle": "2048", "inference_fingerprint": "23423", "pre_post_fingerprint": 12345,
    "partition": {"column_width": 4, "start_columns": [0, 4]},
    "PDIs": [{"uuid": "0x1-2", "file_name": "a.pdi", "cdo_groups": [
        {"name": "DPU", "type": "primary", "pdi_id": "0x01", "dpu_kernel_ids": ["0x901"], "pre_cdo_groups": ["0xC1"]}]}]}}"#;

fn partition(json: &str) -> Result<AiePartition<'static>> {
    let json = Tree::parse(json)?;
    AiePartition::from_json(&json, "", |name| {
        assert_eq!(name, "a.pdi");
        Ok::<_, Error>(Cow::Borrowed(&[1, 2, 3][..]))
    })
}

#[test]
fn a_partition_is_read_from_json_and_given_back() {
    let model = partition(PARTITION).unwrap();
    assert_eq!(model.start_columns, [0, 4]);
    assert_eq!(model.kernel_ids().collect::<Vec<_>>(), [(0, 0x901)]);
    let bytes = model.to_bytes().unwrap();
    assert_eq!(AiePartition::parse(&bytes).unwrap(), model);
    let json = Tree::default().with("aie_partition", model.to_json(&model.file_names())).to_line();
    let uuid = "00000000-0000-0000-0000-000000000012";
    assert_eq!(
        json,
        format!(
            concat!(
                r#"{{"aie_partition":{{"name":"","operations_per_cycle":"2048","inference_fingerprint":"23423","#,
                r#""pre_post_fingerprint":"12345","kernel_commit_id":"","partition":{{"column_width":"4","#,
                r#""start_columns":["0","4"]}},"PDIs":[{{"uuid":"{uuid}","file_name":"{uuid}.pdi","cdo_groups":"#,
                r#"[{{"name":"DPU","type":"PRIMARY","pdi_id":"0x1","dpu_kernel_ids":["0x901"],"#,
                r#""pre_cdo_groups":["0xc1"]}}]}}]}}}}"#,
                "\n"
            ),
            uuid = uuid
        )
    );
}

#[test]
fn images_with_one_uuid_get_files_of_their_own() {
    let uuid = Uuid([0; 16]);
    let pdis = vec![Pdi { uuid, ..Pdi::default() }, Pdi { uuid, ..Pdi::default() }];
    let names = AiePartition { pdis, ..AiePartition::default() }.file_names();
    assert_eq!(names, ["00000000-0000-0000-0000-000000000000.pdi", "00000000-0000-0000-0000-000000000000-1.pdi"]);
}

#[test]
fn json_that_makes_no_sense_is_refused_with_its_place() {
    let check = |from: &str, to: &str, words: &str| {
        assert!(PARTITION.contains(from), "{from}");
        let error = partition(&PARTITION.replace(from, to)).unwrap_err().to_string();
        assert!(error.starts_with(words), "{error}");
    };
    check("\"2048\"", "\"0x800\"", "/aie_partition/operations_per_cycle: \"0x800\": a decimal number");
    check("[0, 4]", "[]", "/aie_partition/partition/start_columns: an empty list: at least one");
    check("[0, 4]", "[0, 70000]", "/aie_partition/partition/start_columns/1: \"70000\"");
    check("0x1-2", "0xyz", "/aie_partition/PDIs/0/uuid: \"0xyz\": 1 to 32 hexadecimal digits");
    check("\"0x901\"", "\"9O1\"", "/aie_partition/PDIs/0/cdo_groups/0/dpu_kernel_ids/0: \"9O1\"");
    check("\"pdi_id\": \"0x01\"", "\"x\": 1", "/aie_partition/PDIs/0/cdo_groups/0: no \"pdi_id\"");
    check("a.pdi", "", "/aie_partition/PDIs/0/file_name: \"\"");
}

#[test]
fn two_pdis_may_share_one_image() {
    let images = [vec![7_u8; 400], vec![8; 400]];
    let pdis = images.iter().map(|image| Pdi { image: image.into(), ..Pdi::default() }).collect();
    let mut bytes = AiePartition { pdis, ..AiePartition::default() }.to_bytes().unwrap();
    let spans = AiePartition::spans(&bytes).unwrap();
    let [first, second] = [0, 1].map(|n| *spans.iter().filter(|span| span.what == "pdi_image").nth(n).unwrap());
    let at = second.at as usize + 4;
    bytes[at..at + 4].copy_from_slice(&(first.offset as u32).to_le_bytes());
    // Only what both need is left.
    let end = first.offset as usize + 400;
    assert!(second.offset as usize >= end);
    let partition = AiePartition::parse(&bytes).unwrap();
    assert!(partition.pdis.iter().all(|pdi| *pdi.image == images[0]));
}

#[test]
fn a_partition_that_names_more_than_it_has_is_refused() {
    let group = CdoGroup { kernel_ids: (0..64).collect(), ..CdoGroup::default() };
    let pdi = Pdi { groups: vec![group; 4], ..Pdi::default() };
    let model = AiePartition { pdis: vec![pdi; 4], ..AiePartition::default() };
    let good = model.to_bytes().unwrap();
    let spans = AiePartition::spans(&good).unwrap();
    let ids: Vec<_> = spans.iter().filter(|span| span.what == "dpu_kernel_ids").collect();
    assert_eq!(ids.len(), 16);
    assert!(spans.iter().all(|span| span.offset % 8 == 0));
    // All groups share one list that is as long as the section can hold.
    let mut bytes = good;
    let count = (bytes.len() as u32 - 184) / 8;
    for span in ids {
        let at = span.at as usize;
        bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&184_u32.to_le_bytes());
    }
    let error = AiePartition::parse(&bytes).unwrap_err().to_string();
    assert!(error.contains("lists that share bytes"), "{error}");
}

#[test]
fn tables_are_read_from_json_and_given_back() {
    let check = |kind: Kind, json: &str, bytes: usize| {
        let tree = Tree::parse(json).unwrap();
        let section = from_json(kind, &tree).unwrap().unwrap();
        assert_eq!(section.len(), bytes, "{json}");
        assert_eq!(to_json(kind, &section).unwrap().unwrap().to_line().trim_end(), json);
    };
    let memory =
        r#"{"m_type":"MEM_DRAM","m_used":"1","m_sizeKB":"0x10000","m_tag":"HOST","m_base_address":"0x4000000"}"#;
    check(Kind::MEM_TOPOLOGY, &format!(r#"{{"mem_topology":{{"m_count":"1","m_mem_data":[{memory}]}}}}"#), 48);
    check(Kind::GROUP_TOPOLOGY, &format!(r#"{{"group_topology":{{"m_count":"1","m_mem_data":[{memory}]}}}}"#), 48);
    let connection = r#"{"arg_index":"3","m_ip_layout_index":"0","mem_data_index":"1"}"#;
    check(Kind::CONNECTIVITY, &format!(r#"{{"connectivity":{{"m_count":"1","m_connection":[{connection}]}}}}"#), 16);
    let units = [
        r#"{"m_type":"IP_PS_KERNEL","m_subtype":"DPU","m_functional":"PrePost","m_kernel_id":"0x901","m_base_address":"not_used","m_name":"A:B"}"#,
        r#"{"m_type":"IP_KERNEL","m_int_enable":"1","m_interrupt_id":"5","m_ip_control":"AP_CTRL_CHAIN","m_base_address":"0x10","m_name":"k"}"#,
        r#"{"m_type":"IP_MEM_HBM","m_index":"2","m_pc_index":"1","m_base_address":"0x0","m_name":""}"#,
        r#"{"m_type":"IP_PS_KERNEL","properties":"0x1000000","m_base_address":"not_used","m_name":"old"}"#,
        r#"{"m_type":"IP_DNASC","properties":"0x12345678","m_base_address":"0x1","m_name":"d"}"#,
    ];
    let json = format!(r#"{{"ip_layout":{{"m_count":"5","m_ip_data":[{}]}}}}"#, units.join(","));
    check(Kind::IP_LAYOUT, &json, 8 + 5 * 80);
}

#[test]
fn wide_kernel_ids_and_wrong_counts_are_refused() {
    let check = |kind: Kind, json: &str, words: &str| {
        let error = from_json(kind, &Tree::parse(json).unwrap()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let wide = r#"{"ip_layout":{"m_count":"1","m_ip_data":[{"m_type":"IP_PS_KERNEL","m_kernel_id":"0x1010"}]}}"#;
    check(Kind::IP_LAYOUT, wide, "/ip_layout/m_ip_data/0/m_kernel_id: 0x1010: at most 0xfff");
    check(
        Kind::CONNECTIVITY,
        r#"{"connectivity":{"m_count":"2","m_connection":[]}}"#,
        "/connectivity/m_count: 2: m_connection has 0 entries",
    );
    check(Kind::MEM_TOPOLOGY, r#"{"connectivity":{}}"#, "/: no \"mem_topology\"");
    let long =
        r#"{"mem_topology":{"m_count":1,"m_mem_data":[{"m_type":"MEM_DRAM","m_used":1,"m_tag":"0123456789abcdef"}]}}"#;
    check(Kind::MEM_TOPOLOGY, long, "/mem_topology/m_mem_data/0/m_tag");
    let size = MemTopology::parse(&[1, 0, 0, 0, 0, 0, 0, 0]).unwrap_err().to_string();
    assert_eq!(size, "MEM_TOPOLOGY, byte 0x0: m_count is 1: 0 bytes of entries follow, 40 each");
}

#[test]
fn sections_that_would_take_much_memory_as_text_are_refused() {
    let json = format!(r#"{{"build_metadata":[{}1]}}"#, "1,".repeat(600_000));
    assert!(to_json(Kind::BUILD_METADATA, json.as_bytes()).unwrap_err().to_string().contains("at most 1048576 bytes"));
    let mut connections = 70_000_u32.to_le_bytes().to_vec();
    connections.resize(4 + 12 * 70_000, 0);
    assert!(to_json(Kind::CONNECTIVITY, &connections).unwrap_err().to_string().contains("at most 65536"));
}

#[test]
fn build_metadata_says_who_packaged_and_knows_the_platform() {
    let json = r#"{"schema_version":{"major":1},"build_metadata":{"dsa":{"feature_roms":[{"timeSinceEpoch":"12","vbnv_name":"x"}]}}}"#;
    let bytes = from_json(Kind::BUILD_METADATA, &Tree::parse(json).unwrap()).unwrap().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.starts_with(r#"{"schema_version":{"major":"1"},"build_metadata":{"dsa""#), "{text}");
    assert!(text.ends_with("\"hash\":\"\",\"time_stamp\":\"\"}}}}\n"), "{text}");
    let rom = BuildMetadata::parse(&bytes).unwrap().feature_rom().unwrap();
    assert_eq!((rom.timestamp, rom.vbnv.as_str()), (12, "x"));
}

const XML: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<project><platform><device><core>
  <kernel name="K" language="c" type="dpu">
    <extended-data dpu_kernel_id="0x901" functional="0" subtype="1"/>
    <arg name="opcode" addressQualifier="0" id="0" size="0x8" offset="0x00" type="uint64_t"/>
    <arg name="bo0" addressQualifier="1" id="1" size="0x8" offset="0x14" type="void*"/>
    <instance name="I"/>
  </kernel>
</core></device></platform></project>
"#;

#[test]
fn kernels_are_read_from_xml() {
    let metadata = EmbeddedMetadata::parse(XML.as_bytes()).unwrap();
    let [kernel] = &metadata.kernels[..] else { panic!("{metadata:?}") };
    assert_eq!(kernel.extended_data, Some(ExtendedData { kernel_id: 0x901, functional: 0, subtype: Some(1) }));
    assert_eq!(kernel.instances, ["I"]);
    let bo0 = Argument { name: "bo0".into(), id: 1, qualifier: 1, size_bytes: 8, offset: 0x14, kind: "void*".into() };
    assert_eq!(kernel.arguments[1], bo0);
    assert!(bo0.is_buffer());
}

#[test]
fn xml_that_would_cost_too_much_is_refused() {
    let check = |xml: String, words: &str| {
        let error = EmbeddedMetadata::parse(xml.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    check(XML.replace("0x14", "x"), "kernel \"K\": arg/@offset: \"x\": a number is expected");
    check("<a>".repeat(40) + &"</a>".repeat(40), "at most 32 deep");
    check(format!("<a b=\"{}\"/>", "x".repeat(20_000)), "an element of");
    check("<a xmlns:b=\"c\"/>".to_owned(), "no namespaces");
    check("<!DOCTYPE a><a/>".to_owned(), "without DTD");
    check(format!("<a>{}</a>", "<b/>".repeat(300_000)), "bytes of XML");
    check(format!("<a>{}</a>", "<b/>".repeat(20_000)), "at most 16384 are read");
    check("<a>".to_owned(), "well-formed");
}

prop_compose! {
    fn memories()(kind in 0_u8..14, used in any::<u8>(), reserved in any::<[u8; 6]>(), size_kib in any::<u64>(),
        base_address in any::<u64>(), tag in any::<[u8; 16]>()) -> Memory
    {
        Memory { kind: MemType(kind), used, reserved, size_kib, base_address, tag: Name(tag) }
    }
}

prop_compose! {
    fn ips()(kind in 0_u32..9, properties in any::<u32>(), base_address in prop_oneof![any::<u64>(), Just(u64::MAX)],
        name in "[a-zA-Z_:0-9]{0,63}") -> Ip
    {
        Ip { kind: IpType(kind), properties, base_address, name: Name::new(&name).unwrap() }
    }
}

prop_compose! {
    fn groups()(name in "[A-Z]{0,9}", kind in 0_u8..5, pdi_id in any::<u64>(),
        kernel_ids in prop::collection::vec(any::<u64>(), 0..4), pre_cdo_groups in prop::collection::vec(any::<u64>(), 0..3))
        -> CdoGroup<'static>
    {
        CdoGroup { name: name.into(), kind: CdoType(kind), pdi_id, kernel_ids, pre_cdo_groups }
    }
}

prop_compose! {
    fn partitions()(
        name in "[a-z]{0,9}", operations_per_cycle in any::<u32>(), inference_fingerprint in any::<u64>(),
        commit in prop::option::of("[0-9a-f]{0,40}"), column_width in any::<u16>(),
        start_columns in prop::collection::vec(any::<u16>(), 0..9),
        pdis in prop::collection::vec(
            (any::<[u8; 16]>(), prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(groups(), 0..3)), 0..4),
    ) -> AiePartition<'static> {
        let pdi = |(uuid, image, groups)| Pdi { uuid: Uuid(uuid), image: Cow::Owned(image), groups };
        AiePartition {
            schema_version: 0, name: name.into(), operations_per_cycle, inference_fingerprint, pre_post_fingerprint: 7,
            kernel_commit_id: commit.map(Cow::Owned), column_width, start_columns,
            pdis: pdis.into_iter().map(pdi).collect(),
        }
    }
}

proptest! {
    #[test]
    fn tables_survive_bytes(
        memories in prop::collection::vec(memories(), 1..5),
        ips in prop::collection::vec(ips(), 1..5),
        connections in prop::collection::vec(any::<[i32; 3]>(), 1..5),
    ) {
        let model = MemTopology { memories };
        prop_assert_eq!(&MemTopology::parse(&model.to_bytes().unwrap()).unwrap(), &model);
        let model = IpLayout { ips };
        prop_assert_eq!(&IpLayout::parse(&model.to_bytes().unwrap()).unwrap(), &model);
        let connection = |[argument, ip, memory]: [i32; 3]| Connection { argument, ip, memory };
        let model = Connectivity { connections: connections.into_iter().map(connection).collect() };
        prop_assert_eq!(&Connectivity::parse(&model.to_bytes().unwrap()).unwrap(), &model);
    }

    #[test]
    fn partitions_survive_bytes_and_flips_do_no_harm(
        model in partitions(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = model.to_bytes().unwrap();
        let read = AiePartition::parse(&bytes).unwrap();
        prop_assert_eq!(&read, &model);
        prop_assert_eq!(&read.to_bytes().unwrap(), &bytes);
        for (index, value) in flips {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(read) = AiePartition::parse(bytes) {
                let _ = read.to_json(&read.file_names());
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for kind in Kind::all() {
            let _ = to_json(kind, &bytes);
        }
        let _ = AiePartition::parse(&bytes);
        let _ = EmbeddedMetadata::parse(&bytes);
    }
}
