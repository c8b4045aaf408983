use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::NpuReport;

fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A machine whose NPU works, for the effective user 1000 in group 44.
fn healthy(root: &Path) -> String {
    let pci = "sys/bus/pci/devices/0000:c6:00.1".to_owned();
    for (name, text) in
        [("vendor", "0x1022\n"), ("device", "0x17f0\n"), ("revision", "0x11\n"), ("fw_version", "1.1.2.64\n")]
    {
        put(root, &format!("{pci}/{name}"), text);
    }
    put(root, "sys/bus/pci/devices/0000:00:00.0/vendor", "0x1022\n");
    put(root, "sys/bus/pci/devices/0000:00:00.0/device", "0x14e8\n");
    symlink("../../../../bus/pci/drivers/amdxdna", root.join(&pci).join("driver")).unwrap();
    symlink("../../../../kernel/iommu_groups/24", root.join(&pci).join("iommu_group")).unwrap();
    fs::create_dir_all(root.join(&pci).join("accel/accel0")).unwrap();
    put(root, "dev/accel/accel0", "");
    fs::set_permissions(root.join("dev/accel/accel0"), fs::Permissions::from_mode(0o666)).unwrap();
    put(root, "proc/sys/kernel/osrelease", "6.16.3-amd64\n");
    put(
        root,
        "proc/self/status",
        "Name:\tbiga\nUid:\t1000\t4000000\t1000\t1000\nGid:\t1000\t4000000\t1000\t1000\nGroups:\t44 \n",
    );
    put(
        root,
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \nMax locked memory         unlimited            unlimited            bytes     \n",
    );
    pci
}

fn check(change: impl FnOnce(&Path, &str), problems: &[&str], remedies: &[&str]) -> NpuReport {
    let folder = tempfile::tempdir().unwrap();
    let pci = healthy(folder.path());
    change(folder.path(), &pci);
    let report = NpuReport::look(folder.path());
    assert_eq!(report.findings.len(), problems.len(), "{:?}", report.findings);
    for ((finding, problem), remedy) in report.findings.iter().zip(problems).zip(remedies) {
        assert!(finding.problem.contains(problem), "{finding:?}");
        assert!(finding.remedy.contains(remedy), "{finding:?}");
    }
    report
}

#[test]
fn a_working_npu_has_no_finding() {
    let report = check(|_, _| {}, &[], &[]);
    let [device] = &report.devices[..] else { panic!("{report:?}") };
    assert_eq!(device.model, "NPU5 (Strix Halo)");
    assert_eq!((device.pci_address.as_str(), device.driver.as_deref()), ("0000:c6:00.1", Some("amdxdna")));
    assert_eq!(device.firmware.as_deref(), Some("1.1.2.64"));
    assert!(device.node.as_ref().unwrap().usable);
    assert_eq!(report.unavailable().cause, "npu NPU5 (Strix Halo) at 0000:c6:00.1: no backend for it is registered");
}

#[test]
fn a_machine_without_one_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let report = NpuReport::look(folder.path());
    assert_eq!(report, NpuReport::default());
    assert_eq!(report.unavailable().cause, "no amd npu on the pci bus");
}

#[test]
fn each_obstacle_names_the_next_command() {
    let unbound = |root: &Path, pci: &str| fs::remove_file(root.join(pci).join("driver")).unwrap();
    check(unbound, &["no driver holds 0000:c6:00.1 (kernel 6.16.3-amd64)"], &["sudo modprobe amdxdna"]);

    let old_kernel = |root: &Path, pci: &str| {
        unbound(root, pci);
        put(root, "proc/sys/kernel/osrelease", "6.1.0-37-amd64\n");
    };
    check(old_kernel, &["came with Linux 6.14, this is 6.1.0-37-amd64"], &["newer kernel"]);

    let no_iommu = |root: &Path, pci: &str| {
        unbound(root, pci);
        fs::remove_file(root.join(pci).join("iommu_group")).unwrap();
    };
    check(no_iommu, &["has no iommu group"], &["firmware setup"]);

    let held = |root: &Path, pci: &str| {
        unbound(root, pci);
        symlink("/sys/bus/pci/drivers/vfio-pci", root.join(pci).join("driver")).unwrap();
    };
    check(held, &["held by vfio-pci"], &["/sys/bus/pci/drivers/vfio-pci/unbind"]);

    let no_node = |root: &Path, _: &str| fs::remove_file(root.join("dev/accel/accel0")).unwrap();
    check(no_node, &["made no file in /dev/accel"], &["dmesg"]);

    let locked = |root: &Path, _: &str| put(root, "proc/self/limits", "Max locked memory  8388608  8388608  bytes\n");
    let report = check(locked, &["may lock 8388608 bytes"], &["memlock unlimited"]);
    assert!(report.unavailable().cause.ends_with("the npu needs 67108864"));
}

#[test]
fn a_node_that_may_not_be_opened_names_its_group() {
    use std::os::unix::fs::MetadataExt;
    let closed = |root: &Path, _: &str| {
        let node = root.join("dev/accel/accel0");
        fs::set_permissions(&node, fs::Permissions::from_mode(0o660)).unwrap();
        let gid = fs::metadata(&node).unwrap().gid();
        put(root, "etc/group", format!("bad line\n:x\nrender:x:{gid}:\n"));
    };
    check(closed, &["mode 0660, group render"], &["usermod -aG render"]);

    let member = |root: &Path, pci: &str| {
        closed(root, pci);
        let gid = fs::metadata(root.join("dev/accel/accel0")).unwrap().gid();
        put(root, "proc/self/status", format!("Uid:\t5\t4000000\nGid:\t5\t5\nGroups:\t7 {gid}\n"));
    };
    check(member, &[], &[]);
}

#[test]
fn odd_contents_are_shown_clean_or_not_at_all() {
    let hostile = |root: &Path, pci: &str| {
        put(root, &format!("{pci}/fw_version"), [b"\x1b[2J".as_slice(), &[0xff; 5000]].concat());
        put(root, &format!("{pci}/revision"), "not a number");
        put(root, "proc/sys/kernel/osrelease", "");
        put(root, "proc/self/limits", "Max locked memory");
        put(root, "sys/bus/pci/devices/odd/vendor", "0xffffffffffffffffffff");
        fs::create_dir_all(root.join("sys/bus/pci/devices/folder/vendor")).unwrap();
        fs::create_dir_all(root.join(pci).join("accel/accel")).unwrap();
        fs::create_dir_all(root.join(pci).join("accel/accel0\n")).unwrap();
    };
    let report = check(hostile, &[], &[]);
    assert_eq!(report.devices[0].model, "NPU2 (Strix, early revision)");
    let firmware = report.devices[0].firmware.as_deref().unwrap();
    assert!(firmware.chars().count() <= 80 && !firmware.contains('\x1b'), "{firmware:?}");
    assert_eq!((report.kernel, report.memlock_bytes), (None, None));
}
