//! PDIs beside bootgen 2022.2.
//!
//! With [`Release::Older`] all bytes are the same. A current release differs in two words: word 14 of the image
//! header, 0xffffffff instead of 0, and word 15, the checksum over it.

use std::{fs, path::Path};

use xclbin_tools::{
    Words,
    cdo::{Builder, Cdo, Command, Form, assemble},
    pdi::{Options, Pdi, Release, build},
};

use crate::tools::Tools;

/// Byte of word 14 of the image header, and of its checksum behind it.
const WORD_14: usize = 4 * (0x24 + 14);

/// What bootgen makes of CDOs.
fn bootgen(tools: &Tools, folder: &Path, cdos: &[&[u8]], options: &Options) -> Vec<u8> {
    let mut files = String::new();
    for (index, cdo) in cdos.iter().enumerate() {
        fs::write(folder.join(format!("{index}.bin")), cdo).expect("the folder can be written");
        files.push_str(&format!("file={index}.bin\n"));
    }
    let Options { id_code, extended_id_code, image_name, image_id, .. } = options;
    let bif = format!(
        "all:\n{{\nid_code = {id_code:#x}\nextended_id_code = {extended_id_code:#x}\nimage\n{{\n\
         name={image_name}, id={image_id:#x}\n{{ type=cdo\n{files}}}\n}}\n}}\n"
    );
    fs::write(folder.join("x.bif"), bif).expect("the folder can be written");
    tools.run("bootgen", folder, &["-arch", "versal", "-image", "x.bif", "-o", "x.pdi", "-w"]);
    fs::read(folder.join("x.pdi")).expect("bootgen wrote it")
}

fn check_with(tools: &Tools, name: &str, cdos: &[&[u8]], options: Options) {
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = bootgen(tools, folder.path(), cdos, &options);
    let ours = build(cdos, &Options { release: Release::Older, ..options.clone() }).expect("a PDI");
    let differing: Vec<usize> =
        (0..ours.len().max(theirs.len())).filter(|at| ours.get(*at) != theirs.get(*at)).collect();
    assert!(differing.is_empty(), "{name}: bytes {:#x?} of {}", &differing[..differing.len().min(9)], theirs.len());
    let current = build(cdos, &options).expect("a PDI");
    assert_eq!(current[WORD_14..WORD_14 + 4], [0xff; 4], "{name}");
    assert_eq!((&current[..WORD_14], &current[WORD_14 + 8..]), (&theirs[..WORD_14], &theirs[WORD_14 + 8..]), "{name}");
    let read = Pdi::parse(&theirs).expect("bootgen's can be read");
    assert!(read.checksums().iter().all(|named| named.checksum.is_right()), "{name}");
    assert_eq!(read.to_bytes(), theirs, "{name}");
}

fn check(tools: &Tools, name: &str, cdos: &[Vec<u8>]) {
    let cdos: Vec<&[u8]> = cdos.iter().map(Vec::as_slice).collect();
    check_with(tools, name, &cdos, Options::default());
}

/// A CDO of words of commands.
fn cdo_of(commands: &[(u16, Vec<u32>)]) -> Vec<u8> {
    let mut builder = Builder::new();
    for (id, payload) in commands {
        let payload: Vec<u8> = payload.iter().flat_map(|word| word.to_le_bytes()).collect();
        builder.push(&Command::Other { id: *id, payload: Words::new(&payload) });
    }
    builder.finish()
}

/// A `dma_write` of as many words.
fn block(address: u32, n_words: u32) -> (u16, Vec<u32>) {
    (0x105, [0, address].into_iter().chain((1..=n_words).map(|word| word.wrapping_mul(0x0101_0101))).collect())
}

fn nop(n_words: u32) -> (u16, Vec<u32>) {
    (0x111, vec![0; n_words as usize])
}

#[test]
fn blocks_are_padded_to_every_residue() {
    let Some(tools) = Tools::find() else { return };
    for at in 0..4 {
        for to in 0..4 {
            let mut commands = vec![nop(0); at];
            commands.extend([block(0x10_0000 + 4 * to, 5), block(0x10_0040 + 4 * to, 7), block(0x10_0080, 2)]);
            check(&tools, &format!("from word {at} to word {to}"), &[cdo_of(&commands)]);
        }
    }
}

#[test]
fn lengths_change_their_form() {
    let Some(tools) = Tools::find() else { return };
    for n_words in [0, 1, 2, 251, 252, 253, 254, 255, 300, 0x4000, 0x4_0001] {
        let commands = [nop(1), block(0x20_0000, n_words), block(0x20_0004, n_words)];
        check(&tools, &format!("{n_words} words"), &[cdo_of(&commands)]);
    }
}

#[test]
fn several_files_become_one() {
    let Some(tools) = Tools::find() else { return };
    let parts: Vec<Vec<u8>> = (0..5).map(|n| cdo_of(&[nop(n), block(0x10_0000, 3 + n), block(0x10_0100, 2)])).collect();
    for n_files in 1..=parts.len() {
        check(&tools, &format!("{n_files} files"), &parts[..n_files]);
    }
}

#[test]
fn commands_get_one_form() {
    let Some(tools) = Tools::find() else { return };
    let commands = vec![
        (0x101, vec![0x20_0000, 1, 0, 100]),
        (0x101, vec![0x20_0000, 1, 0, 100, 0]),
        (0x101, vec![0x20_0000, 1, 0, 100, 2]),
        (0x106, vec![0, 0x20_0000, 1, 0, 100]),
        (0x106, vec![1, 0x20_0000, 1, 0, 100, 2]),
        (0x102, vec![0x20_0000, 1, 0]),
        (0x107, vec![0, 0x20_0000, 1, 0]),
        (0x107, vec![9, 0x20_0000, 1, 0]),
        (0x103, vec![0x20_0000, 1]),
        (0x108, vec![0, 0x20_0000, 1]),
        (0x108, vec![1, 0x20_0000, 1]),
        (0x105, vec![1, 0x20_0000, 1]),
        (0x105, vec![1, 0x20_0008, 1, 2, 3]),
        (0x104, vec![7]),
        (0x10c, vec![0, 0x20_0000, 4, 7]),
        (0x10d, vec![0, 0x20_0004, 16, 1, 2, 3]),
        (0x109, vec![0, 0x20_0000, 0, 0x20_0010, 4, 0]),
        (0x111, vec![1, 2]),
        (0x119, vec![2, 0x0041_4141]),
        (0xf01, vec![1, 2]),
    ];
    for command in &commands {
        check(&tools, &format!("{command:x?}"), &[cdo_of(&[nop(0), command.clone(), nop(0)])]);
    }
    check(&tools, "all", &[cdo_of(&commands)]);
    check(&tools, "an end mark", &[cdo_of(&[nop(0), (0x100, vec![]), nop(3)]), cdo_of(&[nop(2)])]);
}

#[test]
fn odd_forms_are_made_usual() {
    let Some(tools) = Tools::find() else { return };
    let mut builder = Builder::new();
    let write = Command::Write { address: 0x20_0000, value: 1, wide: false };
    builder.push_as(Form { long: true, reserved: 0 }, &write);
    builder.push_as(Form { long: false, reserved: 0x12 }, &write);
    let mut cdo = builder.finish();
    cdo.extend([1, 2, 3, 4]);
    check(&tools, "forms", &[cdo]);
}

#[test]
fn mixed_commands_agree() {
    let Some(tools) = Tools::find() else { return };
    let mut state = 1_u32;
    let mut next = |end: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % end
    };
    for round in 0..24 {
        let n_files = 1 + next(3);
        let files = (0..n_files).map(|_| {
            let n_commands = 1 + next(40);
            let commands = (0..n_commands).map(|_| match next(5) {
                0 => nop(next(4)),
                1 => (0x103, vec![next(1 << 24), next(1 << 24)]),
                2 => (0x102, vec![next(1 << 24), next(1 << 24), next(1 << 24)]),
                _ => block(0x10_0000 + 4 * next(0x1000), next(300)),
            });
            cdo_of(&commands.collect::<Vec<_>>())
        });
        check(&tools, &format!("round {round}"), &files.collect::<Vec<_>>());
    }
}

#[test]
fn names_and_ids_go_to_their_words() {
    let Some(tools) = Tools::find() else { return };
    let options = Options {
        id_code: 0x04ca_8093,
        extended_id_code: 2,
        image_name: "sixteen_letters_".to_owned(),
        image_id: 0x1c00_0001,
        release: Release::Current,
    };
    check_with(&tools, "other names", &[&cdo_of(&[nop(0)])], options);
}

#[test]
fn bootgen_reads_ours() {
    let Some(tools) = Tools::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let ours = build(&[&cdo_of(&[block(0x10_0000, 5)])], &Options::default()).expect("a PDI");
    fs::write(folder.path().join("ours.pdi"), ours).expect("the folder can be written");
    let said = tools.run("bootgen", folder.path(), &["-arch", "versal", "-read", "ours.pdi"]);
    for word in ["IMAGE HEADER (aie_image)", "0x14ca8093", "0x1c000000", "[cdo]"] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
}

#[test]
fn texts_of_ours_become_the_same_pdi() {
    let Some(tools) = Tools::find() else { return };
    for text in [include_str!("../fixtures/passthrough.cdo.txt"), include_str!("../fixtures/passthrough-npu4.cdo.txt")]
    {
        let cdo = assemble(text).expect("a CDO");
        assert!(Cdo::parse(&cdo).expect("a CDO").commands().all(|entry| entry.command.is_loadable()));
        check(&tools, "passthrough", &[cdo]);
    }
}
