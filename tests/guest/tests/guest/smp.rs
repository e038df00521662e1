//! Multiple processors: their topology as seen by Linux, and that all of them work.

use std::path::{Path, PathBuf};
use std::process::Command;

use driver::Monitor;
use harness::trials;
use libtest_mimic::Trial;
use rig::KernelKind;
use rig::newc::Archive;
use tempfile::NamedTempFile;

use crate::linux::{ANY, BOOT_DEADLINE, CMDLINE, Image, boot_with_memory, image_path, initrd_path};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        smp_one_processor_is_one_core_of_one_socket,
        smp_two_processors_are_cores_of_one_socket,
        smp_four_processors_are_in_two_sockets,
        smp_six_processors_in_two_sockets_of_three_cores_have_ids_with_a_gap,
        smp_eight_processors_are_threads_in_cores_in_sockets,
        smp_processors_with_ids_beyond_8_bits_run,
    ]
}

/// The configured processors, which the guest must find.
struct Processors {
    count: u32,
    threads: u32,
    cores: u32,
    sockets: u32,
    /// The config only has the count.
    is_default: bool,
}

impl Processors {
    /// The default topology: one socket of single-threaded cores.
    fn cores(count: u32) -> Self {
        Self { count, threads: 1, cores: count, sockets: 1, is_default: true }
    }

    fn grouped(threads: u32, cores: u32, sockets: u32) -> Self {
        Self { count: threads * cores * sockets, threads, cores, sockets, is_default: false }
    }

    fn config(&self) -> NamedTempFile {
        let Self { count, threads, cores, sockets, .. } = self;
        let grouping = match self.is_default {
            true => String::new(),
            false => {
                format!(
                    r#", "threads_per_core": {threads}, "cores_per_socket": {cores}, "sockets": {sockets}"#
                )
            }
        };
        let file = NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), format!(r#"{{"cpus": {{"count": {count}{grouping}}}}}"#))
            .expect("room for a config");
        file
    }
}

fn smp_one_processor_is_one_core_of_one_socket() {
    check(ANY, &Processors::cores(1), "0").reboot();
}

fn smp_two_processors_are_cores_of_one_socket() {
    check((KernelKind::Cloud612, Image::Vmlinux), &Processors::cores(2), "0 1").reboot();
}

fn smp_four_processors_are_in_two_sockets() {
    let mut shell = check(ANY, &Processors::grouped(1, 2, 2), "0 1 2 3");
    assert_user_times_grow(&mut shell, 4);
    shell.reboot();
}

fn smp_six_processors_in_two_sockets_of_three_cores_have_ids_with_a_gap() {
    check(ANY, &Processors::grouped(1, 3, 2), "0 1 2 4 5 6").reboot();
}

fn smp_eight_processors_are_threads_in_cores_in_sockets() {
    check((KernelKind::Cloud612, Image::Vmlinux), &Processors::grouped(2, 2, 2), "0 1 2 3 4 5 6 7").reboot();
}

/// Three hundred processors, of which Linux starts only some: 8-bit APIC ids end at 254.
fn smp_processors_with_ids_beyond_8_bits_run() {
    let config = Processors::cores(300).config();
    let launch = boot_with_memory(ANY, "512M", &format!("{CMDLINE} maxcpus=1"));
    let launch = launch.args(["--config".as_ref(), config.path().as_os_str()]).on_terminal();
    let mut shell = Shell::boot(launch).mute();
    let start = "for cpu in 254 255 256 299; do echo 1 >/sys/devices/system/cpu/cpu$cpu/online; done";
    assert_eq!(shell.run_within(start, BOOT_DEADLINE), "");
    assert_eq!(shell.run("cat /sys/devices/system/cpu/online"), "0,254-256,299\n");
    assert_eq!(shell.run("grep '^apicid' /proc/cpuinfo | tail -n 1"), "apicid\t\t: 299\n");
    assert_eq!(shell.run("taskset -c 299 sh -c 'echo $((6*7))'"), "42\n");
    shell.reboot();
}

/// Boots a guest and checks everything that it reports about its processors.
fn check(image: (KernelKind, Image), expected: &Processors, apic_ids: &str) -> Shell {
    let (config, initrd) = (expected.config(), initrd_with_lscpu());
    let words = ["--memory", "256M", "--cmdline", CMDLINE].map(PathBuf::from);
    let files = [
        ["--kernel".into(), image_path(image)],
        ["--initrd".into(), initrd.path().to_owned()],
        ["--config".into(), config.path().to_owned()],
    ];
    let launch = Monitor::command(words).args(files.concat()).on_terminal();
    let mut shell = Shell::boot(launch).mute();
    assert_eq!(shell.up.cpus, u64::from(expected.count));
    assert_eq!(shell.run("nproc"), format!("{}\n", expected.count));
    assert_is_listed(&mut shell, expected);
    assert_is_grouped(&mut shell, expected);
    let ids = shell.run("echo $(grep '^apicid' /proc/cpuinfo | cut -d : -f 2)");
    assert_eq!(ids, format!("{apic_ids}\n"));
    assert_is_named_as_the_hosts(&mut shell);
    assert_all_work(&mut shell, expected.count);
    shell
}

/// The brand string, which KVM doesn't supply.
fn assert_is_named_as_the_hosts(shell: &mut Shell) {
    let ours = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let ours =
        ours.lines().find(|line| line.starts_with("model name")).expect("the host's processors have a name");
    assert_eq!(shell.run("grep -m 1 '^model name' /proc/cpuinfo"), format!("{ours}\n"));
}

/// lscpu's summary of the online sockets, cores and threads.
fn assert_is_listed(shell: &mut Shell, expected: &Processors) {
    let printed = shell.run_within("/usr/bin/lscpu", BOOT_DEADLINE);
    let row = |name: &str| {
        let line = printed.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u32>().ok())
            .unwrap_or_else(|| panic!("{name} in {printed}"))
    };
    let rows = ["CPU(s)", "Thread(s) per core", "Core(s) per socket", "Socket(s)"].map(row);
    assert_eq!(rows, [expected.count, expected.threads, expected.cores, expected.sockets], "{printed}");
}

/// Each processor's topology in sysfs: its socket, its core, and the first and last thread of the core.
fn assert_is_grouped(shell: &mut Shell, expected: &Processors) {
    let look = "for cpu in $(seq 0 $(($(nproc) - 1))); do cd /sys/devices/system/cpu/cpu$cpu/topology; \
                echo $(cat physical_package_id core_id thread_siblings_list); cd; done";
    let lines: Vec<String> = (0..expected.count)
        .map(|cpu| {
            let (core, first) = (cpu / expected.threads, cpu / expected.threads * expected.threads);
            let (socket, core) = (core / expected.cores, core % expected.cores);
            let siblings = match expected.threads {
                1 => first.to_string(),
                threads => format!("{first}-{}", first + threads - 1),
            };
            format!("{socket} {core} {siblings}\n")
        })
        .collect();
    assert_eq!(shell.run(look), lines.concat());
}

/// Runs a load on all processors at the same time. Each reports where it ran: field 39 of /proc/PID/stat (proc(5)).
pub(crate) fn assert_all_work(shell: &mut Shell, count: u32) {
    let work = "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; \
                read line </proc/$$/stat; set -- $line; shift 38; echo ran on $1";
    let load = format!("for cpu in $(seq 0 {}); do taskset -c $cpu sh -c '{work}' & done; wait", count - 1);
    let done = shell.run_within(&load, BOOT_DEADLINE);
    let ran_on = |cpu: u32| done.contains(&format!("ran on {cpu}\n"));
    assert!((0..count).all(ran_on), "{done}");
}

/// Runs loads until each processor's time in user mode has grown (proc(5), /proc/stat). Linux samples that at its ticks, so the
/// required amount of work isn't known in advance.
fn assert_user_times_grow(shell: &mut Shell, count: u32) {
    let work = "look() { while read name user rest; do [ $name = cpu$0 ] && now=$user; done </proc/stat; }; \
                look; before=$now; while [ $now = $before ]; do \
                i=0; while [ $i -lt 500 ]; do i=$((i+1)); done; look; done; echo done";
    let load =
        format!("for cpu in $(seq 0 {}); do taskset -c $cpu sh -c '{work}' $cpu & done; wait", count - 1);
    let done = shell.run_within(&load, BOOT_DEADLINE);
    assert_eq!(done.matches("done\n").count(), count as usize, "{done}");
}

/// The initramfs with this host's lscpu and its libraries at the same paths, because Busybox has no lscpu.
fn initrd_with_lscpu() -> NamedTempFile {
    const LSCPU: &str = "/usr/bin/lscpu";
    let ldd = Command::new("ldd").arg(LSCPU).output().expect("ldd is part of the C library");
    let libraries = String::from_utf8(ldd.stdout).expect("paths of Debian's");
    // ldd prints `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, and only the path for the loader.
    let files = libraries.split_whitespace().filter(|word| word.starts_with('/')).chain([LSCPU]);
    let mut archive = Archive::new();
    let mut made: Vec<PathBuf> = Vec::new();
    for file in files {
        add(&mut archive, &mut made, Path::new(file));
    }
    let mut both = std::fs::read(initrd_path()).expect("the initramfs");
    // Two archives in sequence; an uncompressed one starts at a multiple of 4.
    both.resize(both.len().next_multiple_of(4), 0);
    both.extend(archive.finish());
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), both).expect("room for an initramfs");
    file
}

/// Adds a file of this host to the archive, with its parent directories that aren't in `made` yet.
fn add(archive: &mut Archive, made: &mut Vec<PathBuf>, file: &Path) {
    let above: Vec<&Path> = file.ancestors().skip(1).filter(|dir| *dir != Path::new("/")).collect();
    for dir in above.into_iter().rev() {
        if !made.contains(&dir.to_owned()) {
            archive.dir(dir.to_str().expect("a path of Debian's"), 0o755);
            made.push(dir.to_owned());
        }
    }
    let bytes = std::fs::read(file).expect("a file of the host's");
    archive.file(file.to_str().expect("a path of Debian's"), 0o755, &bytes);
}
