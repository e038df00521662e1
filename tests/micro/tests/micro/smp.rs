//! Multiple processors: their topology, and the affinity of their threads.

use std::fs;
use std::path::PathBuf;

use driver::{DEADLINE, Launch, Monitor, guests};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BY_SIGTERM, HOST_CANT};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        smp_processors_have_the_apic_ids_of_their_topology,
        smp_three_hundred_processors_answer,
        smp_more_processors_than_kvm_has_are_refused,
        smp_affinity_holds_for_each_thread,
        smp_affinity_to_a_cpu_that_is_not_there_is_refused,
    ]
}

/// The guest in which every processor records its APIC id, with this `cpus` in its config.
struct RollCall {
    _dir: TempDir,
    config: PathBuf,
}

impl RollCall {
    fn new(cpus: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = dir.path().join("vm.json");
        let image = guests::path("roll-call");
        let text = format!(
            r#"{{"boot": {{"flat": {{"image": {image:?}, "mode": "protected"}}}}, "memory": {{"size": "4M"}},
                "cpus": {cpus}, "devices": [{{"type": "debug-console"}}]}}"#
        );
        fs::write(&config, text).expect("room for a config");
        Self { _dir: dir, config }
    }

    fn launch(&self) -> Launch {
        Monitor::command(["--config".as_ref(), self.config.as_os_str()])
    }
}

/// Asserts that the guest counts this many processors with different APIC ids.
fn assert_counts(cpus: &str, count: u32) -> Monitor {
    let guest = RollCall::new(cpus);
    let mut monitor = guest.launch().start();
    monitor.expect(&format!("{count}\n"), DEADLINE);
    monitor
}

fn end(mut monitor: Monitor) {
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

/// Twelve processors, whose highest APIC id is 13.
fn smp_processors_have_the_apic_ids_of_their_topology() {
    end(assert_counts(r#"{"count": 12, "threads_per_core": 2, "sockets": 2}"#, 12));
}

/// More than 8-bit APIC ids can address.
fn smp_three_hundred_processors_answer() {
    let monitor = assert_counts(r#"{"count": 300}"#, 300);
    let vcpus = monitor.thread_names().iter().filter(|name| name.starts_with("vcpu")).count();
    assert_eq!(vcpus, 300);
    end(monitor);
}

/// KVM supports at most 4096 APIC ids. Three cores take two bits of an id, so the highest id is above 5000.
fn smp_more_processors_than_kvm_has_are_refused() {
    let guest = RollCall::new(r#"{"count": 4095, "cores_per_socket": 3}"#);
    let mut monitor = guest.launch().start();
    monitor.expect_code(HOST_CANT, DEADLINE);
    let error = monitor.stderr();
    assert!(error.starts_with("error: cpus"), "{error}");
}

/// The first and the last CPU that this process may use; they are equal if there is only one.
fn host_cpus() -> (String, String) {
    let status = fs::read_to_string("/proc/self/status").expect("proc(5)");
    let list =
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("proc(5)").trim();
    let first = list.split([',', '-']).next().expect("a CPU");
    let last = list.rsplit([',', '-']).next().expect("a CPU");
    (first.to_owned(), last.to_owned())
}

fn smp_affinity_holds_for_each_thread() {
    let (first, last) = host_cpus();
    let monitor = assert_counts(&format!(r#"{{"count": 2, "affinity": [[{first}], [{last}]]}}"#), 2);
    let cpus = monitor.thread_cpus();
    let of = |name: &str| &cpus.iter().find(|(thread, _)| thread == name).expect("a vCPU's thread").1;
    assert_eq!((of("vcpu0"), of("vcpu1")), (&first, &last));
    end(monitor);
}

fn smp_affinity_to_a_cpu_that_is_not_there_is_refused() {
    let (first, _) = host_cpus();
    let guest = RollCall::new(&format!(r#"{{"count": 2, "affinity": [[{first}], [1023]]}}"#));
    let mut monitor = guest.launch().start();
    monitor.expect_code(HOST_CANT, DEADLINE);
    let message = ":2:56: cpus.affinity[1]: this process can't run on CPU 1023 of the host, only on ";
    assert!(monitor.stderr().contains(message), "{}", monitor.stderr());
}
