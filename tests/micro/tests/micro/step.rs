//! `--step` and its handler: each instruction is shown once, and the guest behaves as without it.

use std::convert::Infallible;
use std::path::Path;

use driver::{DEADLINE, Monitor};
use harness::trials;
use libtest_mimic::Trial;
use vmm_kvm::{Exit, Kvm, KvmVcpu, ReservedPages, VcpuReport, Vm};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, SingleStepped, Steps, run};

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        step_shows_hello_instruction_by_instruction,
        step_shows_answers_instruction_by_instruction,
        step_shows_a_repeated_string_once,
        step_shows_faults_up_to_the_fault,
        step_changes_neither_output_nor_end_of_answers,
        step_changes_neither_output_nor_end_of_faults,
        step_shows_mmio_and_strings_once,
        step_leaves_no_trap_flag_on_the_stack,
        step_over_a_halt_goes_on_after_it,
        step_with_a_summary_has_no_exits_for_completions,
        completed_access_leaves_a_kick_for_the_next_run,
    ]
}

/// The result of a run of the monitor.
#[derive(Debug, PartialEq, Eq)]
struct RunResult {
    code: i32,
    stdout: String,
    /// Standard error without the steps.
    stderr: String,
}

/// Runs a shipped guest with these flags; returns the result and the instruction pointers of its steps.
fn stepped(name: &str, args: &[&str]) -> (RunResult, Vec<u64>) {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/micro lies in it");
    let config = workspace.join("resources/configs/guests").join(name).with_extension("json");
    let mut monitor =
        Monitor::command(["--config".as_ref(), config.as_os_str()]).args(args.iter().copied()).start();
    let code = monitor.expect_exit(DEADLINE).code().expect("no signal ended it");
    let (steps, stderr): (Vec<String>, Vec<String>) =
        monitor.stderr().lines().map(String::from).partition(|line| line.starts_with("step "));
    let ip = |line: &String| {
        let digits = line.split_once(" ip 0x")?.1.split_once(' ')?.0;
        u64::from_str_radix(digits, 16).ok()
    };
    let ips = steps.iter().map(|line| ip(line).unwrap_or_else(|| panic!("no ip in {line:?}"))).collect();
    let stdout = String::from_utf8(monitor.stdout()).expect("these guests print ASCII");
    (RunResult { code, stdout, stderr: stderr.join("\n") }, ips)
}

/// More steps than any guest here has.
const ALL: &str = "1000000";

fn all_steps(name: &str) -> Vec<u64> {
    stepped(name, &["--step", ALL]).1
}

/// `start`, then `turns` repetitions of `turn`, then `end`.
fn looping(start: &[u64], turns: usize, turn: &[u64], end: &[u64]) -> Vec<u64> {
    [start, &turn.repeat(turns), end].concat()
}

/// The steps of the loop of `say` in resources/guests/flat/flat.inc, which is at `next`: lodsb, test, jz, out (2 bytes), jmp; the last
/// time up to the jz.
fn say(start: &[u64], text: &str, next: u64, end: &[u64]) -> Vec<u64> {
    let turn = [next, next + 1, next + 3, next + 5, next + 7];
    let end = [&turn[..3], end].concat();
    looping(start, text.len(), &turn, &end)
}

fn step_shows_hello_instruction_by_instruction() {
    // xor, mov, mov, mov; lodsb, test, jz, out (1 byte), jmp; hlt.
    let turn = [0xa, 0xb, 0xd, 0xf, 0x10];
    let expected = looping(&[0, 2, 4, 7], "Hello, KVM!".len(), &turn, &[0xa, 0xb, 0xd, 0x12]);
    assert_eq!(all_steps("hello-real"), expected);
}

fn step_shows_answers_instruction_by_instruction() {
    let text = "Hello, World!";
    let real =
        say(&[0x1000, 0x1002, 0x1004, 0x1007, 0x100d, 0x100f], text, 0x1015, &[0x101e, 0x1024, 0x1027]);
    assert_eq!(all_steps("answer-real"), real);
    let protected = say(
        &[0x10_0000, 0x10_0003, 0x10_0008, 0x10_000b, 0x10_000d],
        text,
        0x10_0012,
        &[0x10_001b, 0x10_0020, 0x10_0025],
    );
    assert_eq!(all_steps("answer-protected"), protected);
    let long = say(
        &[0x10_0000, 0x10_0005, 0x10_0007, 0x10_000c, 0x10_000e],
        text,
        0x10_0013,
        &[0x10_001c, 0x10_0023, 0x10_002b],
    );
    assert_eq!(all_steps("answer-long"), long);
}

/// 13 bytes by one `rep outsb` at 0xe.
fn step_shows_a_repeated_string_once() {
    let (ran, ips) = stepped("reset-string", &["--step", ALL]);
    assert_eq!(ips, [0xfff0, 0, 2, 4, 5, 8, 0xb, 0xe, 0x10]);
    assert_eq!(ran, RunResult { code: 0, stdout: "Hello, World!".into(), stderr: String::new() });
}

/// The last step is the instruction that faults.
fn step_shows_faults_up_to_the_fault() {
    let real = [0x1000, 0x1002, 0x1004, 0x100a, 0x1010, 0x1016];
    assert_eq!(all_steps("fault-triple-16"), real);
    assert_eq!(all_steps("fault-ud-16"), real);
    assert_eq!(all_steps("fault-jump-16"), [&real[..], &[0xfff0]].concat());
    let protected = [0x10_0000, 0x10_0007, 0x10_000c, 0x10_0011];
    assert_eq!(all_steps("fault-triple-32"), protected);
    assert_eq!(all_steps("fault-ud-32"), protected);
    assert_eq!(all_steps("fault-jump-32"), [&protected[..], &[0x10_0016, 0xd000_0000]].concat());
    let long = [0x10_0000, 0x10_0008, 0x10_000d, 0x10_0012];
    assert_eq!(all_steps("fault-triple-64"), long);
    assert_eq!(all_steps("fault-ud-64"), long);
    assert_eq!(all_steps("fault-jump-64"), [&long[..], &[0x10_0017, 0xd000_0000]].concat());
}

/// Asserts that the result doesn't depend on the number of steps: fewer than the guest's instructions, as many, one more, and far more.
fn assert_steps_change_nothing(name: &str, count: usize) {
    let (without, none) = stepped(name, &[]);
    assert_eq!(none, [0; 0], "{name}");
    let (last, one_more) = (count.to_string(), (count + 1).to_string());
    let runs = ["1", "3", &last, &one_more, ALL].map(|steps| stepped(name, &["--step", steps]));
    let counts = runs.each_ref().map(|(_, ips)| ips.len());
    assert_eq!(counts, [1, 3, count, count, count], "{name}");
    runs.iter().for_each(|(ran, _)| assert_eq!(*ran, without, "{name}"));
}

fn step_changes_neither_output_nor_end_of_answers() {
    assert_steps_change_nothing("hello-real", 63);
    assert_steps_change_nothing("answer-real", 77);
    assert_steps_change_nothing("answer-protected", 76);
    assert_steps_change_nothing("answer-long", 76);
}

fn step_changes_neither_output_nor_end_of_faults() {
    assert_steps_change_nothing("fault-triple-16", 6);
    assert_steps_change_nothing("fault-jump-32", 6);
    assert_steps_change_nothing("fault-ud-64", 4);
}

/// A VM without interrupt controllers, with 64 KiB of memory and real-mode code at 0x1000.
fn machine(code: &[u8]) -> (Vm, KvmVcpu) {
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    vm.set_reserved_pages(ReservedPages::default()).unwrap();
    let ram = GuestRam::new(&[0..0x1_0000]).unwrap();
    ram.memory().write_slice(code, GuestAddress(0x1000)).unwrap();
    vm.add_memory(&ram).unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    let (mut regs, mut sregs) = (vcpu.regs().unwrap(), vcpu.sregs().unwrap());
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    (regs.rip, regs.rsp) = (0x1000, 0x8000);
    vcpu.set_regs(&regs).unwrap();
    (vm, vcpu)
}

/// Returns 0x41 for reads at all ports and addresses, and continues after the first of two halts.
#[derive(Default)]
struct Answers {
    halts: usize,
}

impl ExitHandler for Answers {
    type Stop = ();
    fn inb(&mut self, _port: u16) -> u8 {
        0x41
    }
    fn mmio_read(&mut self, _gpa: u64, data: &mut [u8]) {
        data.fill(0x41);
    }
    fn halt(&mut self, _vcpu: &mut KvmVcpu) -> Option<Flow<()>> {
        self.halts += 1;
        (self.halts == 1).then_some(Flow::Enter)
    }
}

/// Records the instruction pointer of each step.
#[derive(Clone, Default)]
struct Ips(std::sync::Arc<std::sync::Mutex<Vec<u64>>>);

impl Steps for Ips {
    fn step(&mut self, _step: u64, report: &VcpuReport) -> Flow<Infallible> {
        self.0.lock().unwrap().push(report.regs.rip);
        Flow::Enter
    }
}

/// Runs code to its second halt, stepping at most `count` instructions.
fn run_stepped(code: &[u8], count: u64) -> (VcpuReport, Vec<u64>) {
    let (_vm, mut vcpu) = machine(code);
    let ips = Ips::default();
    let end = run(&mut vcpu, &mut SingleStepped::new(Answers::default(), ips.clone(), count)).unwrap();
    let End::Halted(report) = end else { panic!("{end:?}") };
    let ips = ips.0.lock().unwrap().clone();
    (*report, ips)
}

const MANY: u64 = 1000;

/// Between the accesses there are instructions that only a step can show.
fn step_shows_mmio_and_strings_once() {
    let code = [
        0xbe, 0x00, 0x10, // 1000: mov si, 0x1000
        0xb9, 0x03, 0x00, // 1003: mov cx, 3
        0xf3, 0x6e, // 1006: rep outsb, to port 0
        0x43, // 1008: inc bx
        0xbf, 0x00, 0x20, // 1009: mov di, 0x2000
        0xb9, 0x03, 0x00, // 100c: mov cx, 3
        0xf3, 0x6c, // 100f: rep insb
        0x43, // 1011: inc bx
        0xb9, 0x03, 0x00, // 1012: mov cx, 3
        0xf3, 0xa4, // 1015: rep movsb
        0x43, // 1017: inc bx
        0xb8, 0x00, 0xf0, // 1018: mov ax, 0xf000: where no memory is
        0x8e, 0xd8, // 101b: mov ds, ax
        0xa2, 0x00, 0x00, // 101d: mov [0], al
        0x43, // 1020: inc bx
        0xa0, 0x00, 0x00, // 1021: mov al, [0]
        0x43, // 1024: inc bx
        0xfe, 0x06, 0x00, 0x00, // 1025: inc byte [0], a load and a store
        0x43, // 1029: inc bx
        0xeb, 0x00, // 102a: jmp to the next
        0xf4, // 102c: hlt
        0xf4, // 102d: hlt
    ];
    let (report, ips) = run_stepped(&code, MANY);
    let expected = [
        0x1000, 0x1003, 0x1006, 0x1008, 0x1009, 0x100c, 0x100f, 0x1011, 0x1012, 0x1015, 0x1017, 0x1018,
        0x101b, 0x101d, 0x1020, 0x1021, 0x1024, 0x1025, 0x1029, 0x102a, 0x102c, 0x102d,
    ];
    assert_eq!(ips, expected);
    assert_eq!((report.regs.rax & 0xff, report.regs.rbx & 0xffff), (0x41, 6));
}

/// The trap flag is bit 8 of EFLAGS.
fn step_leaves_no_trap_flag_on_the_stack() {
    let code = [
        0x9c, // pushf
        0x58, // pop ax
        0x66, 0x9c, // pushfd
        0x66, 0x5b, // pop ebx
        0x9c, // pushf
        0x9d, // popf
        0x40, // inc ax
        0xf4, 0xf4, // hlt; hlt
    ];
    let (without, _) = run_stepped(&code, 0);
    let (report, ips) = run_stepped(&code, MANY);
    assert_eq!((report.regs.rax, report.regs.rbx), (without.regs.rax, without.regs.rbx));
    assert_eq!(ips, [0x1000, 0x1001, 0x1002, 0x1004, 0x1006, 0x1007, 0x1008, 0x1009, 0x100a]);
}

fn step_over_a_halt_goes_on_after_it() {
    // hlt; inc ax; hlt; inc ax
    let (report, ips) = run_stepped(&[0xf4, 0x40, 0xf4, 0x40], MANY);
    assert_eq!(ips, [0x1000, 0x1001, 0x1002]);
    assert_eq!(report.regs.rax & 0xffff, 1);
}

/// Completing an access without an exit isn't counted as an exit.
fn step_with_a_summary_has_no_exits_for_completions() {
    let (ran, _) = stepped("hello-real", &["--step", ALL, "--trace-exits=summary"]);
    assert!(!ran.stderr.contains("\nother"), "{}", ran.stderr);
    assert!(ran.stderr.contains("\nout            0x03f8         11 "), "{}", ran.stderr);
}

/// A kick while an access is being completed must not be lost.
fn completed_access_leaves_a_kick_for_the_next_run() {
    // out 0x50, al; in al, 0x50; hlt
    let (_vm, mut vcpu) = machine(&[0xe6, 0x50, 0xe4, 0x50, 0xf4]);
    assert!(matches!(vcpu.run().unwrap(), Exit::PortOut { port: 0x50, .. }));
    let kick = std::sync::Arc::clone(vcpu.immediate_exit());
    kick.set();
    assert!(matches!(vcpu.complete_access().unwrap(), Exit::Interrupted));
    assert_eq!(vcpu.regs().unwrap().rip, 0x1002);
    assert!(matches!(vcpu.run().unwrap(), Exit::Interrupted));
    kick.clear();
    let Exit::PortIn { data, .. } = vcpu.run().unwrap() else { panic!("not the in") };
    data.fill(0x42);
    assert!(matches!(vcpu.complete_access().unwrap(), Exit::Interrupted));
    assert_eq!((vcpu.regs().unwrap().rip, vcpu.regs().unwrap().rax & 0xff), (0x1004, 0x42));
    assert!(matches!(vcpu.run().unwrap(), Exit::Halt));
}
