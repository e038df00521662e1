//! Reporting accesses to the task priority register: `cargo run -p vmm-vcpu --example tpr_access`.
//!
//! The register is in the local APIC, at guest-physical address 0xfee0_0080. The in-kernel APIC completes the access; with
//! KVM_TPR_ACCESS_REPORTING, KVM_RUN then exits with the address of the instruction. A monitor can patch instructions that access
//! the register often.

use vmm_arch::flat::{Mode, Start};
use vmm_arch::layout::BOOT_STACK;
use vmm_kvm::{Kvm, KvmVcpu, ReservedPages};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 30] = [
    0xa1, 0x80, 0x00, 0xe0, 0xfe, // mov eax, [0xfee00080]
    0xb9, 0x00, 0x00, 0x01, 0x00, // mov ecx, 0x10000
    0xe2, 0xfe, // loop: a software KVM reports only after some instructions
    0x83, 0xc0, 0x20, // add eax, 0x20
    0xa3, 0x80, 0x00, 0xe0, 0xfe, // mov [0xfee00080], eax
    0xb9, 0x00, 0x00, 0x01, 0x00, // mov ecx, 0x10000
    0xe2, 0xfe, // loop
    0xe6, 0xe9, // out 0xe9, al
    0xf4, // hlt: never reached
];

/// Prints the reported accesses, and ends the guest at its `out`.
struct Reports;

impl ExitHandler for Reports {
    type Stop = ();

    fn tpr_access(&mut self, _vcpu: &mut KvmVcpu, rip: u64, is_write: bool) -> Flow<()> {
        println!(
            "the instruction at {rip:#x} {} the task priority",
            if is_write { "writes" } else { "reads" }
        );
        Flow::Enter
    }

    fn outb(&mut self, _port: u16, _value: u8) -> Flow<()> {
        Flow::Stop(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kvm = Kvm::open()?;
    if !kvm.has_tpr_access_reporting() {
        println!("this KVM doesn't report accesses to the task priority");
        return Ok(());
    }
    let vm = kvm.create_vm()?;
    vm.set_reserved_pages(ReservedPages::default())?;
    vm.create_irqchip_and_pit()?;
    let ram = GuestRam::new(&[0..0x1_0000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    for table in Mode::Protected.tables() {
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa))?;
    }
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    let start = Start::new(Mode::Protected, ENTRY, BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;
    vcpu.report_tpr_access(true)?;

    match run(&mut vcpu, &mut Reports)? {
        // CR8 is bits 7:4 of the register.
        End::Asked(()) => println!("the guest has cr8 {}", vcpu.cr8()),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
