//! Single-stepping the first instructions of a guest: `cargo run -p vmm-vcpu --example single_step`.
//!
//! KVM_RUN returns after each instruction, and a wrapper around the guest's handler shows the registers. After the sixth step the
//! guest runs at full speed.

use std::convert::Infallible;

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::{Kvm, VcpuReport};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, SingleStepped, Steps, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 11] = [
    0xb8, 1, 0, // mov ax, 1
    0xb9, 5, 0, // mov cx, 5
    0xd1, 0xe0, // again: shl ax, 1
    0xe2, 0xfc, // loop again
    0xf4, // hlt
];

/// A machine with only a processor and memory.
struct Empty;

impl ExitHandler for Empty {
    type Stop = ();
}

/// Prints each step.
struct Printer;

impl Steps for Printer {
    fn step(&mut self, step: u64, report: &VcpuReport) -> Flow<Infallible> {
        println!(
            "step {step}: ip {:#x}, rax {}, next byte {:#x}",
            report.regs.rip, report.regs.rax, report.code[0]
        );
        Flow::Enter
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x2000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    Start::new(Mode::Real, ENTRY, ENTRY).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    match run(&mut vcpu, &mut SingleStepped::new(Empty, Printer, 6))? {
        End::Halted(report) => println!("halted: ip {:#x}, rax {}", report.regs.rip, report.regs.rax),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
