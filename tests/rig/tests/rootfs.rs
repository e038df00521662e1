//! Root file systems are built without root, sound, and root's. The first run fetches Busybox and a kernel.

use std::path::Path;
use std::process::Command;

use rig::{Assets, KernelKind, Rootfs, fio, programs};

/// What `program` (of e2fsprogs) says of an image, with its exit code.
fn e2fsprogs(program: &str, args: &[&str], image: &Path) -> (String, Option<i32>) {
    // Where Debian has them; an ordinary user's path doesn't.
    let output = Command::new(format!("/sbin/{program}")).args(args).arg(image).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

fn debugfs(request: &str, image: &Path) -> String {
    e2fsprogs("debugfs", &["-R", request], image).0
}

#[test]
fn busybox_image_is_sound_and_roots() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.ext4");

    // As small as `cargo xtask rootfs --size` takes.
    Assets::here().build_rootfs(Rootfs::Busybox, 16 << 20, &image).unwrap();

    let (report, code) = e2fsprogs("e2fsck", &["-fn"], &image);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(image.metadata().unwrap().len(), 16 << 20);
    let init = debugfs("stat /sbin/init", &image);
    assert!(init.contains("Fast link dest: \"/bin/busybox\""), "{init}");
    let busybox = debugfs("stat /bin/busybox", &image);
    assert!(busybox.contains("Mode:  0755") && busybox.contains("User:     0   Group:     0 "), "{busybox}");
    let shadow = debugfs("stat /etc/shadow", &image);
    assert!(shadow.contains("Mode:  0600") && shadow.contains("User:     0   Group:     0 "), "{shadow}");
    assert!(debugfs("cat /etc/inittab", &image).contains("ttyS0::respawn:/sbin/getty"));
    let left: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["disk.ext4"]);
}

#[test]
fn busybox_image_is_kept() {
    let assets = Assets::here();
    let first = assets.rootfs(Rootfs::Busybox).unwrap();
    let made = first.metadata().unwrap().modified().unwrap();
    let second = assets.rootfs(Rootfs::Busybox).unwrap();
    assert_eq!(first, second);
    assert_eq!(second.metadata().unwrap().modified().unwrap(), made);
}

#[test]
fn image_that_is_too_small_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let error =
        Assets::here().build_rootfs(Rootfs::Busybox, 1 << 20, &dir.path().join("disk.ext4")).unwrap_err();
    assert!(error.to_string().ends_with("the files don't fit into 1 MiB: choose a larger size"), "{error}");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn disk_initrd_is_one_per_kernel() {
    let assets = Assets::here();
    let cloud = assets.disk_initrd(KernelKind::Cloud61).unwrap();
    assert_ne!(cloud, assets.disk_initrd(KernelKind::Generic61).unwrap());
    assert_eq!(cloud, assets.disk_initrd(KernelKind::Cloud61).unwrap());
}

#[test]
#[ignore = "needs the network and a minute; `cargo xtask rootfs --debian` does the same by hand"]
fn debian_image_is_sound_and_has_its_owners() {
    let image = Assets::here().rootfs(Rootfs::Debian).unwrap();

    let (report, code) = e2fsprogs("e2fsck", &["-fn"], &image);
    assert_eq!(code, Some(0), "{report}");
    assert!(debugfs("stat /sbin/init", &image).contains("Fast link dest: \"/lib/systemd/systemd\""));
    let passwd = debugfs("stat /usr/bin/passwd", &image);
    assert!(passwd.contains("Mode:  04755") && passwd.contains("User:     0   Group:     0 "), "{passwd}");
    // Group 42 is shadow (base-passwd).
    let shadow = debugfs("stat /etc/shadow", &image);
    assert!(shadow.contains("Mode:  0640") && shadow.contains("User:     0   Group:    42 "), "{shadow}");
    assert!(debugfs("cat /etc/shadow", &image).contains("\nroot:$6$vmmrootfs$"));
}

#[test]
#[ignore = "needs the network and half a minute; the guest tests and `cargo xtask bench block` do the same"]
fn fio_image_is_sound_and_fio_runs_from_its_directory() {
    let assets = Assets::here();
    let image = assets.rootfs(Rootfs::Fio).unwrap();

    let (report, code) = e2fsprogs("e2fsck", &["-fn"], &image);
    assert_eq!(code, Some(0), "{report}");
    assert!(debugfs("stat /usr/bin/fio", &image).contains("Mode:  0755"));
    assert!(debugfs("stat /opt/fio/ld.so", &image).contains("Mode:  0755"));
    let [loader, words @ ..] = fio::command(&assets.fio().unwrap());
    let version = Command::new(loader).args(words).arg("--version").output().unwrap();
    assert!(version.stdout.starts_with(b"fio-"), "{version:?}");
}

#[test]
#[ignore = "needs the network and a quarter of a minute; `cargo xtask bench net` does the same"]
fn iperf3_and_bash_run_from_one_directory() {
    let dir = Assets::here().iperf3().unwrap();
    let said = |program: &str| {
        let [loader, words @ ..] = programs::command(&dir, program);
        String::from_utf8(Command::new(loader).args(words).arg("--version").output().unwrap().stdout).unwrap()
    };
    assert!(said("iperf3").starts_with("iperf 3."), "{}", said("iperf3"));
    assert!(said("bash").starts_with("GNU bash"), "{}", said("bash"));
}
