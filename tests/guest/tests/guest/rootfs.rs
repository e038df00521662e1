//! Root disks: stock systems booted from virtio-block, with a login on the serial console.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use rig::{Assets, Rootfs};
use tempfile::{NamedTempFile, TempDir};

use crate::linux::{ANY, BOOT_DEADLINE, ENDED, image_path};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        rootfs_busybox_keeps_what_was_written_and_stays_clean,
        rootfs_killed_monitor_leaves_a_disk_that_its_journal_mends,
        rootfs_overlay_base_is_shared_by_two_guests,
        rootfs_debian_with_its_own_initramfs_reaches_its_login,
    ]
}

/// Builds everything that these tests boot.
pub(crate) fn prepare() -> Result<(), rig::Error> {
    let assets = Assets::here();
    assets.disk_initrd(ANY.0)?;
    assets.debian_boot_files()?;
    Rootfs::ALL.into_iter().try_for_each(|rootfs| assets.rootfs(rootfs).map(drop))
}

/// A copy of a disk image for one test.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn copy_of(rootfs: Rootfs) -> Self {
        let pristine = Assets::here().rootfs(rootfs).expect("it was built beforehand");
        let directory = TempDir::new().expect("a temporary directory");
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .arg(pristine)
            .arg(directory.path().join("disk"))
            .status();
        assert!(copied.expect("cp is there").success());
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("disk")
    }

    /// Asserts that e2fsck finds no errors, without changing the disk.
    #[track_caller]
    fn assert_clean(&self) {
        let fsck =
            Command::new("e2fsck").args(["-f", "-n"]).arg(self.path()).output().expect("e2fsck is there");
        assert!(fsck.status.success(), "{}", String::from_utf8_lossy(&fsck.stdout));
    }

    /// Replays the journal, without repairing anything else.
    #[track_caller]
    fn replay_journal(&self) {
        let fsck = Command::new("e2fsck")
            .args(["-p", "-E", "journal_only"])
            .arg(self.path())
            .output()
            .expect("e2fsck is there");
        // 1 means that errors were corrected, which includes replaying the journal (e2fsck(8)).
        let code = fsck.status.code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", String::from_utf8_lossy(&fsck.stdout));
    }
}

/// Starts a guest on a terminal, whose initramfs mounts its root from the config's devices; also returns the config's file.
pub(crate) fn start_on_disk(config: &str, memory: &str, cmdline: &str) -> (Monitor, NamedTempFile) {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), config).expect("room for a config");
    let initrd = Assets::here().disk_initrd(ANY.0).expect("it was built beforehand");
    let files = [["--kernel".into(), image_path(ANY)], ["--initrd".into(), initrd]].concat();
    let launch = Monitor::command(["--memory", memory, "--cmdline", cmdline]).args(files);
    (launch.args(["--config".as_ref(), file.path().as_os_str()]).on_terminal().start(), file)
}

/// Starts a guest whose root is a block device with these fields.
fn start(fields: &str) -> (Monitor, NamedTempFile) {
    let config =
        format!(r#"{{"devices": [{{"type": "block", "id": "root", {fields}}}, {{"type": "rng"}}]}}"#);
    start_on_disk(&config, "512M", "console=ttyS0 root=/dev/vda rw panic=-1 quiet")
}

fn path_field(path: &Path) -> String {
    format!(r#""path": {path:?}"#)
}

/// Waits for the login prompt and logs in as root.
#[track_caller]
fn log_in(monitor: &mut Monitor, deadline: Duration) {
    monitor.expect("login: ", deadline);
    monitor.send(b"root\n");
    monitor.expect("assword: ", deadline);
    monitor.send(b"root\n");
    monitor.expect("# ", deadline);
    // From now on only output and prompts arrive.
    monitor.send(b"stty -echo\n");
    monitor.expect("stty -echo", DEADLINE);
    monitor.expect("# ", DEADLINE);
}

/// Runs a command and returns its output.
#[track_caller]
pub(crate) fn run(monitor: &mut Monitor, command: &str) -> String {
    monitor.send(format!("{command}; echo do\"\"ne\n").as_bytes());
    let printed = monitor.expect("done\r\n", BOOT_DEADLINE);
    monitor.expect("# ", DEADLINE);
    printed.replace('\r', "")
}

#[track_caller]
fn power_off(mut monitor: Monitor) {
    monitor.send(b"poweroff\n");
    monitor.expect_code(ENDED, BOOT_DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

fn rootfs_busybox_keeps_what_was_written_and_stays_clean() {
    let disk = Disk::copy_of(Rootfs::Busybox);
    let (mut monitor, _config) = start(&path_field(&disk.path()));
    log_in(&mut monitor, BOOT_DEADLINE);
    let listing = run(&mut monitor, "ls -lat /");
    assert!(["lost+found", "sbin", "etc", "root"].iter().all(|name| listing.contains(name)), "{listing}");
    assert_eq!(run(&mut monitor, "echo kept > /root/note; sync; cat /root/note"), "kept\n");
    power_off(monitor);
    disk.assert_clean();

    let (mut monitor, _config) = start(&path_field(&disk.path()));
    log_in(&mut monitor, BOOT_DEADLINE);
    assert_eq!(run(&mut monitor, "cat /root/note"), "kept\n");
    power_off(monitor);
    disk.assert_clean();
}

fn rootfs_killed_monitor_leaves_a_disk_that_its_journal_mends() {
    let disk = Disk::copy_of(Rootfs::Busybox);
    let (mut monitor, _config) = start(&path_field(&disk.path()));
    log_in(&mut monitor, BOOT_DEADLINE);
    assert_eq!(run(&mut monitor, "echo synced > /root/note; sync"), "");
    monitor.send(b"i=0; while :; do i=$((i+1)); echo wr\"\"ite $i; dd if=/dev/zero of=/root/f$((i%8)) bs=64k count=8 2>/dev/null; done\n");
    monitor.expect("write 20\r\n", BOOT_DEADLINE);
    monitor.signal(Signal::SIGKILL);
    monitor.expect_exit(DEADLINE);
    disk.replay_journal();
    disk.assert_clean();

    let (mut monitor, _config) = start(&path_field(&disk.path()));
    log_in(&mut monitor, BOOT_DEADLINE);
    assert_eq!(run(&mut monitor, "cat /root/note"), "synced\n");
    power_off(monitor);
}

fn rootfs_overlay_base_is_shared_by_two_guests() {
    let disk = Disk::copy_of(Rootfs::Busybox);
    let before = std::fs::read(disk.path()).expect("the disk is there");
    let fields = format!(r#"{}, "overlay": "temp""#, path_field(&disk.path()));
    let (mut one, _config_one) = start(&fields);
    let (mut two, _config_two) = start(&fields);
    log_in(&mut one, BOOT_DEADLINE);
    log_in(&mut two, BOOT_DEADLINE);
    assert_eq!(
        run(&mut one, "echo one > /root/note; sync; echo 3 > /proc/sys/vm/drop_caches; cat /root/note"),
        "one\n"
    );
    assert_eq!(
        run(&mut two, "cat /root/note 2>/dev/null; echo two > /root/note; sync; cat /root/note"),
        "two\n"
    );
    assert_eq!(run(&mut one, "cat /root/note"), "one\n");
    power_off(one);
    power_off(two);
    assert!(before == std::fs::read(disk.path()).expect("the disk is there"), "the base has changed");
}

/// systemd is slow under software emulation.
const DEBIAN_DEADLINE: Duration = Duration::from_secs(400);

fn rootfs_debian_with_its_own_initramfs_reaches_its_login() {
    let disk = Disk::copy_of(Rootfs::Debian);
    let boot = Assets::here().debian_boot_files().expect("they were copied beforehand");
    let config = NamedTempFile::new().expect("a temporary file");
    let json =
        format!(r#"{{"transport": "pci", "devices": [{{"type": "block", {}}}]}}"#, path_field(&disk.path()));
    std::fs::write(config.path(), json).expect("room for a config");
    let words = ["--memory", "512M", "--cmdline", "console=ttyS0 root=LABEL=rootfs rw panic=-1 quiet"];
    let files = [("--kernel", boot.join("vmlinuz")), ("--initrd", boot.join("initrd.img"))];
    let files = files.map(|(flag, path)| [flag.into(), path]).concat();
    let launch = Monitor::command(words).args(files).args(["--config".as_ref(), config.path().as_os_str()]);
    let mut monitor = launch.on_terminal().start();
    log_in(&mut monitor, DEBIAN_DEADLINE);
    let release = run(&mut monitor, "cat /etc/os-release");
    assert!(release.contains("ID=debian\n"), "{release}");
    let root = run(&mut monitor, "findmnt -no SOURCE,FSTYPE /");
    assert!(root.contains("/dev/vda ext4"), "{root:?}");
    let vectors = run(&mut monitor, "grep virtio0-req.0 /proc/interrupts");
    assert!(vectors.contains("PCI-MSI"), "{vectors}");
    monitor.send(b"systemctl poweroff\n");
    monitor.expect_code(ENDED, DEBIAN_DEADLINE);
    disk.assert_clean();
}
