//! Flat images through the library: vmm-boot, vmm-kvm and vmm-vcpu with a handler of the test, without bus, devices, config and
//! machine.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use driver::guests;
use harness::trials;
use libtest_mimic::Trial;
use vmm_arch::flat::{Mode, Start};
use vmm_arch::layout;
use vmm_boot::FlatPlan;
use vmm_bus::EventFd;
use vmm_kvm::{Kvm, KvmVcpu, ReservedPages, Vm};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{CrashCause, End, ExitHandler, Flow, VcpuThread, run};

use crate::common::load_flat;

/// COM1's line status register: whether a byte has arrived, and whether one can be sent.
const LINE_STATUS: u16 = 0x3fd;
/// The i8042's command port, and the reset command.
const RESET: (u16, u8) = (0x64, 0xfe);

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        library_real_mode_hello_makes_an_exit_for_each_byte,
        library_reset_images_start_at_the_reset_vector,
        library_answers_are_42,
        library_interrupt_handler_echoes,
        library_second_processor_counts_too,
        library_faults_are_crashes,
        library_paged_answer_is_42_where_kvm_has_paging,
        library_descriptors_are_those_of_kvm_vm_and_vcpu,
        library_interrupt_is_refused_where_the_controllers_are_kvms,
        library_lowered_task_priority_leaves_the_guest_where_kvm_reports_it,
        library_dirty_pages_without_a_log_are_refused,
        library_dirty_log_that_was_switched_off_starts_anew,
    ]
}

/// Records all bytes written to ports, and supplies input to COM1. Stops at a reset.
#[derive(Clone, Default)]
struct Ports {
    said: Arc<Mutex<Vec<(u16, u8)>>>,
    typed: Arc<Mutex<VecDeque<u8>>>,
}

impl Ports {
    /// The output at `port`.
    fn said_at(&self, port: u16) -> String {
        let said = self.said.lock().unwrap();
        said.iter().filter(|(at, _)| *at == port).map(|(_, byte)| char::from(*byte)).collect()
    }
}

impl ExitHandler for Ports {
    type Stop = &'static str;

    fn inb(&mut self, port: u16) -> u8 {
        let mut typed = self.typed.lock().unwrap();
        match port {
            LINE_STATUS => 0x20 | u8::from(!typed.is_empty()),
            0x3f8 => typed.pop_front().unwrap_or(0),
            _ => 0xff,
        }
    }

    fn outb(&mut self, port: u16, value: u8) -> Flow<&'static str> {
        if (port, value) == RESET {
            return Flow::Stop("reset");
        }
        self.said.lock().unwrap().push((port, value));
        Flow::Enter
    }
}

/// A VM with a flat image in its memory.
struct Machine {
    vm: Vm,
    ram: GuestRam,
    plan: FlatPlan,
}

/// Without interrupt controllers, `hlt` exits to user space.
const WITHOUT_IRQCHIP: bool = false;
const WITH_IRQCHIP: bool = true;

impl Machine {
    fn new(image: &Path, mode: Mode, load_address: Option<u64>, irqchip: bool) -> Self {
        // Real mode can address a little more than 1 MiB, which the jump beyond memory needs.
        let ranges = layout::ram_ranges(if mode == Mode::Real { 1 << 20 } else { 4 << 20 });
        let (plan, ram) = load_flat(image, mode, load_address, &ranges);
        let vm = Kvm::open().unwrap().create_vm().unwrap();
        vm.set_reserved_pages(ReservedPages::default()).unwrap();
        if irqchip {
            vm.create_irqchip_and_pit().unwrap();
        }
        vm.add_memory(&ram).unwrap();
        if let Some(alias) = plan.alias() {
            vm.add_read_only_alias(&ram, alias.source, alias.gpa).unwrap();
        }
        Self { vm, ram, plan }
    }

    /// The first vCPU, before its first instruction.
    fn first_vcpu(&self) -> KvmVcpu {
        let vcpu = self.vm.create_vcpu(0).unwrap();
        let (mut regs, mut sregs) = (vcpu.regs().unwrap(), vcpu.sregs().unwrap());
        self.plan.start().apply_to(&mut regs, &mut sregs);
        vcpu.set_sregs(&sregs).unwrap();
        vcpu.set_regs(&regs).unwrap();
        vcpu
    }

    fn word_at_0x400(&self) -> u64 {
        self.ram.memory().read_obj(GuestAddress(0x400)).unwrap()
    }
}

/// Runs an image to its end, on a machine without interrupt controllers.
fn run_to_end(name: &str, mode: Mode, load_address: Option<u64>) -> (Machine, Ports, End<&'static str>) {
    let machine = Machine::new(&guests::path(name), mode, load_address, WITHOUT_IRQCHIP);
    let mut ports = Ports::default();
    let end = run(&mut machine.first_vcpu(), &mut ports).unwrap();
    (machine, ports, end)
}

fn library_real_mode_hello_makes_an_exit_for_each_byte() {
    let (_, ports, end) = run_to_end("hello-real", Mode::Real, None);
    assert!(matches!(end, End::Halted(_)), "{end:?}");
    assert_eq!(ports.said_at(0x3f8), "Hello, KVM!");
    assert_eq!(ports.said.lock().unwrap().len(), 11);
}

fn library_reset_images_start_at_the_reset_vector() {
    let (_, ports, end) = run_to_end("reset-hello", Mode::Reset, None);
    assert!(matches!(end, End::Halted(_)), "{end:?}");
    assert_eq!(ports.said_at(0xf1), "Hello");
    let (_, ports, end) = run_to_end("reset-string", Mode::Reset, None);
    assert!(matches!(end, End::Halted(_)), "{end:?}");
    assert_eq!(ports.said_at(0xf1), "Hello, World!");
}

fn assert_answers(name: &str, mode: Mode, load_address: Option<u64>) {
    let (machine, ports, end) = run_to_end(name, mode, load_address);
    let End::Halted(report) = end else { panic!("{name}: {end:?}") };
    assert_eq!((report.regs.rax, machine.word_at_0x400()), (42, 42), "{name}");
    assert_eq!(ports.said_at(0xe9), "Hello, World!", "{name}");
}

fn library_answers_are_42() {
    assert_answers("answer-real", Mode::Real, Some(0x1000));
    assert_answers("answer-protected", Mode::Protected, None);
    assert_answers("answer-long", Mode::Long, None);
}

/// A software KVM doesn't support paging in protected mode, which a caller can tell by CR0. The tests also run in the rig, whose KVM
/// supports it.
fn library_paged_answer_is_42_where_kvm_has_paging() {
    /// CR0.PG.
    const PAGING: u64 = 1 << 31;
    if rig::can_run_linux().is_ok() {
        return assert_answers("answer-paged", Mode::Paged, None);
    }
    let machine = Machine::new(&guests::path("answer-paged"), Mode::Paged, None, WITHOUT_IRQCHIP);
    assert_eq!(machine.first_vcpu().sregs().unwrap().cr0 & PAGING, 0);
}

/// The host's side of COM1 is an eventfd for IRQ 4.
fn library_interrupt_handler_echoes() {
    let machine = Machine::new(&guests::path("echo-irq"), Mode::Real, Some(0x1000), WITH_IRQCHIP);
    let line = EventFd::new().unwrap();
    machine.vm.connect_irq(&line, vmm_devices::Uart::COM1_GSI).unwrap();
    let ports = Ports::default();
    let ended = EventFd::new().unwrap();
    let vcpu = VcpuThread::spawn(0, machine.first_vcpu(), ports.clone(), ended.try_clone().unwrap()).unwrap();
    vcpu.resume();
    driver::wait_until("the guest listens", driver::DEADLINE, || ports.said_at(0x3f9) == "\x01");
    ports.typed.lock().unwrap().extend(b"typed\x04");
    line.write(1).unwrap();
    ended.wait().unwrap();
    assert!(matches!(vcpu.join(), Ok(End::Asked("reset"))));
    assert_eq!(ports.said_at(0x3f8), "ready\ntypedbye\n");
}

fn library_second_processor_counts_too() {
    let machine = Machine::new(&guests::path("ping"), Mode::Protected, None, WITH_IRQCHIP);
    let ports = Ports::default();
    let ended = EventFd::new().unwrap();
    let spawn = |index, vcpu| {
        let vcpu = VcpuThread::spawn(index, vcpu, ports.clone(), ended.try_clone().unwrap()).unwrap();
        vcpu.resume();
        vcpu
    };
    let first = spawn(0, machine.first_vcpu());
    let second = spawn(1, machine.vm.create_vcpu(1).unwrap());
    ended.wait().unwrap();
    assert!(matches!(first.join(), Ok(End::Asked("reset"))));
    assert_eq!(ports.said_at(0xe9), "second done\npong 1000\n");
    drop(second);
}

/// The cause of an image's crash.
fn cause(name: &str, mode: Mode, load_address: Option<u64>) -> CrashCause {
    match run_to_end(name, mode, load_address).2 {
        End::Crashed(crash) => crash.cause,
        end => panic!("{name}: {end:?}"),
    }
}

fn library_faults_are_crashes() {
    let widths = [("16", Mode::Real, Some(0x1000)), ("32", Mode::Protected, None), ("64", Mode::Long, None)];
    for (width, mode, at) in widths {
        assert_eq!(cause(&format!("fault-triple-{width}"), mode, at), CrashCause::TripleFault);
        assert_eq!(cause(&format!("fault-ud-{width}"), mode, at), CrashCause::TripleFault);
        let jump = cause(&format!("fault-jump-{width}"), mode, at).to_string();
        assert_eq!(jump, "instruction pointer outside of memory");
    }
}

/// The kernel's name of a descriptor's file.
fn file_of(descriptor: &impl AsFd) -> String {
    let link = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    std::fs::read_link(link).unwrap().into_os_string().into_string().unwrap()
}

fn library_descriptors_are_those_of_kvm_vm_and_vcpu() {
    let kvm = Kvm::open().unwrap();
    let vm = kvm.create_vm().unwrap();
    let vcpu = vm.create_vcpu(0).unwrap();
    assert_eq!(file_of(&kvm), "/dev/kvm");
    assert_eq!(file_of(&vm), "anon_inode:kvm-vm");
    assert_eq!(file_of(&vcpu), "anon_inode:kvm-vcpu:0");
}

fn library_interrupt_is_refused_where_the_controllers_are_kvms() {
    let machine = Machine::new(&guests::path("hello-real"), Mode::Real, None, WITH_IRQCHIP);
    let error = machine.first_vcpu().interrupt(0x20).unwrap_err().to_string();
    let expected = "KVM_INTERRUPT: vector 0x20 can't be injected into a VM with in-kernel interrupt controllers: raise an \
        interrupt line (KVM_IRQFD), or create the VM without them";
    assert_eq!(error, expected);
}

fn library_dirty_pages_without_a_log_are_refused() {
    let machine = Machine::new(&guests::path("answer-real"), Mode::Real, Some(0x1000), WITHOUT_IRQCHIP);
    let no_log = machine.vm.take_dirty_pages(0x400).unwrap_err().to_string();
    assert_eq!(no_log, "the memory at 0x400 has no dirty log: switch it on with `log_dirty_pages`");
    // Real mode has 1 MiB here.
    let no_memory = machine.vm.log_dirty_pages(0x10_0000, true).unwrap_err().to_string();
    assert_eq!(no_memory, "the guest has no memory at 0x100000");
}

/// The guest stores its result at 0x400, and doesn't use the stack.
fn library_dirty_log_that_was_switched_off_starts_anew() {
    let machine = Machine::new(&guests::path("answer-real"), Mode::Real, Some(0x1000), WITHOUT_IRQCHIP);
    machine.vm.log_dirty_pages(0x400, true).unwrap();
    let end = run(&mut machine.first_vcpu(), &mut Ports::default()).unwrap();
    assert!(matches!(end, End::Halted(_)), "{end:?}");
    machine.vm.log_dirty_pages(0x400, false).unwrap();
    machine.vm.log_dirty_pages(0x400, true).unwrap();
    assert_eq!(machine.vm.take_dirty_pages(0x400).unwrap().count(), 0);
}

/// mov eax, 5; mov cr8, rax; mov al, 2; mov cr8, rax; hlt
const LOWERS_TASK_PRIORITY: &[u8] = b"\xb8\x05\0\0\0\x44\x0f\x22\xc0\xb0\x02\x44\x0f\x22\xc0\xf4";

/// Records the task priority after it has been lowered.
#[derive(Default)]
struct PriorityRecorder(Vec<u64>);

impl ExitHandler for PriorityRecorder {
    type Stop = ();
    fn tpr_lowered(&mut self, _vcpu: &mut KvmVcpu, cr8: u64) -> Flow<()> {
        self.0.push(cr8);
        Flow::Enter
    }
}

/// A software KVM emulates the store to CR8 without an exit.
fn library_lowered_task_priority_leaves_the_guest_where_kvm_reports_it() {
    let vm = Kvm::open().unwrap().create_vm().unwrap();
    let ram = GuestRam::new(&[0..0x20_0000]).unwrap();
    for table in Mode::Long.tables() {
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa)).unwrap();
    }
    ram.memory().write_slice(LOWERS_TASK_PRIORITY, GuestAddress(0x10_0000)).unwrap();
    vm.add_memory(&ram).unwrap();
    let mut vcpu = vm.create_vcpu(0).unwrap();
    let (mut regs, mut sregs) = (vcpu.regs().unwrap(), vcpu.sregs().unwrap());
    let start = Start::new(Mode::Long, 0x10_0000, layout::BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs).unwrap();
    vcpu.set_regs(&regs).unwrap();
    let mut lowered = PriorityRecorder::default();
    let end = run(&mut vcpu, &mut lowered).unwrap();
    assert!(matches!(end, End::Halted(_)), "{end:?}");
    let reported: &[u64] = if rig::can_run_linux().is_ok() { &[2] } else { &[] };
    assert_eq!((lowered.0.as_slice(), vcpu.cr8()), (reported, 2));
}
