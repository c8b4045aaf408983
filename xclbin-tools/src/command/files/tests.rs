//! Writing: all or none, and what stays of what was there.

use super::*;

fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn parts<'b>(folder: &Path, names: &[&str], bytes: &'b [u8]) -> Vec<(PathBuf, Cow<'b, [u8]>)> {
    names.iter().map(|name| (folder.join(name), Cow::Borrowed(bytes))).collect()
}

#[test]
fn all_or_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir(folder.join("d")).expect("a folder");
    fs::write(folder.join("b"), "old").expect("a file");
    let refused = |names: &[&str], force, words: &str| {
        let error = write_all(&parts(folder, names, b"new"), force).expect_err("a refusal").to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(list(folder), ["b", "d"]);
        assert_eq!(fs::read(folder.join("b")).expect("the old file"), b"old");
    };
    refused(&["a", "b"], false, "b exists: --force");
    refused(&["a", "d"], true, "d is a folder");
    refused(&["a", "none/c"], true, "cannot write");
    refused(&["a", "a"], true, "twice");
    write_all(&parts(folder, &["a", "b", "c"], b"new"), true).expect("--force");
    assert_eq!(list(folder), ["a", "b", "c", "d"]);
    assert_eq!(fs::read(folder.join("b")).expect("the new file"), b"new");
}

#[test]
fn what_appears_meanwhile_stays_and_the_rest_is_taken_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let place = folder.join("a");
    let fresh = Fresh::beside(&place, None, b"new").expect("a file beside it");
    fs::write(&place, "other").expect("a file");
    assert_eq!(fresh.place(false).expect_err("a taken place").kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&place).expect("the file"), b"other");
    assert_eq!(list(folder), ["a"]);
}

#[test]
fn the_longest_name_will_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "n".repeat(255);
    write(&folder.path().join(&name), b"new", false).expect("a long name");
    assert_eq!(list(folder.path()), [name]);
}

#[cfg(unix)]
#[test]
fn permissions_and_links_stay() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let [file, link, new] = ["file", "link", "new"].map(|name| folder.join(name));
    fs::write(&file, "old").expect("a file");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("permissions");
    symlink("file", &link).expect("a link");
    write(&link, b"new", true).expect("--force");
    let mode = fs::metadata(&file).expect("the file").permissions().mode();
    assert_eq!((fs::read(&file).expect("the file"), mode & 0o777), (b"new".to_vec(), 0o600));
    symlink("new", folder.join("dangling")).expect("a link");
    write(&folder.join("dangling"), b"made", true).expect("--force");
    assert_eq!(fs::read(&new).expect("the file"), b"made");
    assert_eq!(list(folder), ["dangling", "file", "link", "new"]);
    assert!(link.is_symlink() && folder.join("dangling").is_symlink());
    symlink("loop", folder.join("loop")).expect("a link");
    assert!(write(&folder.join("loop"), b"made", true).is_err());
}
