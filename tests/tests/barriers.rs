//! The barriers of recorded segments: they suffice, none is superfluous, and where one is taken away the
//! checker finds it.

use biga::hal::{ByteRange, Dispatch};
use biga_conformance::conflicts;
use biga_tests::{fixture::folder, machine::Setup};
use biga_vulkan::Kernels;

/// Of two norms round the layers, of windows, of biases; the others have no op that these have not.
const FAMILIES: [&str; 3] = ["gemma3", "qwen2", "qwen3"];

/// The launches of each segment of a tiny model, everything on the Vulkan device, buckets for prompts and
/// for decoding.
fn recorded(setup: &Setup, family: &str) -> Vec<Vec<Dispatch>> {
    let engine = setup.engine(&folder(family)).unwrap();
    let vulkan = engine.executables().filter(|executable| executable.device().backend == "vulkan");
    let recorded: Vec<_> = vulkan.map(|executable| executable.dispatches().to_vec()).collect();
    assert!(recorded.len() > 1, "{family}: {} recorded segments", recorded.len());
    recorded
}

/// Takes away each barrier but the first, one at a time; how many there are.
fn check_each(name: &str, segment: &[Dispatch]) -> usize {
    let mut changed = segment.to_vec();
    let mut n_removed = 0;
    for at in 1..segment.len() {
        if !segment[at].barrier_before {
            continue;
        }
        changed[at].barrier_before = false;
        let found = conflicts(&changed);
        let launch = &segment[at].name;
        assert!(!found.is_empty(), "{name}: without the barrier before launch {at} ({launch}) nothing is amiss");
        for conflict in found {
            assert!(conflict.first.0 < at && at <= conflict.second.0, "{name}: barrier {at} removed, but: {conflict}");
        }
        changed[at].barrier_before = true;
        n_removed += 1;
    }
    n_removed
}

#[test]
fn every_removed_barrier_is_found_and_none_is_superfluous() {
    let Some(setup) = Setup::vulkan() else { return };
    let (mut n_segments, mut n_launches, mut n_removed) = (0, 0, 0);
    for kernels in [Kernels::Gpu, Kernels::Software] {
        let setup = Setup { vulkan_kernels: kernels, ..setup.clone() };
        for family in FAMILIES {
            for segment in recorded(&setup, family) {
                let name = format!("{family}, {kernels:?} kernels");
                assert_eq!(conflicts(&segment), [], "{name}");
                n_removed += check_each(&name, &segment);
                (n_segments, n_launches) = (n_segments + 1, n_launches + segment.len());
            }
        }
    }
    println!("{n_segments} segments, {n_launches} launches, {n_removed} barriers: each removed, each found");
    assert!(n_removed >= 100, "{n_removed} barriers, at least 100 wanted");
}

/// By definition: each pair of launches with no barrier between, each pair of their ranges.
fn by_pairs(launches: &[Dispatch]) -> Vec<(usize, usize)> {
    let touch = |a: &[ByteRange], b: &[ByteRange]| a.iter().any(|a| b.iter().any(|b| a.overlaps(b)));
    let mut pairs = Vec::new();
    for (i, first) in launches.iter().enumerate() {
        let beside = launches.iter().enumerate().skip(i + 1).take_while(|(_, launch)| !launch.barrier_before);
        for (j, second) in beside {
            let ordered = touch(&first.writes, &second.writes)
                || touch(&first.writes, &second.reads)
                || touch(&first.reads, &second.writes);
            pairs.extend(ordered.then_some((i, j)));
        }
    }
    pairs
}

#[test]
fn a_segment_may_follow_any_other() {
    let Some(setup) = Setup::vulkan() else { return };
    for family in FAMILIES {
        let segments = recorded(&setup, family);
        let (mut n, mut n_needed) = (0, 0);
        for before in &segments {
            for after in &segments {
                let mut both: Vec<Dispatch> = before.iter().chain(after).cloned().collect();
                assert_eq!(conflicts(&both), [], "{family}");
                // Without its opening barrier the second runs into the first where they share memory.
                both[before.len()].barrier_before = false;
                let found: Vec<_> = conflicts(&both).iter().map(|c| (c.first.0, c.second.0)).collect();
                assert_eq!(found, by_pairs(&both), "{family}");
                (n, n_needed) = (n + 1, n_needed + usize::from(!found.is_empty()));
            }
        }
        println!("{family}: {n_needed} of {n} successions need their opening barrier");
    }
}
