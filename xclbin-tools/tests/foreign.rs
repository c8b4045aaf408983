//! Files that others made: each file of the folder that `BIGA_NPU_FILES` names is read and written again, and
//! must come out as it was. What a file is follows from its first bytes. Nothing of such files is kept here.

use std::{error::Error, fs, path::PathBuf};

use xclbin_tools::{
    axlf::{Axlf, Kind},
    cdo,
    elf::{self, Elf},
    pdi::{self, Pdi},
    section::{self, AiePartition, Connectivity, EmbeddedMetadata, IpLayout, MemTopology},
    txn::{self, Stream},
};

#[test]
fn foreign_files_come_out_as_they_were() {
    let Some(folder) = std::env::var_os("BIGA_NPU_FILES").filter(|folder| !folder.is_empty()) else {
        println!("skipped: BIGA_NPU_FILES names no folder of files to read and write again");
        return;
    };
    let files = fs::read_dir(&folder).expect("the folder that BIGA_NPU_FILES names can be listed");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("an entry of the folder").path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    assert!(!paths.is_empty(), "no file in {}", folder.display());
    let mut n_known = 0;
    let mut faults = Vec::new();
    for path in &paths {
        let bytes = fs::read(path).expect("a file of the folder");
        let result = match &bytes[..] {
            [b'x', b'c', b'l', b'b', b'i', b'n', b'2', 0, ..] => xclbin(&bytes),
            // The boot image of a whole device, which has a boot header behind the magic, is no NPU's.
            bytes if bytes.starts_with(&pdi::MAGIC) && !bytes[16..].starts_with(&[0x66, 0x55, 0x99, 0xaa]) => {
                image(bytes)
            }
            bytes if bytes.starts_with(b"\x7fELF") && bytes.get(7) == Some(&elf::OS_ABI) => elf_file(bytes),
            [0, 1, ..] | [1, 0, ..] if path.extension().is_some_and(|extension| extension == "bin") => stream(&bytes),
            _ => continue,
        };
        n_known += 1;
        faults.extend(result.err().map(|error| format!("{}: {error}", path.display())));
    }
    println!("{n_known} of {} files are of a format that is checked", paths.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

type Checked = Result<(), Box<dyn Error>>;

/// `Ok` if both are the same; the first difference otherwise.
fn same(what: &str, ours: &[u8], theirs: &[u8]) -> Checked {
    if ours == theirs {
        return Ok(());
    }
    let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
    let at = at.unwrap_or(ours.len().min(theirs.len()));
    Err(format!("{what}: {} bytes instead of {}, the first difference at {at:#x}", ours.len(), theirs.len()).into())
}

fn xclbin(bytes: &[u8]) -> Checked {
    let axlf = Axlf::parse(bytes)?;
    same("file", &axlf.to_bytes()?, bytes)?;
    for part in axlf.sections() {
        let kind = part.kind;
        let again = match kind {
            Kind::AIE_PARTITION => {
                let partition = AiePartition::parse(&part.bytes)?;
                partition.pdis.iter().try_for_each(|pdi| image(&pdi.image))?;
                partition.to_bytes()?
            }
            kind if kind.name() == Some("PDI") && !part.bytes.is_empty() => {
                image(&part.bytes).map(|()| part.bytes.to_vec())?
            }
            Kind::MEM_TOPOLOGY | Kind::GROUP_TOPOLOGY => MemTopology::parse(&part.bytes)?.to_bytes()?,
            Kind::CONNECTIVITY | Kind::GROUP_CONNECTIVITY => Connectivity::parse(&part.bytes)?.to_bytes()?,
            Kind::IP_LAYOUT => IpLayout::parse(&part.bytes)?.to_bytes()?,
            Kind::EMBEDDED_METADATA => EmbeddedMetadata::parse(&part.bytes).map(|_| part.bytes.to_vec())?,
            _ => part.bytes.to_vec(),
        };
        same(&kind.to_string(), &again, &part.bytes)?;
        let json = section::to_json(kind, &part.bytes)?;
        // The JSON of other kinds is not all: it has no place for white space, nor for reserved bits.
        let is_whole =
            matches!(kind, Kind::MEM_TOPOLOGY | Kind::GROUP_TOPOLOGY | Kind::CONNECTIVITY | Kind::GROUP_CONNECTIVITY);
        if let Some(json) = json.filter(|_| is_whole) {
            let again = section::from_json(kind, &json)?.unwrap_or_default();
            same(&format!("{kind} from its JSON"), &again, &part.bytes)?;
        }
    }
    let mut anew = axlf.clone();
    anew.header_mut().set_time(0);
    let anew = anew.to_bytes()?;
    if Axlf::parse(&anew)?.sections() != axlf.sections() {
        return Err("sections change when the file is laid out anew".into());
    }
    Ok(())
}

/// A PDI; the CDOs in it as text and back.
fn image(bytes: &[u8]) -> Checked {
    let pdi = Pdi::parse(bytes)?;
    same("PDI", &pdi.to_bytes(), bytes)?;
    for part in &pdi.partitions {
        let cdo = part.cdo()?;
        let again = cdo::assemble(&cdo::dump(&cdo))?;
        match cdo.is_transformed() {
            true => same("transformed CDO", &again, &cdo::plain(&cdo))?,
            false => same("CDO", &again, part.data)?,
        }
    }
    Ok(())
}

fn stream(bytes: &[u8]) -> Checked {
    let stream = Stream::parse(bytes)?;
    same("stream", &stream.rewrite()?, bytes)?;
    same("stream's text", &txn::assemble(&stream.to_text())?, bytes)
}

fn elf_file(bytes: &[u8]) -> Checked {
    let elf = Elf::parse(bytes)?;
    elf.patches()?;
    elf.streams().try_for_each(|(_, code)| stream(code?.bytes()))?;
    same("ELF file", &elf.to_bytes()?, bytes)
}
