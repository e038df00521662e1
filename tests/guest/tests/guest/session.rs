//! Interactive sessions at the guest's shell.

use std::io::Write;

use driver::{BULK_DEADLINE, DEADLINE, Launch, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use rig::KernelKind;
use tempfile::NamedTempFile;

use crate::linux::{BOOT_DEADLINE, CMDLINE, ENDED, Image, boot};
use crate::paste::{lines_of_64_kib, md5};
use crate::shell::Shell;

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        session_on_terminal_keys_do_what_they_say,
        session_on_terminal_paste_of_64_kib_arrives_whole,
        session_on_terminal_paste_while_guest_prints_arrives_whole,
        session_linux_sees_the_planned_machine,
    ]
}

/// Launches the default bzImage.
fn bzimage() -> Launch {
    boot((KernelKind::Cloud61, Image::BzImage), CMDLINE)
}

/// Reboots the guest, and asserts that the terminal's modes are restored.
fn reboot_and_look_at_terminal(mut shell: Shell) {
    assert_ne!(shell.monitor.termios(), shell.monitor.termios_before());
    shell.reboot();
    assert_eq!(shell.monitor.termios(), shell.monitor.termios_before());
}

fn session_on_terminal_keys_do_what_they_say() {
    let mut shell = Shell::boot(bzimage().on_terminal());
    let monitor = &mut shell.monitor;

    monitor.send(b"echo $((6*7))\r");
    assert!(monitor.expect("\r\n42\r\n", DEADLINE).ends_with("echo $((6*7))"));
    monitor.expect("# ", DEADLINE);

    // Arrow up recalls the line.
    monitor.send(b"\x1b[A");
    monitor.expect("echo $((6*7))", DEADLINE);
    monitor.send(b"\r");
    monitor.expect("\r\n42\r\n", DEADLINE);
    monitor.expect("# ", DEADLINE);

    // Ctrl-C: kills what runs in the guest, not the monitor. A shell of its own says "begin": by then its process group is the
    // terminal's foreground one. Between the interactive shell's fork and that, a Ctrl-C is lost.
    monitor.send(b"sh -c 'echo be\"\"gin; sleep 1000'\r");
    monitor.expect("begin\r\n", DEADLINE);
    monitor.send(b"\x03");
    monitor.expect("# ", DEADLINE);

    let mut shell = shell.mute();
    assert_eq!(shell.run("echo $((6*7))"), "42\n");
    let root = shell.run("ls -l /");
    assert!(root.lines().any(|line| line.starts_with("-rwx") && line.ends_with(" init")), "{root}");
    assert!(root.lines().any(|line| line.starts_with("dr-x") && line.ends_with(" proc")), "{root}");

    // Ctrl-A a: one Ctrl-A.
    shell.monitor.send(b"head -n 1 | od -t x1\n<\x01a>\n");
    let dump = shell.monitor.expect("# ", DEADLINE);
    assert!(dump.contains(" 3c 01 3e 0a\r\n"), "{dump}");

    reboot_and_look_at_terminal(shell);
}

fn session_on_terminal_paste_of_64_kib_arrives_whole() {
    let mut shell = Shell::boot(bzimage().on_terminal()).mute();
    let text = lines_of_64_kib();
    shell.monitor.send(b"cat >/tmp/f\n");
    shell.monitor.send(text.as_bytes());
    shell.monitor.send(b"\x04");
    shell.monitor.expect("# ", BOOT_DEADLINE);
    assert_eq!(shell.run("wc -c </tmp/f"), "65536\n");
    assert_eq!(shell.run("md5sum </tmp/f"), format!("{}  -\n", md5(&text)));
    reboot_and_look_at_terminal(shell);
}

/// Both directions at the same time; nothing is lost in either.
fn session_on_terminal_paste_while_guest_prints_arrives_whole() {
    // cat writes in blocks, which fill the UART's FIFO if output processing is off. If head wrote line by line, each line would take
    // four interrupts, and the test a quarter of an hour in the rig.
    const LINES: usize = 100_000;
    let mut shell = Shell::boot(bzimage().on_terminal()).mute();
    let text = lines_of_64_kib();
    let print = format!("yes \"$(printf 'y\\r')\" | head -n {LINES} | cat");
    let command = format!("stty -opost; {print} & cat >/tmp/f; wait; stty opost; echo all\n");
    shell.monitor.send(command.as_bytes());
    shell.monitor.expect("y\r\n", DEADLINE);
    shell.monitor.send(text.as_bytes());
    shell.monitor.send(b"\x04");
    let printed = shell.monitor.expect("all\r\n", BULK_DEADLINE);
    // The first line has been read already.
    assert_eq!(printed.matches("y\r\n").count() + 1, LINES);
    shell.monitor.expect("# ", DEADLINE);
    assert_eq!(shell.run("md5sum </tmp/f"), format!("{}  -\n", md5(&text)));
    reboot_and_look_at_terminal(shell);
}

fn session_linux_sees_the_planned_machine() {
    let cmdline = r#"console=ttyS0 reboot=k panic=-1 quiet a="b c" -- last"#;
    let features = r#"{"cpus": {"features": ["x86-64-v2", "+aes", "-lahf_lm"]}}"#;
    let mut config = NamedTempFile::new().expect("a temporary file");
    config.write_all(features.as_bytes()).expect("room for a config");
    let launch = || {
        let file = config.path().to_str().expect("UTF-8");
        boot((KernelKind::Cloud61, Image::Vmlinux), cmdline).args(["--config", file])
    };
    let mut shell = Shell::boot(launch().on_terminal()).mute();
    assert_eq!(shell.run("cat /proc/cmdline"), format!("{cmdline}\n"));

    let interrupt = shell.run("grep ttyS0 /proc/interrupts");
    assert!(interrupt.trim_start().starts_with("4:"), "{interrupt}");
    let flags = shell.run("grep -m 1 ^flags /proc/cpuinfo");
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    assert!(
        ["hypervisor", "ssse3", "sse4_2", "cx16", "popcnt", "aes", "x2apic", "nx"].into_iter().all(has),
        "{flags}"
    );
    // Of what the rig's processor has.
    let gone =
        ["lahf_lm", "avx", "avx2", "xsave", "fma", "bmi2", "rdrand", "smep", "pku", "svm", "abm", "vme"];
    assert!(!gone.into_iter().any(has), "{flags}");
    assert_eq!(shell.run("grep 'System RAM' /proc/iomem"), ram_in_words_of_linux(launch()));
    assert_eq!(shell.run("dmesg | grep -E 'BUG|Oops|soft lockup|rcu.*stall|general protection'"), "");
    reboot_and_look_at_terminal(shell);
}

/// The RAM ranges of `--check` in the format of /proc/iomem.
fn ram_in_words_of_linux(launch: Launch) -> String {
    let mut monitor: Monitor = launch.args(["--check"]).start();
    monitor.expect("memory map:\n", DEADLINE);
    let map = monitor.expect("placements:\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
    let ram = map.lines().filter_map(|line| line.trim().strip_suffix(" RAM")?.split_once(".."));
    let address = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("an address");
    // Linux reserves the first page, whatever the map says (trim_bios_range).
    let line =
        |(start, end)| format!("{:08x}-{:08x} : System RAM\n", address(start).max(0x1000), address(end) - 1);
    ram.map(line).collect()
}
