//! Planted defects: each rule of `verify` finds the one that is meant for it, and nothing else.
//!
//! A row breaks a valid file in one way. `also` names rules that the same defect breaks of necessity.

mod container;
mod elves;
mod hostile;
mod images;
mod packages;
mod sample;
mod streams;

use std::collections::BTreeSet;

use sample::Sample;
use xclbin_tools::verify::{self, Findings, Severity};

/// A defect: the rule that finds it, other rules that it breaks too, and what is found in a file that has it.
type Row = (&'static str, &'static [&'static str], fn() -> Findings);

fn rows() -> Vec<Row> {
    [container::rows(), packages::rows(), images::rows(), streams::rows(), elves::rows()].concat()
}

#[test]
fn every_planted_defect_is_found_by_its_rule() {
    let rows = rows();
    let mut faults = Vec::new();
    for (index, (rule, also, found)) in rows.iter().enumerate() {
        let found = found();
        let names: BTreeSet<&str> = found.listed().iter().map(|finding| finding.rule.name).collect();
        let expected: BTreeSet<&str> = also.iter().copied().chain([*rule]).collect();
        if names != expected {
            let texts: Vec<String> =
                found.listed().iter().map(|finding| format!("{}: {finding}", finding.rule.name)).collect();
            faults.push(format!("row {index}, {rule}: found {texts:#?}"));
        }
    }
    let n_rules = verify::rules().count();
    println!("{} planted defects for {n_rules} rules: {} found as meant", rows.len(), rows.len() - faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_rule_has_a_defect() {
    let with_rows: BTreeSet<&str> = rows().iter().map(|(rule, ..)| *rule).collect();
    let rules: BTreeSet<&str> = verify::rules().map(|rule| rule.name).collect();
    assert_eq!(rules.difference(&with_rows).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules without a defect");
    assert_eq!(with_rows.difference(&rules).collect::<Vec<_>>(), Vec::<&&str>::new(), "defects of no rule");
    assert!(rows().len() >= 30);
}

#[test]
fn valid_files_give_no_finding() {
    for (name, sample) in [("npu1", Sample::npu1()), ("npu4", Sample::npu4()), ("two kernels", Sample::two())] {
        let found = sample.check();
        assert!(found.is_empty(), "{name}: {found:#?}");
        assert_eq!(found.count_of(Severity::Error) + found.count_of(Severity::Warning), 0);
    }
    // Start columns that older compilers wrote for either device.
    let mut either = Sample::npu1();
    either.streams = vec![sample::STREAM.replace("generation=3", "generation=4")];
    let found = either.check();
    assert!(found.is_empty(), "columns 1 to 4: {found:#?}");
    let found = streams::of_two(Some("OTHER"));
    assert!(found.is_empty(), "a stream of the kernel that has its buffers: {found:#?}");
    for (name, bytes) in [("partial ELF", elves::partial()), ("full ELF", elves::full(2))] {
        let found = verify::file(&bytes, None).expect("an ELF file");
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
}
