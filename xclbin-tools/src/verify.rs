//! Finds what hardware would answer with garbage or a hang, before it does.
//!
//! Packages fail silently: a wrong kernel id starts another kernel's image, an argument that the firmware does not
//! patch reads somebody else's memory, a write outside the partition changes another context. Nothing between the
//! compiler and the array checks that. Each check here is a [`Rule`]: what it asks for, what breaking it does on
//! hardware, how to mend it, and where that is known from. A [`Finding`] is a place that breaks one.
//!
//! A file is read as far as it can be: what its parser refuses is a finding too. Findings of one rule are listed up
//! to [`Findings::MOST_PER_RULE`] and counted beyond, so that a broken file makes no endless report. Every pass is
//! linear in the file.
//!
//! The device matters where arrays differ: columns, generation. It is given, or taken from an instruction stream's
//! header or a partition that only one device can hold; where it is not known, what holds for all devices is asked.

mod address;
mod cdo;
mod container;
mod elf;
mod finding;
mod kernels;
mod memory;
mod package;
mod partition;
mod patch;
mod pdi;
mod rule;
mod stream;
mod transfers;

pub use finding::{Basis, Finding, Findings};
pub use package::{Kind, Launch, file, package};
pub use rule::{Rule, Severity};

/// Every rule, in the order of a package's parts.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let subjects: [&[&Rule]; 13] = [
        container::RULES,
        partition::RULES,
        kernels::RULES,
        kernels::ARGUMENT_RULES,
        memory::RULES,
        pdi::RULES,
        cdo::RULES,
        address::RULES,
        package::RULES,
        stream::RULES,
        transfers::RULES,
        patch::RULES,
        elf::RULES,
    ];
    subjects.into_iter().flatten().copied()
}

/// The rule of a name.
#[must_use]
pub fn rule(name: &str) -> Option<&'static Rule> {
    rules().find(|rule| rule.name == name)
}
