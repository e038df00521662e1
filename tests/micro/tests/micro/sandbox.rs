//! The sandbox as seen from outside, and its modes. What a thread could still do is in `escape`.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use driver::{DEADLINE, Launch, Monitor, Stdin, guests};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getgid, getuid};
use tempfile::TempDir;

use crate::common::{BY_SIGTERM, ENDED, HOST_CANT, boot, missing_wall, trial_with, unprivileged};
use crate::status::{field, statuses};

pub(crate) fn tests() -> Vec<Trial> {
    let by_root = |name: &'static str, test: fn()| {
        let missing = || match getuid().is_root() {
            true => missing_wall(&["namespaces"]),
            false => Some("only root can".to_owned()),
        };
        trial_with(name, missing, rig::guests_required, test)
    };
    let by_user = |name: &'static str, test: fn()| {
        trial_with(name, missing_user_namespaces, rig::guests_required, test)
    };
    let mut trials = trials![
        sandbox_is_around_every_thread,
        sandbox_of_an_ordinary_user_is_around_every_thread,
        sandbox_off_warns_and_confines_nothing,
        sandbox_that_logs_warns_and_runs,
        sandbox_lists_its_walls_and_their_times,
        sandbox_lets_a_machine_with_a_disk_restart,
        sandbox_lets_the_sockets_be_removed_at_the_end,
        sandbox_lets_the_monitor_be_stopped_and_continued,
    ];
    trials.extend([
        by_root(
            "sandbox_of_root_becomes_nobody_or_who_is_given",
            sandbox_of_root_becomes_nobody_or_who_is_given,
        ),
        by_root("sandbox_of_an_ordinary_user_is_that_users", sandbox_of_an_ordinary_user_is_that_users),
        by_root("sandbox_has_an_empty_read_only_root", sandbox_has_an_empty_read_only_root),
        by_root(
            "sandbox_has_a_network_only_for_a_card_in_the_monitor",
            sandbox_has_a_network_only_for_a_card,
        ),
        by_user(
            "sandbox_of_an_ordinary_user_has_an_empty_root",
            sandbox_of_an_ordinary_user_has_an_empty_root,
        ),
        by_user(
            "sandbox_without_user_namespaces_says_so_and_runs",
            sandbox_without_namespaces_says_so_and_runs,
        ),
        by_user("sandbox_that_is_required_needs_user_namespaces", sandbox_that_is_required_needs_namespaces),
    ]);
    trials
}

/// Why the monitor of an ordinary user has no namespaces of its own, or they can't be looked at.
fn missing_user_namespaces() -> Option<String> {
    if !getuid().is_root() {
        return Some("only root can".to_owned());
    }
    let [program, arguments @ ..] = unprivileged() else { unreachable!("root is privileged") };
    let unshared = Command::new(program).args(arguments).args(["unshare", "--user", "true"]).status();
    (!unshared.unwrap().success()).then(|| "an ordinary user gets no user namespace here".to_owned())
}

/// A directory with the config of a machine that has threads of several kinds.
struct Machine(TempDir);

impl Machine {
    fn new(more_devices: &str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::File::create(dir.path().join("disk")).unwrap().set_len(1 << 20).unwrap();
        let kernel = guests::path("echo");
        let config = format!(
            r#"{{"boot": {{"kernel": {kernel:?}}}, "memory": {{"size": "32M"}}, "cpus": {{"count": 2}},
                "on_reboot": "restart", "devices": [
                {{"type": "block", "id": "d", "path": "disk"}}, {{"type": "rng"}}, {{"type": "balloon"}},
                {{"type": "console", "id": "c", "target": {{"socket": "c.sock"}}}},
                {{"type": "vsock", "id": "v", "path": "v.sock"}}{more_devices}]}}"#
        );
        fs::write(dir.path().join("vm.json"), config).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn launch(&self) -> Launch {
        Monitor::command(["--config", "vm.json"]).dir(self.0.path()).stdin(Stdin::Pipe)
    }

    fn running(&self) -> Monitor {
        run(self.launch())
    }
}

/// With a guest that waits for input.
fn run(launch: Launch) -> Monitor {
    let mut monitor = launch.start();
    monitor.expect("ready\n", DEADLINE);
    monitor
}

/// A device's thread may get its name and its filter only after the guest has started; until then it does nothing for the guest.
#[track_caller]
fn assert_every_thread_is_confined(monitor: &Monitor) {
    driver::wait_until("every thread is there, with a filter", DEADLINE, || {
        let statuses = statuses(monitor);
        let is_there = |name: &&str| statuses.iter().any(|status| field(status, "Name") == **name);
        let is_confined = |status: &String| field(status, "Seccomp") == "2";
        THREADS.iter().all(is_there) && statuses.iter().all(is_confined)
    });
    for status in &statuses(monitor) {
        assert_eq!(field(status, "NoNewPrivs"), "1", "{status}");
        let kept = match (&*field(status, "Name"), field(status, "Uid").starts_with("0 ")) {
            // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER (linux/capability.h).
            ("path-keeper", true) => "000000000000000e",
            // What `unprivileged` leaves it.
            ("path-keeper", false) if getuid().is_root() => "0000000000000002",
            _ => NO_CAPABILITY,
        };
        let sets = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| field(status, name));
        assert_eq!(sets, [NO_CAPABILITY, kept, kept, NO_CAPABILITY], "{status}");
        assert_is_roots(status);
    }
    assert_bounding_sets_are_empty(monitor);
}

/// They stay as they are without CAP_SETPCAP, which root has, and an ordinary user in a user namespace, so not its keeper.
fn assert_bounding_sets_are_empty(monitor: &Monitor) {
    // Only root may look at the namespaces of a process that can't be traced.
    if !getuid().is_root() {
        return;
    }
    let has_namespace = namespace(monitor.pid(), "user") != namespace(Pid::this(), "user");
    for status in &statuses(monitor) {
        let is_keeper = field(status, "Name") == "path-keeper";
        if is_roots(monitor) || has_namespace && !is_keeper {
            assert_eq!(field(status, "CapBnd"), NO_CAPABILITY, "{status}");
        }
    }
}

/// Whether root has started it: its keeper stays root.
fn is_roots(monitor: &Monitor) -> bool {
    let is_so =
        |status: &String| field(status, "Name") == "path-keeper" && field(status, "Uid").starts_with("0 ");
    statuses(monitor).iter().any(is_so)
}

/// Files in /proc of a process that can't be dumped, or traced by its user, are root's.
#[track_caller]
fn assert_is_roots(status: &str) {
    let memory = fs::metadata(format!("/proc/{}/mem", field(status, "Pid"))).unwrap();
    assert_eq!(memory.uid(), 0, "{status}");
}

const NO_CAPABILITY: &str = "0000000000000000";

const THREADS: [&str; 7] = ["jobs", "vcpu0", "vcpu1", "vq-d", "vq-c", "vq-v", "path-keeper"];

fn sandbox_is_around_every_thread() {
    assert_every_thread_is_confined(&Machine::new("").running());
}

fn sandbox_of_an_ordinary_user_is_around_every_thread() {
    let machine = Machine::new("");
    open_to_all(machine.0.path());
    let monitor = run(machine.launch().wrapped(unprivileged()));
    assert_every_thread_is_confined(&monitor);
    let ids = if getuid().is_root() { (65534, 65534) } else { (getuid().as_raw(), getgid().as_raw()) };
    assert_runs_as(&monitor, ids.0, ids.1);
}

/// So that an ordinary user can make the sockets.
fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}

#[track_caller]
fn assert_runs_as(monitor: &Monitor, uid: u32, gid: u32) {
    let of_all = |id: u32| [id; 4].map(|id| id.to_string()).join(" ");
    for status in statuses(monitor).iter().filter(|status| field(status, "Name") != "path-keeper") {
        assert_eq!((field(status, "Uid"), field(status, "Gid")), (of_all(uid), of_all(gid)), "{status}");
        assert_eq!(field(status, "Groups"), "", "{status}");
    }
}

fn sandbox_of_root_becomes_nobody_or_who_is_given() {
    let machine = Machine::new("");
    assert_runs_as(&machine.running(), 65534, 65534);
    assert_runs_as(&run(machine.launch().args(["--uid", "4321", "--gid", "1234"])), 4321, 1234);
    // What isn't given is nobody's, not root's.
    assert_runs_as(&run(machine.launch().args(["--uid", "4321"])), 4321, 65534);
    assert_runs_as(&run(machine.launch().args(["--gid", "1234"])), 65534, 1234);
}

/// That is nobody, who may be given, and stays nobody.
fn sandbox_of_an_ordinary_user_is_that_users() {
    let machine = Machine::new("");
    open_to_all(machine.0.path());
    let same = machine.launch().args(["--uid", "65534", "--gid", "65534"]);
    assert_runs_as(&run(same.wrapped(unprivileged())), 65534, 65534);
    let mut other = machine.launch().args(["--uid", "4321"]).wrapped(unprivileged()).start();
    other.expect_exit(DEADLINE);
    assert!(other.stderr().contains("only root can become user 4321"), "{}", other.stderr());
}

#[track_caller]
fn assert_root_is_empty(pid: Pid) {
    let entries: Vec<_> = fs::read_dir(format!("/proc/{pid}/root/")).unwrap().collect();
    assert!(entries.is_empty(), "{entries:?}");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let options: Vec<_> = mounts.lines().map(|mount| mount.split(' ').nth(5).unwrap()).collect();
    assert_eq!(options.len(), 1, "{mounts}");
    let has = |wanted: &&str| options[0].split(',').any(|option| option == *wanted);
    assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(has), "{mounts}");
}

fn sandbox_has_an_empty_read_only_root() {
    assert_root_is_empty(Machine::new("").running().pid());
}

fn namespace(pid: Pid, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

fn sandbox_of_an_ordinary_user_has_an_empty_root() {
    let machine = Machine::new("");
    open_to_all(machine.0.path());
    let monitor = run(machine.launch().wrapped(unprivileged()));
    assert_root_is_empty(monitor.pid());
    for kind in ["user", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(namespace(monitor.pid(), kind), namespace(Pid::this(), kind), "{kind}");
    }
}

fn sandbox_has_a_network_only_for_a_card() {
    let ours = namespace(Pid::this(), "net");
    assert_ne!(namespace(Machine::new("").running().pid(), "net"), ours);
    let card = r#", {"type": "net", "backend": "user", "allow": ["tcp:*:443"]}"#;
    let monitor = Machine::new(card).running();
    assert_eq!(namespace(monitor.pid(), "net"), ours);
    for kind in ["mnt", "ipc", "uts", "cgroup"] {
        assert_ne!(namespace(monitor.pid(), kind), namespace(Pid::this(), kind), "{kind}");
    }
}

/// An ordinary user in a user namespace that permits no further ones. The monitor starts without capabilities, and may open what root
/// may, whose number it has outside.
const WITHOUT_NAMESPACES: [&str; 7] = [
    "unshare",
    "--user",
    "--map-user=1000",
    "--keep-caps",
    "sh",
    "-c",
    r#"echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all "$0" "$@""#,
];
const MISSING: &str = "sandbox: namespaces: missing: ";
const REMEDY: &str = "sysctl -w user.max_user_namespaces=";

fn sandbox_without_namespaces_says_so_and_runs() {
    let mut monitor = run(boot("echo").stdin(Stdin::Pipe).wrapped(WITHOUT_NAMESPACES));
    let (said, status) = (monitor.stderr(), statuses(&monitor));
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("WARN sandbox: ")).collect();
    // Without namespaces, nothing covers for what an older kernel's Landlock lacks.
    let lacks = |name| usize::from(missing_wall(&[name]).is_some());
    assert_eq!(warnings.len(), 1 + lacks("Landlock, signals and abstract sockets"), "{said}");
    assert!(warnings[0].contains(MISSING) && warnings[0].contains(REMEDY), "{said}");
    // The others stand. Nobody without CAP_SETPCAP can empty the bounding set, which new privileges would need.
    for status in &status {
        let values = ["Seccomp", "NoNewPrivs", "CapPrm"].map(|name| field(status, name));
        assert_eq!(values, ["2", "1", "0000000000000000"], "{status}");
    }
    monitor.send(b"\x04");
    monitor.expect_code(ENDED, DEADLINE);
}

fn sandbox_that_is_required_needs_namespaces() {
    let required = ["--sandbox", "required"];
    let mut monitor = boot("echo").args(required).wrapped(WITHOUT_NAMESPACES).start();
    monitor.expect_code(HOST_CANT, DEADLINE);
    let said = monitor.stderr();
    assert!(said.contains("namespaces: missing: ") && said.contains(REMEDY), "{said}");
    assert_eq!(monitor.stdout(), b"", "the guest has run");
    // Where nothing is missing it runs.
    run(boot("echo").args(required).stdin(Stdin::Pipe));
}

fn sandbox_off_warns_and_confines_nothing() {
    let monitor = run(Machine::new("").launch().args(["--sandbox", "off"]));
    assert!(
        monitor.stderr().contains("WARN the sandbox is off: a guest that takes over"),
        "{}",
        monitor.stderr()
    );
    for status in statuses(&monitor) {
        assert_eq!(field(&status, "Seccomp"), "0", "{status}");
    }
    assert_eq!(namespace(monitor.pid(), "mnt"), namespace(Pid::this(), "mnt"));
}

fn sandbox_that_logs_warns_and_runs() {
    let mut monitor = run(boot("echo").stdin(Stdin::Pipe).args(["--sandbox", "log"]));
    assert!(monitor.stderr().contains("WARN the sandbox only logs system calls"), "{}", monitor.stderr());
    monitor.send(b"\x04");
    monitor.expect_code(ENDED, DEADLINE);
}

fn sandbox_lists_its_walls_and_their_times() {
    let monitor = run(Machine::new("").launch().args(["-v"]));
    let said = monitor.stderr();
    for wall in vmm_sandbox::probe().unwrap() {
        assert!(said.contains(&format!(" sandbox: {wall}\n")), "{wall} isn't in {said}");
    }
    let (_, times) = said.split_once("INFO sandbox: walls took ").unwrap();
    let steps = times.lines().next().unwrap().split(|letter: char| letter.is_ascii_digit());
    let steps: Vec<_> = steps.filter(|step| !step.is_empty()).collect();
    assert_eq!(steps, [" us (path keeper ", ", jail ", ", Landlock ", ")"], "{said}");
}

fn sandbox_lets_a_machine_with_a_disk_restart() {
    let machine = Machine::new("");
    let mut monitor = machine.running();
    for _ in 0..2 {
        monitor.send(b"\x04");
        monitor.expect("bye\n", DEADLINE);
        monitor.expect("ready\n", DEADLINE);
    }
    assert_every_thread_is_confined(&monitor);
    // The console's socket still takes clients.
    UnixStream::connect(machine.path("c.sock")).unwrap();
    monitor.send(b"echoed\n");
    monitor.expect("echoed", DEADLINE);
}

fn sandbox_lets_the_sockets_be_removed_at_the_end() {
    let machine = Machine::new("");
    let mut monitor = machine.running();
    let sockets = [machine.path("c.sock"), machine.path("v.sock")];
    assert!(sockets.iter().all(|path| fs::metadata(path).unwrap().file_type().is_socket()));
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert!(!sockets.iter().any(|path| path.exists()), "{}", monitor.stderr());
}

/// The waits of all threads are restarted (restart_syscall(2)).
fn sandbox_lets_the_monitor_be_stopped_and_continued() {
    let mut monitor = Machine::new("").running();
    for _ in 0..3 {
        monitor.signal(Signal::SIGSTOP);
        let is_stopped = || statuses(&monitor).iter().any(|status| field(status, "State").starts_with('T'));
        driver::wait_until("it has stopped", DEADLINE, is_stopped);
        monitor.signal(Signal::SIGCONT);
        monitor.send(b"on\n");
        monitor.expect("on\n", DEADLINE);
    }
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}
