//! Packages made, split and merged.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::{
    axlf::{Axlf, Kind, Uuid},
    error::{Error, Result},
    section::{AiePartition, Connectivity, EmbeddedMetadata, IpLayout, MemTopology, json::Tree},
};

const STAMP: Stamp = Stamp { uuid: Uuid([7; 16]), time: 1_700_000_000 };

/// A manifest of PDIs with kernels; a PDI's image is its file's name.
fn inputs(columns: u16, pdis: &str) -> Result<Inputs<'static>> {
    let text = format!(r#"{{"version": 1, "device": "npu4", "columns": {columns}, "pdis": {pdis}}}"#);
    manifest::read(&Tree::parse(&text)?, |file| Ok(Cow::Owned(file.as_bytes().to_vec())))
}

fn package(pdis: &str) -> Vec<u8> {
    inputs(2, pdis).unwrap().build(STAMP).unwrap().to_bytes().unwrap()
}

/// What a launch depends on: the kernel's name, the offsets and memories of its arguments, its image.
type Launch = (String, Vec<(u64, i32)>, Vec<u8>);

fn launches(bytes: &[u8]) -> Vec<Launch> {
    let package = Axlf::parse(bytes).unwrap();
    let section = |kind| &*package.section(kind).unwrap().bytes;
    let metadata = EmbeddedMetadata::parse(section(Kind::EMBEDDED_METADATA)).unwrap();
    let partition = AiePartition::parse(section(Kind::AIE_PARTITION)).unwrap();
    let ips = IpLayout::parse(section(Kind::IP_LAYOUT)).unwrap().ips;
    let connections = Connectivity::parse(section(Kind::CONNECTIVITY)).unwrap().connections;
    let n_memories = MemTopology::parse(section(Kind::MEM_TOPOLOGY)).unwrap().memories.len();
    assert_eq!(n_memories, 2);
    let launch = |(ip, index): (&crate::section::ip_layout::Ip, i32)| {
        let name = ip.name.to_string();
        let kernel = metadata.kernels.iter().find(|kernel| name.starts_with(&format!("{}:", kernel.name))).unwrap();
        let id = kernel.extended_data.unwrap().kernel_id;
        assert_eq!(Some(id), ip.kernel_id().map(u64::from));
        let places = kernel.arguments.iter().zip(0..).map(|(argument, number)| {
            let of_argument = |at: &&crate::section::connectivity::Connection| at.ip == index && at.argument == number;
            (argument.offset, connections.iter().find(of_argument).map_or(-1, |at| at.memory))
        });
        let (pdi, _) = partition.kernel_ids().find(|(_, listed)| *listed == id).unwrap();
        (name, places.collect(), partition.pdis[pdi].image.to_vec())
    };
    ips.iter().zip(0..).map(launch).collect()
}

fn merge(packages: &[Vec<u8>], how: Merge) -> Result<(Vec<u8>, Vec<Renumbered>)> {
    let names = ["first", "second", "third"];
    let parsed = packages.iter().map(|bytes| Axlf::parse(bytes).unwrap());
    let packages: Vec<(&str, Axlf<'_>)> = names.into_iter().cycle().zip(parsed).collect();
    let (merged, renumbered) = how.run(&packages)?;
    Ok((merged.to_bytes()?, renumbered))
}

fn split_bytes(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<String>) {
    let whole = Axlf::parse(bytes).unwrap();
    let split = Split::of(&whole).unwrap();
    (split.packages().map(|part| part.unwrap().to_bytes().unwrap()).collect(), split.left_out())
}

const A: &str = r#"[{"file": "a", "kernels": [{"name": "a"}]}]"#;
const B: &str = r#"[{"file": "b", "kernels": [{"name": "b"}, {"name": "c", "arguments": ["x", "y"]}]}]"#;

#[test]
fn merging_gives_taken_ids_anew() {
    let (merged, renumbered) = merge(&[package(A), package(B)], Merge::default()).unwrap();
    let ids: Vec<_> = renumbered.iter().map(|id| (id.package, id.what, id.from, id.to)).collect();
    assert_eq!(ids, [(1, "kernel", 0x901, 0x903), (1, "PDI", 1, 2)]);
    assert_eq!(launches(&merged), [launches(&package(A)), launches(&package(B))].concat());
}

#[test]
fn merging_refuses_what_contradicts() {
    let other_columns = inputs(4, B).unwrap().build(STAMP).unwrap().to_bytes().unwrap();
    let keep = Merge { keeps_ids: true, ..Merge::default() };
    let check = |packages: &[Vec<u8>], how: Merge, expected: &str| {
        let error = merge(packages, how).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&[package(A)], Merge::default(), "packages 1");
    check(&[package(A), package(A)], Merge::default(), "second: kernel \"a\"");
    check(
        &[package(A), other_columns],
        Merge::default(),
        "second: columns 4 from 0, 4: the package before has 2 from 0, 2, 4, 6",
    );
    check(&[package(A), package(B)], keep, "second: kernel id 0x901");
}

#[test]
fn equal_images_are_shared_when_asked() {
    let same = r#"[{"file": "a", "kernels": [{"name": "b"}]}]"#;
    for (shares_images, n_pdis) in [(false, 2), (true, 1)] {
        let how = Merge { shares_images, ..Merge::default() };
        let (merged, _) = merge(&[package(A), package(same)], how).unwrap();
        assert_eq!(launches(&merged), [launches(&package(A)), launches(&package(same))].concat());
        let whole = Axlf::parse(&merged).unwrap();
        let partition = AiePartition::parse(&whole.section(Kind::AIE_PARTITION).unwrap().bytes).unwrap();
        assert_eq!(partition.pdis.len(), n_pdis);
    }
}

#[test]
fn shared_images_keep_ids_and_types_of_their_groups() {
    let of_type =
        |kind: &str, name: &str| format!(r#"[{{"file": "a", "type": "{kind}", "kernels": [{{"name": "{name}"}}]}}]"#);
    let how = Merge { shares_images: true, ..Merge::default() };
    let check = |kind: &str, expected_ids: &[(u64, &[u64])], expected_renumbered: &[(&str, u64, u64)]| {
        let (merged, renumbered) = merge(&[package(A), package(&of_type(kind, "b"))], how).unwrap();
        let ids: Vec<_> = renumbered.iter().map(|id| (id.what, id.from, id.to)).collect();
        assert_eq!(ids, expected_renumbered, "{kind}");
        let whole = Axlf::parse(&merged).unwrap();
        let partition = AiePartition::parse(&whole.section(Kind::AIE_PARTITION).unwrap().bytes).unwrap();
        let groups: Vec<_> =
            partition.pdis.iter().flat_map(|pdi| &pdi.groups).map(|group| (group.pdi_id, &*group.kernel_ids)).collect();
        assert_eq!((partition.pdis.len(), &*groups), (1, expected_ids), "{kind}");
    };
    check("PRIMARY", &[(1, &[0x901, 0x902])], &[("kernel", 0x901, 0x902)]);
    check("LITE", &[(1, &[0x901]), (2, &[0x902])], &[("kernel", 0x901, 0x902), ("PDI", 1, 2)]);
}

#[test]
fn units_stay_with_the_kernel_of_their_name() {
    let (first, second) = (&A[1..A.len() - 1], &B[1..B.len() - 1]);
    let whole = package(&format!("[{first},{second}]"));
    let mut axlf = Axlf::parse(&whole).unwrap();
    // Kernel a has id 0x901, kernel b has one with the same 12 bits.
    let wide = axlf.clone();
    let mut parts = parts::Parts::of(&wide).unwrap();
    parts.partition.pdis[1].groups[0].kernel_ids[0] = 0x1901;
    metadata::set_kernel_id(parts.metadata.kernels_mut().nth(1).unwrap(), 0x1901);
    let properties = parts.wiring.ips.ips[0].properties;
    parts.wiring.ips.ips[1].properties = properties;
    parts.put(&mut axlf).unwrap();
    let names = |part: Axlf<'_>| {
        let section = |kind| part.section(kind).unwrap().bytes.to_vec();
        let units = IpLayout::parse(&section(Kind::IP_LAYOUT)).unwrap().ips;
        let n_connections = Connectivity::parse(&section(Kind::CONNECTIVITY)).unwrap().connections.len();
        (units.iter().map(|ip| ip.name.to_string()).collect::<Vec<_>>(), n_connections)
    };
    let parts: Vec<_> = Split::of(&axlf).unwrap().packages().map(|part| names(part.unwrap())).collect();
    // Each has its instruction buffer and five buffers.
    assert_eq!(parts, [(vec!["a:a".to_owned()], 6), (vec!["b:b".to_owned(), "c:c".to_owned()], 12)]);
}

#[test]
fn a_lite_image_takes_the_primary_one_along() {
    let lite = B.replace("\"b\", \"kernels\"", "\"b\", \"type\": \"LITE\", \"kernels\"");
    let other = A.replace("\"a\"", "\"z\"").replace("\"kernels\"", "\"type\": \"PRE_POST\", \"kernels\"");
    let list = |text: &str| text[1..text.len() - 1].to_owned();
    let (parts, _) = split_bytes(&package(&format!("[{},{},{}]", list(A), list(&lite), list(&other))));
    let names = |part: &Vec<u8>| launches(part).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    let names: Vec<_> = parts.iter().map(names).collect();
    assert_eq!(names, [vec!["a:a"], vec!["a:a", "b:b", "c:c"], vec!["z:z"]]);
}

#[test]
fn kernels_of_one_name_merge_after_a_rename() {
    let taken = package(A);
    let mut renamed = Axlf::parse(&taken).unwrap();
    let check = |package: &mut Axlf<'_>, old: &str, new: &str, expected: &str| {
        let error = edit::rename_kernel(package, old, new).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&mut renamed, "b", "c", "kernel \"b\": the package has \"a\"");
    check(&mut renamed, "a", "a", "kernel \"a\": the package has one");
    check(&mut renamed, "a", "a:b", "neither may have one");
    check(&mut renamed, "a", "a\n", "control characters are not kept");
    check(&mut renamed, "a", "", "a text is expected");
    check(&mut renamed, "a", &"n".repeat(62), "63 bytes together");
    assert_eq!(renamed.to_bytes().unwrap(), taken);
    edit::rename_kernel(&mut renamed, "a", "scale").unwrap();
    let renamed = renamed.to_bytes().unwrap();
    assert!(merge(&[taken.clone(), taken.clone()], Merge::default()).unwrap_err().to_string().contains("rename"));
    let (merged, _) = merge(&[taken, renamed], Merge::default()).unwrap();
    let names: Vec<String> = launches(&merged).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["a:a", "scale:a"]);
}

#[test]
fn connections_are_counted_before_they_are_made() {
    let mut inputs = inputs(2, A).unwrap();
    let kernel = &mut inputs.kernels[0];
    kernel.instances = (0..8000).map(|index| format!("i{index}")).collect();
    let argument = kernel.arguments[3].clone();
    kernel.arguments.extend((0..8000).map(|_| argument.clone()));
    let error = inputs.build(STAMP).unwrap_err().to_string();
    assert!(error.contains("connections 64048000: CONNECTIVITY is read with at most 65536"), "{error}");
}

#[test]
fn splitting_says_which_kernels_no_pdi_lists() {
    let mut inputs = inputs(2, B).unwrap();
    let mut kernel = inputs.kernels[0].clone();
    kernel.name = "host".to_owned();
    kernel.extended_data.clear();
    inputs.kernels.push(kernel);
    let (parts, left_out) = split_bytes(&inputs.build(STAMP).unwrap().to_bytes().unwrap());
    assert_eq!((parts.len(), left_out), (1, vec!["host".to_owned()]));
    assert_eq!(launches(&parts[0]), launches(&package(B)));
}

#[test]
fn a_pdi_without_kernels_is_a_package_without_kernels() {
    let mut inputs = inputs(2, B).unwrap();
    let pdis = &mut inputs.partition.as_mut().unwrap().pdis;
    let mut idle = pdis[0].clone();
    idle.groups[0].pdi_id = 9;
    idle.groups[0].kernel_ids.clear();
    pdis.push(idle);
    let whole = inputs.build(STAMP).unwrap().to_bytes().unwrap();
    let (parts, _) = split_bytes(&whole);
    let kinds: Vec<Kind> = Axlf::parse(&parts[1]).unwrap().sections().iter().map(|section| section.kind).collect();
    let expected = [Kind::MEM_TOPOLOGY, Kind::AIE_PARTITION, Kind::EMBEDDED_METADATA, Kind::GROUP_TOPOLOGY];
    assert_eq!(kinds, expected);
    assert_eq!(merge(&parts, Merge::default()).unwrap().0, whole);
}

#[test]
fn adding_to_a_package_is_as_building_at_once() {
    let old = package(A);
    let mut added = Axlf::parse(&old).unwrap();
    let second = B.replace("\"b\"}", "\"b\", \"id\": \"0x902\"}").replace("\"c\"", "\"c\", \"id\": \"0x903\"");
    let renumbered = inputs(2, &second).unwrap().add_to(&mut added).unwrap();
    assert_eq!(renumbered.iter().map(|id| (id.from, id.to)).collect::<Vec<_>>(), [(1, 2)]);
    let at_once = package(&format!("{},{}", &A[..A.len() - 1], &B[1..]));
    assert_eq!(launches(&added.to_bytes().unwrap()), launches(&at_once));
}

#[test]
fn what_is_there_twice_is_refused() {
    let check = |change: &dyn Fn(&mut Inputs<'_>), expected: &str| {
        let mut inputs = inputs(2, B).unwrap();
        change(&mut inputs);
        let error = inputs.build(STAMP).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let id = |inputs: &mut Inputs<'_>, kernel: usize, id: &str| {
        inputs.kernels[kernel].extended_data[2].1 = id.to_owned();
    };
    check(&|inputs| inputs.kernels[1].name = "b".to_owned(), "kernel \"b\"");
    check(&|inputs| id(inputs, 1, "0x901"), "kernel id 0x901: b:b has it");
    check(&|inputs| id(inputs, 1, "0x7"), "kernel id 0x7: c:c has it, but AIE_PARTITION lists 0x901, 0x902");
    check(&|inputs| inputs.kernels[0].instances.push("b".to_owned()), "instance \"b:b\"");
    check(&|inputs| inputs.kernels[0].instances[0] = "x".repeat(64), "63 bytes together");
    check(&|inputs| inputs.kernels[0].arguments[3].memory = Some("DDR".to_owned()), "MEM_TOPOLOGY has HOST, SRAM");
    check(&|inputs| inputs.kernels[0].arguments[3].memory = Some("0,2".to_owned()), "memory index 2");
    check(&|inputs| inputs.memory = None, "MEM_TOPOLOGY has no memory");
    let twice = |inputs: &mut Inputs<'_>| {
        let pdi = inputs.partition.as_ref().unwrap().pdis[0].clone();
        inputs.partition.as_mut().unwrap().pdis.push(pdi);
    };
    check(&twice, "PDI id 0x1");
}

#[test]
fn other_memories_are_not_taken_for_the_same() {
    let old = package(A);
    let mut inputs = inputs(2, B).unwrap();
    inputs.memory.as_mut().unwrap().memories[0].size_kib = 1;
    let error = inputs.add_to(&mut Axlf::parse(&old).unwrap()).unwrap_err();
    assert!(matches!(error, Error::Refused { what: "section", .. }), "{error}");
}

#[test]
fn long_lists_are_cut() {
    let list = |n: usize| few((0..n).map(|item| item.to_string()));
    assert_eq!(list(2), "0, 1");
    assert_eq!(list(8), "0, 1, 2, 3, 4, 5, 6, 7");
    assert_eq!(list(10), "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
}

#[test]
fn free_ids_are_the_lowest() {
    let taken: BTreeSet<u64> = [1, 2, 4, u64::MAX].into();
    assert_eq!(free_id(&taken, 0, 9), Some(0));
    assert_eq!(free_id(&taken, 1, 9), Some(3));
    assert_eq!(free_id(&taken, 1, 2), None);
    assert_eq!(free_id(&taken, u64::MAX, u64::MAX), None);
}

/// PDIs with one to three kernels each, of zero to sixteen arguments.
fn manifests() -> impl Strategy<Value = String> {
    let n_arguments = prop::collection::vec(prop::collection::vec(0_usize..17, 1..4), 1..5);
    n_arguments.prop_map(|pdis| {
        let pdi = |(index, kernels): (usize, &Vec<usize>)| {
            let kernel = |(number, n_arguments): (usize, &usize)| {
                let arguments: Vec<String> = (0..*n_arguments).map(|argument| format!("\"x{argument}\"")).collect();
                format!(r#"{{"name": "k{index}_{number}", "arguments": [{}]}}"#, arguments.join(","))
            };
            let kernels: Vec<String> = kernels.iter().enumerate().map(kernel).collect();
            format!(r#"{{"file": "pdi{index}", "kernels": [{}]}}"#, kernels.join(","))
        };
        format!("[{}]", pdis.iter().enumerate().map(pdi).collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #[test]
    fn splitting_and_merging_keeps_every_launch(manifest in manifests()) {
        let whole = package(&manifest);
        prop_assert_eq!(&package(&manifest), &whole);
        let (parts, left_out) = split_bytes(&whole);
        prop_assert!(left_out.is_empty());
        let apart: Vec<_> = parts.iter().flat_map(|part| launches(part)).collect();
        prop_assert_eq!(&apart, &launches(&whole));
        if parts.len() > 1 {
            let (merged, renumbered) = merge(&parts, Merge::default()).unwrap();
            prop_assert!(renumbered.is_empty());
            prop_assert_eq!(&merged, &whole);
        }
    }

    #[test]
    fn merging_keeps_every_launch_whatever_the_ids(manifests in prop::collection::vec(manifests(), 2..4)) {
        let rename = |(index, manifest): (usize, &String)| manifest.replace(": \"k", &format!(": \"k{index}x"));
        let renamed = manifests.iter().enumerate().map(rename);
        let packages: Vec<Vec<u8>> = renamed.map(|manifest| package(&manifest)).collect();
        let (merged, _) = merge(&packages, Merge::default()).unwrap();
        let apart: Vec<_> = packages.iter().flat_map(|package| launches(package)).collect();
        prop_assert_eq!(launches(&merged), apart);
    }

    #[test]
    fn no_damage_panics(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = package(B);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        bytes.truncate(cut.index(bytes.len()).max(index + 1));
        if let Ok(package) = Axlf::parse(&bytes) {
            let _ = Split::of(&package).map(|split| split.packages().count());
            let _ = Merge::default().run(&[("a", package.clone()), ("b", package.clone())]);
            let _ = inputs(2, A).unwrap().add_to(&mut package.clone());
        }
    }
}
