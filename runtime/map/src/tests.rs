//! Files are changed under their mappings; what must kill a process does so in a child.

use std::{fs, io::Write, os::unix::process::ExitStatusExt, path::Path, process::Command};

use super::{MapError, MappedFile};

const PAGE_BYTES: usize = 4096;

fn file_of(pages: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![7; pages * PAGE_BYTES]).unwrap();
    file
}

/// Reads the byte anew each time, whatever the compiler knows about the slice.
fn read(mapped: &MappedFile, at: usize) -> u8 {
    let byte = &mapped.bytes()[at];
    // SAFETY: a reference is valid for reads.
    unsafe { std::ptr::read_volatile(byte) }
}

#[test]
fn bytes_are_those_of_the_file() {
    let file = file_of(2);
    let mapped = MappedFile::open(file.path()).unwrap();
    assert_eq!(mapped.bytes(), fs::read(file.path()).unwrap());
    mapped.prefetch(0, mapped.bytes().len());
    mapped.prefetch(usize::MAX, 2);
    mapped.release(1, mapped.bytes().len() - 1);
    mapped.release(usize::MAX, 2);
    assert_eq!(mapped.bytes(), fs::read(file.path()).unwrap());
    assert!(!mapped.lost());
    mapped.check().unwrap();
}

#[test]
fn a_shrunken_file_is_an_error_and_no_crash() {
    let file = file_of(8);
    let mapped = MappedFile::open(file.path()).unwrap();
    assert_eq!(read(&mapped, 5 * PAGE_BYTES), 7);
    file.as_file().set_len(PAGE_BYTES as u64).unwrap();
    assert!(matches!(mapped.check(), Err(MapError::Changed { what: "size", now: 4096, .. })));
    assert_eq!(read(&mapped, 5 * PAGE_BYTES + 9), 0);
    assert_eq!(read(&mapped, 8 * PAGE_BYTES - 1), 0);
    assert_eq!(read(&mapped, 2 * PAGE_BYTES), 0);
    assert_eq!(read(&mapped, 0), 7);
    assert!(mapped.lost());
    assert!(matches!(mapped.check(), Err(MapError::Lost { .. })));
    mapped.release(0, 8 * PAGE_BYTES);
    assert_eq!((read(&mapped, 0), read(&mapped, 6 * PAGE_BYTES)), (7, 0));
}

#[test]
fn a_loss_stays_with_its_own_mapping() {
    let (shrunk, whole) = (file_of(3), file_of(3));
    let (a, b) = (MappedFile::open(shrunk.path()).unwrap(), MappedFile::open(whole.path()).unwrap());
    shrunk.as_file().set_len(0).unwrap();
    assert_eq!((read(&a, 0), read(&b, 2 * PAGE_BYTES)), (0, 7));
    assert_eq!((a.lost(), b.lost()), (true, false));
    drop(a);
    let c = MappedFile::open(whole.path()).unwrap();
    assert!(!c.lost(), "a reused place in the table starts anew");
}

#[test]
fn many_threads_may_meet_the_loss_at_once() {
    let file = file_of(64);
    let mapped = MappedFile::open(file.path()).unwrap();
    file.as_file().set_len(0).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let mapped = &mapped;
            scope.spawn(move || (0..64).for_each(|i| assert_eq!(read(mapped, (i * 8 + thread) % 64 * PAGE_BYTES), 0)));
        }
    });
    assert!(mapped.lost());
}

#[test]
fn a_replaced_or_rewritten_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    fs::write(&path, [1; 10]).unwrap();
    let mapped = MappedFile::open(&path).unwrap();
    let other = folder.path().join("other");
    fs::write(&other, [1; 10]).unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(matches!(mapped.check(), Err(MapError::Changed { what: "inode", .. })));

    let mapped = MappedFile::open(&path).unwrap();
    let later = fs::metadata(&path).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert!(matches!(mapped.check(), Err(MapError::Changed { what: "modification time", .. })));

    fs::remove_file(&path).unwrap();
    assert!(matches!(mapped.check(), Err(MapError::Io { action: "inspect", .. })));
    assert_eq!(read(&mapped, 3), 1);
}

#[test]
fn what_is_no_readable_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let check = |path: &Path, expected: &str| {
        let message = MappedFile::open(path).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(folder.path(), "is a folder, not a regular file");
    check(&folder.path().join("absent"), "cannot open");
    let empty = folder.path().join("empty");
    fs::write(&empty, []).unwrap();
    check(&empty, "is empty");
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    check(&pipe, "is a special file");
}

/// The part of the next tests that runs in a child; does nothing in an ordinary run.
#[test]
fn child() {
    let Ok(part) = std::env::var("BIGA_MAP_TEST_CHILD") else { return };
    if part == "chain" {
        // SAFETY: the handler only ends the process.
        unsafe { libc::signal(libc::SIGBUS, exit_42 as *const () as usize) };
    }
    if part == "default" {
        // SAFETY: no pointer is involved.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
    let ours = file_of(1);
    let _mapped = MappedFile::open(ours.path()).unwrap();
    if part == "default" {
        // SAFETY: as above.
        unsafe { libc::raise(libc::SIGBUS) };
    }
    // A mapping that the crate knows nothing of.
    let theirs = file_of(1);
    // SAFETY: nothing else uses the file; the fault is the purpose.
    let foreign = unsafe { memmap2::Mmap::map(theirs.as_file()) }.unwrap();
    theirs.as_file().set_len(0).unwrap();
    // SAFETY: the address is mapped; reading it raises SIGBUS, as intended.
    unsafe { std::ptr::read_volatile(foreign.as_ptr()) };
}

extern "C" fn exit_42(_: libc::c_int) {
    // SAFETY: _exit may be called in a signal handler.
    unsafe { libc::_exit(42) };
}

fn run_child(part: &str) -> std::process::ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::child", "--test-threads=1"])
        .env("BIGA_MAP_TEST_CHILD", part)
        .output()
        .unwrap()
        .status
}

#[test]
fn a_fault_elsewhere_still_ends_the_process() {
    assert_eq!(run_child("fault").signal(), Some(libc::SIGBUS));
}

#[test]
fn a_signal_sent_by_hand_has_its_default_effect() {
    assert_eq!(run_child("default").signal(), Some(libc::SIGBUS));
}

#[test]
fn an_earlier_handler_is_called() {
    assert_eq!(run_child("chain").code(), Some(42));
}
