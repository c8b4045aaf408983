//! What a program needs of a package to launch its kernels: the columns, the image that configures the array for each
//! kernel, and where each argument stands in a command. `docs/src/xclbin-tutorial.md` shows it.

use std::{error::Error, fmt::Write};

use xclbin_tools::{
    axlf::{Axlf, Kind},
    pdi,
    section::{AiePartition, EmbeddedMetadata},
};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: read_package FILE.xclbin")?;
    let bytes = std::fs::read(path)?;
    print!("{}", describe(&bytes)?);
    Ok(())
}

/// The launches that a package allows, as text.
pub(crate) fn describe(bytes: &[u8]) -> Result<String, Box<dyn Error>> {
    let package = Axlf::parse(bytes)?;
    let section = |kind: Kind| package.section(kind).ok_or_else(|| format!("no section {kind}"));
    // Images and names borrow from `bytes`: nothing is copied.
    let partition = AiePartition::parse(&section(Kind::AIE_PARTITION)?.bytes)?;
    let metadata = EmbeddedMetadata::parse(&section(Kind::EMBEDDED_METADATA)?.bytes)?;
    let mut text = format!("columns: {}, from any of {:?}\n", partition.column_width, partition.start_columns);
    for kernel in &metadata.kernels {
        // Kernels of programmable logic have no id: an NPU runs none.
        let Some(data) = kernel.extended_data else { continue };
        // The kernel's id leads to the one image that must be on the array before it is launched.
        let image = partition.kernel_ids().find(|(_, id)| *id == data.kernel_id).map(|(index, _)| index);
        let image = image.and_then(|index| partition.pdis.get(index)).ok_or("a kernel without an image")?;
        let n_commands = pdi::Pdi::parse(&image.image)?.cdo(0)?.commands().count();
        writeln!(text, "{}: id {:#x}, image of {} bytes", kernel.name, data.kernel_id, image.image.len())?;
        writeln!(text, "  configured by {n_commands} commands")?;
        for argument in &kernel.arguments {
            let what = if argument.is_buffer() { "address of a buffer" } else { "number" };
            writeln!(text, "  {:<6} byte {:<2} {what}, {} bytes", argument.name, argument.offset, argument.size_bytes)?;
        }
    }
    Ok(text)
}
