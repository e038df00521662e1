//! The rig runs commands as their caller expects. Each test boots an outer machine or two.

use std::fs;
use std::time::Duration;

use rig::{Assets, Error, Rig, Stdin};

#[test]
fn rig_two_at_once_keep_apart() {
    let assets = Assets::here();
    let results = tempfile::tempdir().unwrap();
    let script = "[ -w /dev/kvm ] && cat && printf '\\377\\r\\n' && echo kept >/run/results/file && exit 42";
    let first = Rig::new(&assets).stdin(Stdin::Bytes(b"typed".to_vec())).results(results.path());
    let second = Rig::new(&assets).env("GREETING", "it's me").current_dir("/usr");

    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(move || first.capture(["sh", "-c", script]).unwrap());
        let second =
            second.capture(["sh", "-c", "pwd; echo \"$GREETING\"; cat; echo lost >/usr/lost"]).unwrap();
        (first.join().unwrap(), second)
    });

    assert_eq!(first.output, b"typed\xff\r\n");
    assert_eq!(first.exit_code, 42);
    assert_eq!(fs::read_to_string(results.path().join("file")).unwrap(), "kept\n");
    assert_eq!(String::from_utf8(second.output).unwrap(), "/usr\nit's me\n");
    assert_eq!(second.exit_code, 0);
    assert!(!fs::exists("/usr/lost").unwrap());
}

#[test]
fn rig_timeout_ends_it() {
    let error =
        Rig::new(&Assets::here()).timeout(Duration::from_secs(1)).capture(["sleep", "1000"]).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[test]
fn rig_too_little_memory_says_where_it_failed() {
    let error = Rig::new(&Assets::here()).memory_mib(40).capture(["true"]).unwrap_err();
    assert!(error.to_string().starts_with("the rig failed while booting the outer kernel"), "{error}");
}

#[test]
fn rig_is_as_a_host_to_an_ordinary_user() {
    let script = "test -r /dev/kvm && test -w /dev/kvm && test -w /dev/net/tun && unshare --user --mount cat /proc/cmdline";
    let user = |groups| ["setpriv", "--reuid=1000", "--regid=1000", groups, "sh", "-c", script];
    let group_of_kvm = "--groups=36";

    let rig = Rig::new(&Assets::here()).kernel_parameters("rig.test=1");
    let ran = rig.capture(user(group_of_kvm)).unwrap();
    assert!(String::from_utf8_lossy(&ran.output).trim().ends_with(" rig.test=1"), "{ran:?}");
    assert_eq!(rig.capture(user("--clear-groups")).unwrap().exit_code, 1, "not in the group");
}
