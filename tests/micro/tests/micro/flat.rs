//! Flat images that are described by a config: each guest of resources/configs/guests in the real monitor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use driver::{DEADLINE, Launch, Monitor, Stdin};
use harness::trials;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::common::{BAD_CONFIG, BY_SIGINT, BY_SIGTERM, CRASHED, ENDED, HOST_CANT};

/// Exit code of a run that was ended by `--timeout`.
pub(crate) const TIME_IS_UP: i32 = 124;

/// The error for a guest that starts in paged protected mode on a KVM that doesn't support it.
const NO_PAGING: &str = "error: this host's KVM doesn't support the mode that the guest starts in: CR0 was set to 0x80000011 \
    but is 0x11 (a software KVM has paging only in long mode); use another host or another mode\n";

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        flat_real_mode_hello_makes_an_exit_for_each_byte,
        flat_reset_loop_uses_a_whole_processor_and_stops_at_once_on_ctrl_c,
        flat_reset_hello_prints_and_then_uses_no_processor_time,
        flat_reset_string_prints_in_order_and_its_exits_are_counted,
        flat_reset_image_without_a_jump_is_refused,
        flat_image_over_the_tables_runs_beside_them,
        flat_tables_that_the_image_lacks_are_asked_for,
        flat_answer_real_is_42,
        flat_answer_protected_is_42,
        flat_answer_long_is_42,
        flat_answer_paged_is_42_or_refused_by_a_kvm_without_paging,
        flat_answer_that_is_not_expected_shows_both_values,
        flat_interrupts_echo_what_is_typed,
        flat_second_processor_counts_too,
        flat_triple_fault_is_told_in_16_32_and_64_bit,
        flat_jump_out_of_memory_is_told_in_16_32_and_64_bit,
        flat_ud2_without_handler_is_told_in_16_32_and_64_bit,
        flat_elf_kernels_in_c_run_without_a_loader,
        flat_multiboot_kernel_in_c_finds_what_it_was_given,
        flat_rings_in_long_mode_are_kept_apart,
        flat_rings_in_protected_mode_are_kept_apart,
        flat_timeout_ends_a_guest_and_says_where_it_was,
        flat_timeout_at_the_reset_vector_shows_the_code_there,
        flat_timeout_ends_a_guest_whose_trace_nobody_reads,
        flat_trace_has_a_line_for_each_exit,
        flat_summary_has_kvms_own_statistics_below,
        flat_step_shows_the_first_instructions,
        flat_without_config_runs_in_real_mode_from_0_and_ends_at_its_halt,
        flat_device_on_a_taken_port_is_refused,
        flat_device_on_a_port_of_kvms_is_refused,
        flat_expected_memory_that_is_not_there_is_refused,
        flat_image_that_is_not_there_is_refused,
        flat_reset_with_restart_starts_anew_in_the_same_process,
        flat_loop_ends_at_sigterm_where_no_signal_can_wait,
        flat_loop_ends_at_its_timeout_where_no_signal_can_wait,
        flat_reset_without_end_leaves_nothing_behind_and_ends_at_sigterm,
        flat_reset_without_end_by_a_bad_driver_is_in_the_log_five_times,
    ]
}

fn config_path(name: &str) -> PathBuf {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/micro lies in the workspace");
    workspace.join("resources/configs/guests").join(name).with_extension("json")
}

/// Launches a machine with one of the shipped configs.
pub(crate) fn configured(name: &str) -> Launch {
    Monitor::command(["--config".as_ref(), config_path(name).as_os_str()])
}

/// Asserts that the guest prints `text`, and that the monitor exits with `code` and prints nothing to standard error.
pub(crate) fn assert_prints(name: &str, text: &str, code: i32) {
    let mut monitor = configured(name).start();
    monitor.expect_code(code, DEADLINE);
    assert_eq!((String::from_utf8_lossy(&monitor.stdout()).as_ref(), monitor.stderr().as_str()), (text, ""));
}

/// The count in the row of a summary that starts with `row`.
fn counted(summary: &str, row: &str) -> u64 {
    let count = |line: &str| line.strip_prefix(row)?.split_whitespace().next()?.parse().ok();
    summary.lines().find_map(count).unwrap_or_else(|| panic!("no {row:?} in\n{summary}"))
}

fn flat_real_mode_hello_makes_an_exit_for_each_byte() {
    let mut monitor = configured("hello-real").args(["--trace-exits=summary"]).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stdout(), b"Hello, KVM!");
    assert_eq!(counted(&monitor.stderr(), "out            0x03f8 "), 11, "{}", monitor.stderr());
    assert_eq!(counted(&monitor.stderr(), "halt "), 1);
}

fn flat_reset_loop_uses_a_whole_processor_and_stops_at_once_on_ctrl_c() {
    const WINDOW: Duration = Duration::from_millis(500);
    // Ctrl-C is a signal only from the session's controlling terminal.
    let mut monitor = configured("reset-loop").on_terminal().wrapped(["setsid", "-c"]).start();
    driver::wait_until("the guest runs", DEADLINE, || monitor.cpu_time() > Duration::from_millis(50));
    let before = monitor.cpu_time();
    monitor.expect_quiet(WINDOW);
    let used = monitor.cpu_time() - before;
    // All of the window on an idle host, but other tests run at the same time.
    assert!(used >= WINDOW / 4, "{used:?} of {WINDOW:?}");
    let asked = Instant::now();
    // The guest neither prints nor reads, so the terminal isn't raw.
    monitor.send(b"\x03");
    monitor.expect_code(BY_SIGINT, DEADLINE);
    assert!(asked.elapsed() < DEADLINE / 4, "{:?}", asked.elapsed());
}

fn flat_reset_hello_prints_and_then_uses_no_processor_time() {
    let mut monitor = configured("reset-hello").start();
    monitor.expect("Hello", DEADLINE);
    let before = monitor.cpu_time();
    monitor.expect_quiet(Duration::from_millis(500));
    let used = monitor.cpu_time() - before;
    assert!(used <= Duration::from_millis(50), "{used:?} in half a second");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn flat_reset_string_prints_in_order_and_its_exits_are_counted() {
    let mut monitor = configured("reset-string").args(["--trace-exits=summary"]).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stdout(), b"Hello, World!");
    // KVM passes the whole string in one exit, or each byte in its own.
    let exits = counted(&monitor.stderr(), "out            0x00f1 ");
    assert!(exits == 1 || exits == 13, "{exits}");
}

fn flat_reset_image_without_a_jump_is_refused() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    std::fs::write(dir.path().join("zeros.bin"), [0; 0x1000]).expect("room for a page");
    std::fs::write(
        dir.path().join("vm.json"),
        r#"{"boot": {"flat": {"image": "zeros.bin", "mode": "reset"}}}"#,
    )
    .expect("room for a config");
    let mut monitor = Monitor::command(["--check", "--config", "vm.json"]).dir(dir.path()).start();
    monitor.expect_code(BAD_CONFIG, DEADLINE);
    let message = "error: the image at 0xff000..0x100000 holds zeros at 0xffff0, where the processor starts in \
        \"reset\" mode; put a jump there, or load the image where it has one there (boot.flat.load_address)\n";
    assert_eq!(monitor.stderr(), message);
}

/// Launches a machine with this program and this config, which are written to `dir`.
fn program_in(dir: &Path, program: &[u8], config: &str) -> Launch {
    std::fs::write(dir.join("program.bin"), program).expect("room for a program");
    std::fs::write(dir.join("vm.json"), config).expect("room for a config");
    Monitor::command(["--config", "vm.json"]).dir(dir)
}

/// 8 KiB at 0, in each mode with tables: `mov ds, eax` reloads a segment from the GDT, which fails if the image has overwritten that,
/// and `sgdt` stores its address.
fn flat_image_over_the_tables_runs_beside_them() {
    // mov eax, 0x18; mov ds, eax; sgdt [0x1000]; mov eax, 42; hlt
    let start = b"\xb8\x18\0\0\0\x8e\xd8\x0f\x01\x05\0\x10\0\0\xb8\x2a\0\0\0\xf4";
    // The same in 64-bit code, where an absolute address needs another byte.
    let start_64 = b"\xb8\x18\0\0\0\x8e\xd8\x0f\x01\x04\x25\0\x10\0\0\xb8\x2a\0\0\0\xf4";
    let ends_as_expected = |mode: &str, start: &[u8]| {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let mut program = start.to_vec();
        program.resize(0x2000, 0xf4);
        // The GDT follows the image: 0x2000, limit 39.
        let expect = r#"{"rax": 42, "memory": [{"address": "0x1000", "u16": 39}, {"address": "0x1002", "u32": "0x2000"}]}"#;
        let config = format!(
            r#"{{"boot": {{"flat": {{"image": "program.bin", "load_address": "0x0", "mode": "{mode}"}}}},
                "memory": {{"size": "64K"}}, "irqchip": false, "expect": {expect}}}"#
        );
        let mut monitor = program_in(dir.path(), &program, &config).start();
        monitor.expect_code(ENDED, DEADLINE);
    };
    ends_as_expected("protected", start);
    ends_as_expected("long", start_64);
}

fn flat_tables_that_the_image_lacks_are_asked_for() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let refused = |rest: &str, message: &str| {
        let flat = format!(
            r#"{{"image": "program.bin", "load_address": "0x0", "mode": "long", "tables": false{rest}}}"#
        );
        let config =
            format!(r#"{{"boot": {{"flat": {flat}}}, "memory": {{"size": "64K"}}, "irqchip": false}}"#);
        let mut monitor = program_in(dir.path(), &[0xf4; 0x1001], &config).start();
        monitor.expect_code(BAD_CONFIG, DEADLINE);
        assert_eq!(monitor.stderr(), format!("error: {message}\n"));
    };
    refused(
        "",
        "boot.flat.page_tables: missing, and in \"long\" mode the image brings page tables if \"tables\" is false; say where \
         they lie, or remove \"tables\"",
    );
    refused(
        r#", "page_tables": "0x2000""#,
        "boot.flat.page_tables 0x2000 lies outside the image's bytes at 0x0..0x1001, and so there are no page tables; name \
         their address in the image, or remove \"tables\"",
    );
    // 0xf4 and seven zeros: not present.
    refused(
        r#", "page_tables": "0x1000""#,
        "the image's page tables at 0x1000 don't map its first instruction at 0x0: entry 0 holds 0xf4, which isn't present; \
         name the address of others (boot.flat.page_tables), or remove \"tables\"",
    );
}

fn flat_answer_real_is_42() {
    assert_prints("answer-real", "Hello, World!", ENDED);
}

fn flat_answer_protected_is_42() {
    assert_prints("answer-protected", "Hello, World!", ENDED);
}

fn flat_answer_long_is_42() {
    assert_prints("answer-long", "Hello, World!", ENDED);
}

/// A software KVM doesn't support paging in protected mode, which the monitor reports. The tests also run in the rig, whose KVM supports
/// it.
fn flat_answer_paged_is_42_or_refused_by_a_kvm_without_paging() {
    if rig::can_run_linux().is_ok() {
        return assert_prints("answer-paged", "Hello, World!", ENDED);
    }
    let mut monitor = configured("answer-paged").start();
    monitor.expect_code(HOST_CANT, DEADLINE);
    assert_eq!((monitor.stdout(), monitor.stderr().as_str()), (Vec::new(), NO_PAGING));
}

/// The config of the real-mode guest `answer` with another expectation.
fn answer_expecting(expectation: &str) -> tempfile::NamedTempFile {
    let text = std::fs::read_to_string(config_path("answer-real")).expect("it is shipped");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    config["boot"]["flat"]["image"] = driver::guests::path("answer-real").to_str().expect("UTF-8").into();
    config["expect"] = serde_json::from_str(expectation).expect("it is JSON");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), config.to_string()).expect("room for a config");
    file
}

fn flat_answer_that_is_not_expected_shows_both_values() {
    let expectation =
        r#"{"rax": 43, "memory": [{"address": "0x400", "u16": 42}, {"address": "0x400", "u8": 7}]}"#;
    let config = answer_expecting(expectation);
    let mut monitor = Monitor::command(["--config".as_ref(), config.path().as_os_str()]).start();
    monitor.expect_code(CRASHED, DEADLINE);
    let message = "error: the guest halted in an unexpected state\n\
        rax is 0x2a (42), expected 0x2b (43)\n\
        the u8 at 0x400 is 0x2a (42), expected 0x7 (7)\n";
    assert_eq!(monitor.stderr(), message);
}

fn flat_interrupts_echo_what_is_typed() {
    let mut monitor = configured("echo-irq").stdin(Stdin::Pipe).start();
    monitor.expect("ready\n", DEADLINE);
    monitor.send(b"typed");
    monitor.expect("typed", DEADLINE);
    monitor.send(b" again\x04");
    monitor.expect(" againbye\n", DEADLINE);
    monitor.expect_code(ENDED, DEADLINE);
}

fn flat_second_processor_counts_too() {
    assert_prints("ping", "second done\npong 1000\n", ENDED);
}

/// Asserts that the crash report has the reason, the registers and the code bytes at the instruction pointer, in each mode.
fn assert_faults(kind: &str, reason: &str, code: [Option<&str>; 3]) {
    for (width, code) in ["16", "32", "64"].into_iter().zip(code) {
        let mut monitor = configured(&format!("fault-{kind}-{width}")).start();
        monitor.expect_code(CRASHED, DEADLINE);
        let report = monitor.stderr();
        let start = format!("error: the guest crashed: {reason}\nrip ");
        assert!(report.starts_with(&start), "{report}");
        // On AMD processors KVM has reset them after a triple fault, and the report says so.
        let is_the_guests = !report.contains("KVM has reset the registers");
        if is_the_guests {
            assert!(report.contains(" rbx 00000000600dcafe "), "{report}");
        }
        if let Some(code) = code.filter(|_| is_the_guests) {
            assert!(report.contains(&format!("\ncode {code}")), "{report}");
        }
    }
}

fn flat_triple_fault_is_told_in_16_32_and_64_bit() {
    assert_faults("triple", "triple fault", [Some("66 f7 f1"), Some("f7 f1"), Some("f7 f1")]);
}

fn flat_jump_out_of_memory_is_told_in_16_32_and_64_bit() {
    assert_faults("jump", "instruction pointer outside of memory", [None; 3]);
}

fn flat_ud2_without_handler_is_told_in_16_32_and_64_bit() {
    assert_faults("ud", "triple fault", [Some("0f 0b"); 3]);
}

fn flat_elf_kernels_in_c_run_without_a_loader() {
    assert_prints("kernel32", "C in protected mode\n", ENDED);
    assert_prints("kernel64", "C in long mode\n", ENDED);
    assert_prints("kernel64-pie", "C in long mode\n", ENDED);
}

/// The guest writes 21 to its debug-exit device, which is exit code 43.
fn flat_multiboot_kernel_in_c_finds_what_it_was_given() {
    let said = "magic ok\n\
        cs 0x0028 protected 1\n\
        cmdline [multiboot.elf one two]\n\
        mem_upper 31744\n\
        map 0x0000000000000000 0x000000000009fc00 1\n\
        map 0x000000000009fc00 0x0000000000000400 2\n\
        map 0x00000000000f0000 0x0000000000010000 2\n\
        map 0x0000000000100000 0x0000000001f00000 1\n";
    let module = |name: &str, image: &str| {
        let bytes = std::fs::read(driver::guests::path(image)).expect("it was built");
        format!("module [{name}] {} {:#010x}\n", bytes.len(), micro_tests::fnv1a(&bytes))
    };
    let modules = module("first module", "hello-real") + &module("second module", "reset-hello");
    assert_prints("multiboot", &format!("{said}{modules}"), 43);
}

/// The output of the kernel with rings in `mode`, up to its program's system calls by `int`.
fn rings(mode: &str) -> String {
    format!(
        "a kernel in C in ring 0, {mode} mode\n\
        page tables: 0x40000000 is at 0x400000, for ring 3\n\
        page fault at 0x00200000, error 0x5: a read by ring 3 of a page that isn't its own\n\
        general protection fault, error 0x0: ring 3 has no ports\n"
    )
}

/// The output of its two system calls.
const RINGS_BY_INT: &str = "system call from ring 3: print \"hello\"\nsystem call from ring 3: end with 42\n";

/// A software KVM delivers exceptions but doesn't support `int`, which KVM's emulator only implements for real mode.
fn flat_rings_in_long_mode_are_kept_apart() {
    if rig::can_run_linux().is_ok() {
        return assert_prints("rings64", &(rings("long") + RINGS_BY_INT), ENDED);
    }
    let mut monitor = configured("rings64").start();
    monitor.expect_code(CRASHED, DEADLINE);
    assert_eq!(String::from_utf8_lossy(&monitor.stdout()), rings("long"));
    let report = monitor.stderr();
    assert!(report.starts_with("error: the guest crashed: triple fault\n"), "{report}");
    assert!(report.contains("\ncs 001b ") && report.contains("\ncode cd 80 "), "{report}");
}

fn flat_rings_in_protected_mode_are_kept_apart() {
    if rig::can_run_linux().is_ok() {
        return assert_prints("rings32", &(rings("protected") + RINGS_BY_INT), ENDED);
    }
    let mut monitor = configured("rings32").start();
    monitor.expect_code(HOST_CANT, DEADLINE);
    assert_eq!((monitor.stdout(), monitor.stderr().as_str()), (Vec::new(), NO_PAGING));
}

fn flat_timeout_ends_a_guest_and_says_where_it_was() {
    let mut monitor = configured("reset-loop").args(["--timeout", "300ms"]).start();
    monitor.expect_code(TIME_IS_UP, DEADLINE);
    let message = "error: timed out while the guest was running\nvcpu0:\nrip 0000000000000000  ";
    let report = monitor.stderr();
    assert!(report.starts_with(message), "{report}");
    assert!(report.contains("\ncs f000 base f0000 "), "{report}");
    // `jmp` to itself, after the start of the image.
    assert!(report.contains("\ncode "), "{report}");
}

/// The guest loops in the alias below 4 GiB of the image's last 64 KiB.
fn flat_timeout_at_the_reset_vector_shows_the_code_there() {
    let image = tempfile::NamedTempFile::new().expect("a temporary file");
    // `jmp` to itself and two recognizable bytes, 16 bytes below 1 MiB.
    std::fs::write(image.path(), b"\xeb\xfe\x12\x34\0\0\0\0\0\0\0\0\0\0\0\0").expect("room for an image");
    let path = image.path().as_os_str();
    let words = [
        "--flat".as_ref(),
        path,
        "--mode=reset".as_ref(),
        "--load-address=0xffff0".as_ref(),
        "--timeout=300ms".as_ref(),
        "--memory=1M".as_ref(),
    ];
    let mut monitor = Monitor::command(words).start();
    monitor.expect_code(TIME_IS_UP, DEADLINE);
    let report = monitor.stderr();
    assert!(report.contains("\ncode eb fe 12 34 00 "), "{report}");
}

/// The trace goes to a full pipe, which holds the guest but not the timer.
fn flat_timeout_ends_a_guest_whose_trace_nobody_reads() {
    let stuck = ["sh", "-c", r#"exec 3>&2; mkfifo "$1/f"; exec 4<>"$1/f"; shift; exec "$@" 2>&4"#, "sh"];
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let words = stuck.iter().map(std::ffi::OsString::from).chain([dir.path().as_os_str().to_owned()]);
    let mut monitor = boot_flood().args(["--trace-exits", "--timeout", "2s"]).wrapped(words).start();
    monitor.expect_code(TIME_IS_UP, DEADLINE);
}

/// Launches a guest that prints endlessly.
fn boot_flood() -> Launch {
    crate::common::boot("flood")
}

fn flat_trace_has_a_line_for_each_exit() {
    let mut monitor = configured("hello-real").args(["--trace-exits"]).start();
    monitor.expect_code(ENDED, DEADLINE);
    let trace = monitor.stderr();
    let lines: Vec<&str> = trace.lines().collect();
    assert_eq!(lines.len(), 12, "{trace}");
    let first = lines[0].split_once(" vcpu0 ").expect("time, then vCPU").1;
    assert!(first.starts_with("out      0x03f8 width 1 count 1 data 48 ip 0x"), "{trace}");
    assert!(lines[11].contains(" vcpu0 halt     ip 0x"), "{trace}");
}

/// All KVMs on which these tests have run have statistics. On AMD the exits are those of the processor, on a software KVM those of the
/// emulator.
fn flat_summary_has_kvms_own_statistics_below() {
    let mut monitor = configured("hello-real").args(["--trace-exits=summary"]).start();
    monitor.expect_code(ENDED, DEADLINE);
    let stderr = monitor.stderr();
    let (table, statistics) =
        stderr.split_once("\n\nKVM's statistics, vCPUs ").unwrap_or_else(|| panic!("{stderr}"));
    assert!(table.lines().last().is_some_and(|line| line.starts_with("total ")), "{table}");
    assert!(counted(statistics, "exits ") >= 12, "{statistics}");
    assert_eq!(counted(statistics, "halt_exits "), 1, "{statistics}");
    assert!(!statistics.contains(" 0\n"), "{statistics}");
}

fn flat_step_shows_the_first_instructions() {
    let mut monitor = configured("reset-string").args(["--step", "3"]).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.stdout(), b"Hello, World!");
    let steps = monitor.stderr();
    let lines: Vec<&str> = steps.lines().collect();
    assert_eq!(lines.len(), 3, "{steps}");
    assert!(lines[0].starts_with("step 1: cs f000 ip 0xfff0 ["), "{steps}");
    assert!(lines[1].starts_with("step 2: cs f000 ip 0x0 [8c c8 8e d8 "), "{steps}");
    assert!(lines[2].starts_with("step 3: cs f000 ip 0x2 [8e d8 "), "{steps}");
    assert!(lines[2].contains(" ax f000 "), "mov ax, cs: {steps}");
}

fn flat_without_config_runs_in_real_mode_from_0_and_ends_at_its_halt() {
    let image = driver::guests::path("hello-real");
    let mut monitor = Monitor::command(["--flat".as_ref(), image.as_os_str()]).start();
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!((monitor.stdout(), monitor.stderr().as_str()), (b"Hello, KVM!".to_vec(), ""));
}

/// The monitor's error for a config with these members besides an image.
fn refusal(rest: &str) -> String {
    let image = driver::guests::path("hello-real");
    let text = format!(
        "{{\"boot\": {{\"flat\": {{\"image\": {image:?}}}}}, \"memory\": {{\"size\": \"1M\"}},\n{rest}}}"
    );
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("room for a config");
    let mut monitor = Monitor::command(["--config".as_ref(), file.path().as_os_str()]).start();
    monitor.expect_code(BAD_CONFIG, DEADLINE);
    monitor.stderr().replace(file.path().to_str().expect("UTF-8"), "vm.json")
}

fn flat_device_on_a_taken_port_is_refused() {
    let uart = refusal(r#""devices": [{"type": "debug-exit"}, {"type": "debug-console", "port": "0x3f9"}]"#);
    let message = "error: vm.json:2:77: devices[1].port: 0x3f9 belongs to the uart com1 (ports 0x3f8 to 0x3ff); choose another\n";
    assert_eq!(uart, message);
    let other = refusal(r#""devices": [{"type": "debug-exit"}, {"type": "debug-console", "port": "0xf6"}]"#);
    let message = "error: vm.json:2:76: devices[1].port: 0xf6 belongs to the debug exit (ports 0xf4 to 0xf7); choose another\n";
    assert_eq!(other, message);
    let last = refusal(r#""devices": [{"type": "debug-exit", "port": "0xfffd"}]"#);
    let message = "error: vm.json:2:51: devices[0].port: 4 ports from 0xfffd on run past the last one, 0xffff; choose a lower one\n";
    assert_eq!(last, message);
}

/// KVM handles these ports itself, so the device would never see an access.
fn flat_device_on_a_port_of_kvms_is_refused() {
    let pic = refusal(r#""irqchip": true, "devices": [{"type": "pseudo-serial", "port": "0x20"}]"#);
    let message = "error: vm.json:2:69: devices[0].port: 0x20 belongs to the interrupt controller (ports 0x20 to 0x21); choose another, \
                   or set \"irqchip\" to false\n";
    assert_eq!(pic, message);
    let across = refusal(r#""irqchip": true, "devices": [{"type": "debug-exit", "port": "0x3e"}]"#);
    let message = "error: vm.json:2:66: devices[0].port: 0x3e belongs to the timer (ports 0x40 to 0x43); choose another, \
                   or set \"irqchip\" to false\n";
    assert_eq!(across, message);
}

fn flat_expected_memory_that_is_not_there_is_refused() {
    let rest = r#""irqchip": false, "expect": {"memory": [{"address": "0xffffd", "u32": 0}]}"#;
    let message = "error: vm.json:2:61: expect.memory[0].address: the guest has no memory at 0xffffd; change the address or memory.size\n";
    assert_eq!(refusal(rest), message);
}

fn flat_image_that_is_not_there_is_refused() {
    let mut monitor = Monitor::command(["--flat", "/nowhere.bin"]).start();
    monitor.expect_code(BAD_CONFIG, DEADLINE);
    let message = "error: image /nowhere.bin: can't be opened: No such file or directory (os error 2)\n";
    assert_eq!(monitor.stderr(), message);
}

/// The guest echoes, prints "bye" and resets at Ctrl-D; the monitor continues, and its terminal stays raw.
fn flat_reset_with_restart_starts_anew_in_the_same_process() {
    let text = std::fs::read_to_string(config_path("echo-irq")).expect("it is shipped");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    config["boot"]["flat"]["image"] = driver::guests::path("echo-irq").to_str().expect("UTF-8").into();
    config["on_reboot"] = "restart".into();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), config.to_string()).expect("room for a config");
    let mut monitor = Monitor::command(["--config".as_ref(), file.path().as_os_str()]).on_terminal().start();
    for _ in 0..3 {
        monitor.expect("ready\n", DEADLINE);
        monitor.send(b"typed\x04");
        monitor.expect("typedbye\n", DEADLINE);
    }
    monitor.expect("ready\n", DEADLINE);
    assert_ne!(monitor.termios(), monitor.termios_before());
    assert_eq!(monitor.thread_names().iter().filter(|name| *name == "vcpu0").count(), 1);
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
    assert_eq!(monitor.termios(), monitor.termios_before());
}

/// Starts a guest that prints a letter and then loops without exits, as a user who has reached the limit of pending signals.
fn loop_without_room_for_signals(flags: &[&str]) -> Monitor {
    let image = tempfile::NamedTempFile::new().expect("a temporary file");
    // mov dx, 0x3f8; mov al, 'A'; out dx, al; jmp to itself
    std::fs::write(image.path(), b"\xba\xf8\x03\xb0A\xee\xeb\xfe").expect("room for eight bytes");
    let words = [&["--flat", image.path().to_str().expect("UTF-8")], flags].concat();
    let mut monitor = Monitor::command(words).wrapped(["prlimit", "--sigpending=0", "--"]).start();
    monitor.expect("A", DEADLINE);
    monitor
}

fn flat_loop_ends_at_sigterm_where_no_signal_can_wait() {
    let mut monitor = loop_without_room_for_signals(&[]);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn flat_loop_ends_at_its_timeout_where_no_signal_can_wait() {
    let mut monitor = loop_without_room_for_signals(&["--timeout", "2s"]);
    monitor.expect_code(TIME_IS_UP, DEADLINE);
}

/// A guest that does nothing but reset its machine: tens of starts per second.
fn flat_reset_without_end_leaves_nothing_behind_and_ends_at_sigterm() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    // mov dx, 0x3f8; mov al, '.'; out dx, al; mov al, 0xfe; out 0x64, al; hlt
    let image = b"\xba\xf8\x03\xb0.\xee\xb0\xfe\xe6\x64\xf4";
    std::fs::write(dir.path().join("reset.bin"), image).expect("room for eleven bytes");
    let config =
        r#"{"boot": {"flat": {"image": "reset.bin"}}, "memory": {"size": "1M"}, "on_reboot": "restart"}"#;
    std::fs::write(dir.path().join("vm.json"), config).expect("room for a config");
    let mut monitor = Monitor::command(["--config", "vm.json"]).dir(dir.path()).start();
    // The first starts touch code and memory for the first time.
    monitor.expect(&".".repeat(20), DEADLINE);
    let before = monitor.own_dirty_kib(&[1 << 20]);
    monitor.expect(&".".repeat(40), DEADLINE);
    let grown = monitor.own_dirty_kib(&[1 << 20]).saturating_sub(before);
    assert!(grown <= 128, "{grown} KiB more than before");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", monitor.pid())).expect("it runs").count();
    assert!(descriptors < 40, "{descriptors} descriptors");
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(monitor.stderr(), "");
}

/// Protected-mode code at 0x100000. ebx is 0xd0000000, the registers of the first virtio device. It sets ACKNOWLEDGE, DRIVER and
/// FEATURES_OK (with VIRTIO_F_VERSION_1), makes queue 0 ready with an available ring where there is no memory, sets DRIVER_OK, waits for
/// DEVICE_NEEDS_RESET, and resets the machine.
const BAD_DRIVER: &[u8] = b"\xbb\0\0\0\xd0\
    \xc7\x43\x70\x01\0\0\0\xc7\x43\x70\x03\0\0\0\xc7\x43\x24\x01\0\0\0\xc7\x43\x20\x01\0\0\0\xc7\x43\x70\x0b\0\0\0\
    \x89\x9b\x90\0\0\0\xc7\x43\x44\x01\0\0\0\xc7\x43\x70\x0f\0\0\0\
    \xf7\x43\x70\x40\0\0\0\x74\xf7\xb0\xfe\xe6\x64\xf4";

fn flat_reset_without_end_by_a_bad_driver_is_in_the_log_five_times() {
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    std::fs::write(dir.path().join("bad.bin"), BAD_DRIVER).expect("room for a program");
    let flat =
        r#"{"image": "bad.bin", "load_address": "0x100000", "mode": "protected", "entry": "0x100000"}"#;
    let rest = r#""memory": {"size": "2M"}, "on_reboot": "restart", "devices": [{"type": "rng"}]"#;
    std::fs::write(dir.path().join("vm.json"), format!(r#"{{"boot": {{"flat": {flat}}}, {rest}}}"#))
        .expect("room for a config");
    let mut monitor = Monitor::command(["--config", "vm.json"]).dir(dir.path()).start();
    let told = |monitor: &Monitor| monitor.stderr().matches("device \"rng0\" needs a reset").count();
    driver::wait_until("all is told that may be", DEADLINE, || told(&monitor) == 5);
    let starts = monitor.cpu_time() + Duration::from_secs(1);
    driver::wait_until("it has started often", DEADLINE, || monitor.cpu_time() > starts);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert_eq!(told(&monitor), 5, "{}", monitor.stderr());
}
