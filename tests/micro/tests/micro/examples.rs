//! The examples of vmm-vcpu: each prints what its documentation says.

use driver::{DEADLINE, Launch, Monitor, example};
use harness::trials;
use libtest_mimic::Trial;

use crate::common::ENDED;

/// Part of the message that `paging` prints if it can't run.
const NO_PAGING: &str = "this KVM has no paging outside of long mode";

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        example_ten_bytes_adds,
        example_hello_real_has_an_exit_per_byte,
        example_protected_mode_stores_42,
        example_long_mode_stores_42,
        example_mmio_device_squares,
        example_strings_counts_exits_and_elements,
        example_irqfd_wakes_the_halted_guest,
        example_ioeventfd_has_no_exit,
        example_single_step_shows_six_instructions,
        example_own_bus_device_ends_the_guest,
        example_smp_counts_to_1000,
        example_own_interrupt_controller_injects_by_priority,
        example_nmi_interrupts_a_guest_without_interrupts,
        example_tpr_access_is_reported,
        example_dirty_log_has_each_page_once,
        example_read_only_memory_keeps_its_byte,
        example_breakpoints_stop_where_kvm_can,
        example_paging_stores_42_where_kvm_has_paging,
    ]
}

fn start(name: &str) -> Monitor {
    Launch::new(&example(name), [""; 0]).start()
}

/// Runs an example that must succeed, and returns its output.
fn output(name: &str) -> String {
    let mut program = start(name);
    program.expect_code(ENDED, DEADLINE);
    String::from_utf8(program.stdout()).expect("examples print UTF-8")
}

fn example_ten_bytes_adds() {
    assert_eq!(output("ten_bytes"), "the guest says 4\nand halts\n");
}

fn example_hello_real_has_an_exit_per_byte() {
    let expected = "\
exit  1: out 0x3f8, 'H'
exit  2: out 0x3f8, 'e'
exit  3: out 0x3f8, 'l'
exit  4: out 0x3f8, 'l'
exit  5: out 0x3f8, 'o'
exit  6: out 0x3f8, ','
exit  7: out 0x3f8, ' '
exit  8: out 0x3f8, 'K'
exit  9: out 0x3f8, 'V'
exit 10: out 0x3f8, 'M'
exit 11: out 0x3f8, '!'
11 exits for 11 bytes, and one to halt
";
    assert_eq!(output("hello_real"), expected);
}

fn example_protected_mode_stores_42() {
    let expected = "\
descriptor tables at 0x500, 40 bytes
interrupt table at 0x530, 8 bytes
cr0 0x11, cr3 0x0, cr4 0x0, efer 0x0
protected mode, no paging, 32-bit code
eax 42, 4 bytes at 0x400: 42
";
    assert_eq!(output("protected_mode"), expected);
}

/// A software KVM doesn't support paging in protected mode. The tests also run in the rig, whose KVM does.
fn example_paging_stores_42_where_kvm_has_paging() {
    let mut program = start("paging");
    program.expect_exit(DEADLINE);
    if rig::can_run_linux().is_err() {
        assert!(program.stderr().contains(NO_PAGING), "{}", program.stderr());
        return;
    }
    let expected = "\
descriptor tables at 0x500, 40 bytes
interrupt table at 0x530, 8 bytes
page directory at 0x9000, 4096 bytes
cr0 0x80000011, cr3 0x9000, cr4 0x10, efer 0x0
protected mode, paging with 4 MiB pages, 32-bit code
first entry of the page directory 0xe3: the processor has set accessed, 0x20, and dirty, 0x40
eax 42, 4 bytes at 0x400: 42
";
    assert_eq!(String::from_utf8_lossy(&program.stdout()), expected, "{}", program.stderr());
}

fn example_long_mode_stores_42() {
    let expected = "\
descriptor tables at 0x500, 40 bytes
interrupt table at 0x530, 8 bytes
page tables at 0x9000, 24576 bytes
cr0 0x80000011, cr3 0x9000, cr4 0x20, efer 0x500
long mode, paging with 8-byte entries, 64-bit code
rax 42, 8 bytes at 0x400: 42
";
    assert_eq!(output("long_mode"), expected);
}

fn example_mmio_device_squares() {
    let expected = "\
write 0xd0000000, 4 bytes: [12, 0, 0, 0]
read  0xd0000000, 4 bytes: 144
read  0xd0000004, 4 bytes: 1
the guest has eax 144, ebx 1
";
    assert_eq!(output("mmio_device"), expected);
}

fn example_strings_counts_exits_and_elements() {
    let each = "\
rep outsb: exits 13, elements 13, Hello, World!
rep insb: exits 1, elements 5, abcde
";
    let whole = "\
rep outsb: exits 1, elements 13, Hello, World!
rep insb: exits 1, elements 5, abcde
";
    let output = output("strings");
    // KVM chooses how many elements of an outsb it passes in one exit.
    assert!([each, whole].contains(&output.as_str()), "{output}");
}

fn example_irqfd_wakes_the_halted_guest() {
    let expected = "\
guest: ready for interrupt 4
device: writes to the eventfd
guest: interrupt 4 was handled
";
    assert_eq!(output("irqfd"), expected);
}

fn example_ioeventfd_has_no_exit() {
    let expected = "\
exit 1: out 0x600, 8
the guest halts, and the eventfd was signalled 2 times
";
    assert_eq!(output("ioeventfd"), expected);
}

fn example_single_step_shows_six_instructions() {
    let expected = "\
step 1: ip 0x1000, rax 0, next byte 0xb8
step 2: ip 0x1003, rax 1, next byte 0xb9
step 3: ip 0x1006, rax 1, next byte 0xd1
step 4: ip 0x1008, rax 2, next byte 0xe2
step 5: ip 0x1006, rax 2, next byte 0xd1
step 6: ip 0x1008, rax 4, next byte 0xe2
halted: ip 0x100b, rax 32
";
    assert_eq!(output("single_step"), expected);
}

fn example_own_bus_device_ends_the_guest() {
    assert_eq!(output("own_bus"), "3\n2\n1\n0\na device ended the guest: lift-off at '0'\n");
}

fn example_smp_counts_to_1000() {
    assert_eq!(output("smp"), "vcpu0 has finished\nvcpu1 has finished\nthe count is 1000\n");
}

fn example_own_interrupt_controller_injects_by_priority() {
    let expected = "\
guest: a; two devices raise lines 0 and 1
controller: the interrupt window is open
controller: injects vector 0x20
guest: handles line 0
controller: the interrupt window is open
controller: injects vector 0x21
guest: handles line 1
guest: halts; a device raises line 1
controller: injects vector 0x21
guest: handles line 1
guest: halts for good
";
    assert_eq!(output("own_interrupt_controller"), expected);
}

fn example_nmi_interrupts_a_guest_without_interrupts() {
    assert_eq!(output("nmi"), "guest: a\nmonitor: NMI\nguest: n\nguest: b\nguest: halts\n");
}

fn example_tpr_access_is_reported() {
    let expected = "\
the instruction at 0x1000 reads the task priority
the instruction at 0x100f writes the task priority
the guest has cr8 2
";
    assert_eq!(output("tpr_access"), expected);
}

fn example_dirty_log_has_each_page_once() {
    assert_eq!(output("dirty_log"), "2 pages: [3000, 5000]\n1 pages: [7000]\nthe guest halts\n");
}

fn example_read_only_memory_keeps_its_byte() {
    let expected = "\
a store of [42] to read-only memory at 0x1800
the guest stored 42 and still reads 41
";
    assert_eq!(output("read_only_memory"), expected);
}

/// A software KVM only supports breakpoints on instructions. The rig's emulated processor supports none of the three in a nested guest;
/// a real one supports all.
fn example_breakpoints_stop_where_kvm_can() {
    let software = "\
before 0x1002: ax 0x7
halted: ax 0x907
this KVM doesn't stop at a store
this KVM doesn't stop at int3
";
    let rig = "\
halted: ax 0x907
this KVM doesn't stop at an instruction
this KVM doesn't stop at a store
this KVM doesn't stop at int3
";
    let processor = "\
before 0x1002: ax 0x7
before 0x1007: 7 was stored at 0x2000
at 0x1007: int3
halted: ax 0x907
";
    let output = output("breakpoints");
    if rig::can_run_linux().is_err() {
        assert_eq!(output, software);
    } else {
        assert!([rig, processor].contains(&output.as_str()), "{output}");
    }
}
