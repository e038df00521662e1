//! What this host permits, found out without the crate under test.

use std::io;
use std::process::{Command, Stdio};

use rustix::process::geteuid;
use vmm_sandbox::Wall;

use crate::child::{As, passes};
use crate::raw;

/// Whether this user may have namespaces and mount in them, according to util-linux.
pub(crate) fn permits_namespaces() -> bool {
    let mut unshare = Command::new("unshare");
    if !geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.args(["--mount", "--net", "--ipc", "--uts", "--cgroup", "mount", "-t", "tmpfs", "none", "/proc"]);
    unshare.stderr(Stdio::null()).current_dir("/").status().expect("util-linux is installed").success()
}

/// The ABI of the kernel's Landlock; 0 if it has none or it isn't enabled.
pub(crate) fn landlock_abi() -> u64 {
    const VERSION: u64 = 1;
    match raw::call(libc::SYS_landlock_create_ruleset, [0, 0, VERSION, 0]) {
        Ok(abi) => abi,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP)) => 0,
        Err(error) => panic!("{error}"),
    }
}

/// Tests of this crate check less where the host lacks a wall. Where every test must run (VMM_REQUIRE_GUESTS, which CI sets), it has all.
#[test]
fn host_has_every_wall_if_every_test_must_run() {
    if std::env::var_os("VMM_REQUIRE_GUESTS").is_none_or(|value| value != "1") {
        return;
    }
    for user in [As::Tester, As::Ordinary] {
        passes("host::host_has_every_wall_if_every_test_must_run", user, || {
            let walls = vmm_sandbox::probe().unwrap();
            assert!(walls.iter().all(Wall::is_up), "{walls:?}");
        });
    }
}

/// The error number of a failure.
pub(crate) fn errno<T>(result: Result<T, impl Into<io::Error>>) -> Option<i32> {
    result.err().and_then(|error| error.into().raw_os_error())
}
