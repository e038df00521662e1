//! A kernel that hasn't enabled Landlock: the other walls stand, and one line says what is missing.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::thread;

use driver::{DEADLINE, Monitor};
use harness::{Setting, trials};
use libtest_mimic::{Completion, Trial};
use tempfile::TempDir;

use crate::linux::{ANY, BAD_HOST, CMDLINE, boot};
use crate::virtio::{file, guest_with, json};

pub(crate) fn tests() -> Vec<Trial> {
    let without = trials![
        landlock_that_is_missing_is_said_once_and_the_guest_runs,
        landlock_that_is_missing_is_said_by_doctor,
        landlock_that_is_required_and_missing_is_an_error,
    ];
    let with = Trial::ignorable_test("landlock_is_a_wall_of_the_other_tests_in_the_rig", || {
        if !rig::in_rig() {
            return Ok(Completion::ignored_with("another host may have a kernel without it"));
        }
        landlock_is_a_wall();
        Ok(Completion::Completed)
    });
    without.into_iter().map(|test| test.with_kind(Setting::NoLandlock.name())).chain([with]).collect()
}

const MISSING: &str = "sandbox: Landlock: missing: the kernel has it, but it isn't enabled";
const REMEDY: &str = "add landlock to the kernel's parameter lsm=";

/// What `vmm-bin doctor` prints.
fn doctor() -> String {
    let mut monitor = Monitor::command(["doctor"]).start();
    monitor.expect_code(0, DEADLINE);
    String::from_utf8(monitor.stdout()).expect("it is text")
}

fn landlock_is_a_wall() {
    let said = doctor();
    assert!(said.contains("ok    sandbox: Landlock, files: no path can be opened"), "{said}");
    let mut monitor = boot(ANY, CMDLINE).args(["-v"]).start();
    monitor.expect_stderr("INFO sandbox: Landlock, files: no path can be opened", DEADLINE);
}

fn landlock_that_is_missing_is_said_by_doctor() {
    let said = doctor();
    assert!(said.contains(&format!("WARN  {MISSING}\n      {REMEDY}\n")), "{said}");
    assert_eq!(said.matches("Landlock").count(), 1, "{said}");
}

/// With a disk, a network in the monitor, and connections for which there is a path keeper, which is without Landlock as well.
fn landlock_that_is_missing_is_said_once_and_the_guest_runs() {
    let dir = TempDir::new().expect("a temporary directory");
    let vsock = dir.path().join("v.sock");
    let listener = UnixListener::bind(dir.path().join("v.sock_52")).expect("a socket");
    let taking = thread::spawn(move || {
        let mut taken = Vec::new();
        listener.accept().expect("the guest connects").0.read_to_end(&mut taken).expect("the guest sends");
        taken.len()
    });
    let disk = file(&[b'x'; 1 << 20]);
    let devices = format!(
        r#"[{{"type": "block", "path": {}}}, {{"type": "net", "backend": "user"}},
            {{"type": "vsock", "cid": 3, "path": {vsock:?}}}]"#,
        json(disk.path())
    );
    let drivers = ["virtio_blk", "virtio_net", "vmw_vsock_virtio_transport"];
    let mut shell = guest_with(&devices, &drivers, &[]);
    assert_eq!(shell.run("echo written | dd of=/dev/vda conv=sync,fsync 2>/dev/null; echo $?"), "0\n");
    let lease = shell.run("ip link set lo up; udhcpc -n -q -i eth0 2>&1");
    assert!(lease.contains("lease of 10.0.2.15 obtained"), "{lease}");
    assert_eq!(shell.run("guest-agent send vsock:2:52 1 65536"), "sent 65536, then 0 came\n");
    assert_eq!(taking.join().expect("it took all"), 65536);
    shell.reboot();
    assert!(std::fs::read(disk.path()).expect("the disk is there").starts_with(b"written\n"));
    assert!(!vsock.exists(), "the path keeper removes the socket");
    let said = shell.monitor.stderr();
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("sandbox")).collect();
    assert_eq!(warnings.len(), 1, "{said}");
    assert!(warnings[0].ends_with(&format!("WARN {MISSING}; {REMEDY}")), "{said}");
}

fn landlock_that_is_required_and_missing_is_an_error() {
    let mut monitor = boot(ANY, CMDLINE).args(["--sandbox", "required"]).start();
    monitor.expect_code(BAD_HOST, DEADLINE);
    let said = monitor.stderr();
    assert!(said.starts_with("error: ") && said.contains(MISSING) && said.contains(REMEDY), "{said}");
    assert_eq!(monitor.stdout(), b"", "the guest has run");
}
