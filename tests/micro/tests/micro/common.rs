//! Constants and functions that the tests share.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use driver::{Launch, Monitor, guests};
use libtest_mimic::{Completion, Failed, Trial};
use vmm_arch::flat::Mode;
use vmm_boot::{FlatPlan, FlatSpec, Role, SourceFile};
use vmm_memory::GuestRam;

/// Guest memory of [`boot`] in bytes.
pub(crate) const RAM_LEN: u64 = 32 << 20;

/// Exit codes, as in `vmm-bin --help`.
pub(crate) const ENDED: i32 = 0;
pub(crate) const USAGE: i32 = 2;
pub(crate) const BAD_CONFIG: i32 = 3;
pub(crate) const HOST_CANT: i32 = 4;
pub(crate) const CRASHED: i32 = 5;
pub(crate) const TIME_IS_UP: i32 = 124;
pub(crate) const BY_SIGHUP: i32 = 128 + 1;
pub(crate) const BY_SIGINT: i32 = 128 + 2;
pub(crate) const BY_SIGQUIT: i32 = 128 + 3;
pub(crate) const BY_SIGPIPE: i32 = 128 + 13;
pub(crate) const BY_SIGALRM: i32 = 128 + 14;
pub(crate) const BY_SIGTERM: i32 = 128 + 15;

/// The path of a guest's image, for `--kernel`.
pub(crate) fn kernel(guest: &str) -> String {
    guests::path(guest).into_os_string().into_string().expect("the workspace's path is UTF-8")
}

/// Launches this guest with 32 MiB of memory.
pub(crate) fn boot(guest: &str) -> Launch {
    Monitor::command(["--kernel", &kernel(guest), "--memory", "32M"])
}

/// The command that runs a program as a user whose number of processes can be limited: not as root. It may open all files, as root may.
pub(crate) fn unprivileged() -> &'static [&'static str] {
    let as_nobody = &[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--bounding-set=-all,+dac_override",
    ];
    if nix::unistd::getuid().is_root() { as_nobody } else { &[] }
}

/// Has the monitor stay the user who runs the tests, also root: others may not write to a file system in user space (fuse(8),
/// allow_other).
pub(crate) fn own_user(launch: Launch) -> Launch {
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    launch.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()])
}

/// The first of these walls of the sandbox that this host lacks.
pub(crate) fn missing_wall(names: &[&str]) -> Option<String> {
    let walls = vmm_sandbox::probe().expect("a child process");
    let is_up = |name: &&&str| walls.iter().any(|wall| wall.name == **name && wall.is_up());
    names.iter().find(|name| !is_up(name)).map(|name| format!("this host lacks a wall: {name}"))
}

/// A test that needs something of the host: where that is `missing`, the test is ignored with the reason, and fails where it `must_run`.
pub(crate) fn trial_with(
    name: impl Into<String>,
    missing: impl FnOnce() -> Option<String> + Send + 'static,
    must_run: fn() -> bool,
    test: impl FnOnce() + Send + 'static,
) -> Trial {
    Trial::ignorable_test(name, move || match missing() {
        None => {
            test();
            Ok(Completion::Completed)
        }
        Some(why) if must_run() => Err(Failed::from(why)),
        Some(why) => Ok(Completion::ignored_with(why)),
    })
}

/// Lets the monitor start no more threads.
pub(crate) fn forbid_threads(monitor: &Monitor) {
    limit(monitor, "--nproc=0");
}

/// Sets a limit of a running monitor, by an option of prlimit(1).
pub(crate) fn limit(monitor: &Monitor, option: &str) {
    let pid = monitor.pid().to_string();
    // As the user that it has become: root needs CAP_SYS_RESOURCE for it.
    let words: Vec<_> = unprivileged().iter().copied().chain(["prlimit", option, "--pid", &pid]).collect();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success());
}

/// Lets the monitor have only `more` descriptors than it has now; a negative number forbids those that it closes.
pub(crate) fn limit_descriptors(monitor: &Monitor, more: i64) {
    let pid = monitor.pid().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as i64;
    limit(monitor, &format!("--nofile={}", open + more));
}

/// Guest RAM at `ranges` with a flat image loaded into it, and the image's plan.
pub(crate) fn load_flat(
    image: &Path,
    mode: Mode,
    load_address: Option<u64>,
    ranges: &[Range<u64>],
) -> (FlatPlan, GuestRam) {
    let mut file = SourceFile::open(Role::Image, image).unwrap();
    let image = file.inspect_flat().unwrap();
    let spec = FlatSpec { load_address, mode: Some(mode), ..FlatSpec::new(&image, ranges) };
    let plan = FlatPlan::new(&spec).unwrap();
    let ram = GuestRam::new(ranges).unwrap();
    plan.load(ram.memory(), file.file(), []).unwrap();
    (plan, ram)
}
