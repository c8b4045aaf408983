//! Any bytes as a PDI: its headers, its CDOs, and what their commands make of the array.

use xclbin_tools::{
    array::{Event, Program},
    pdi::Pdi,
    verify,
};

/// Reads `data`, writes it back, and lets an array take its commands.
pub(crate) fn check(data: &[u8]) {
    let Ok(pdi) = Pdi::parse(data) else { return };
    assert_eq!(pdi.to_bytes(), data, "what was read is written back");
    let _ = (pdi.checksums(), pdi.is_transformed(), verify::file(data, None));
    for cdo in pdi.partitions.iter().filter_map(|partition| partition.cdo().ok()) {
        let mut program = Program::new(8);
        for event in cdo.commands().filter_map(|entry| Event::of_command(&entry.command)) {
            program.apply(event);
        }
        let _ = program.flows();
    }
}
