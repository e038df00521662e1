//! Three ways to stop a guest: `cargo run -p vmm-vcpu --example breakpoints`.
//!
//! The guest has a hardware breakpoint on an instruction, another on stores to a byte of memory, and an `int3` in place of an
//! instruction (KVM_SET_GUEST_DEBUG). A software KVM may not support all of them; the program prints which.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::{BreakOn, Breakpoints, DebugStop, HardwareBreakpoint, Kvm, KvmVcpu, StopCause, WatchLen};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 10] = [
    0xb0, 7, // mov al, 7
    0xb4, 9, // mov ah, 9: the instruction breakpoint
    0xa2, 0x00, 0x20, // mov [0x2000], al: the watched byte
    0x90, // nop: replaced by int3
    0x90, // nop
    0xf4, // hlt
];
const EXECUTED: u64 = ENTRY + 2;
const WATCHED: u64 = 0x2000;
const REPLACED: u64 = ENTRY + 7;
const INT3: u8 = 0xcc;
/// The handler of vector 3, for a KVM that lets the guest handle the `int3`.
const HANDLER: u64 = 0x1100;
const IRET: u8 = 0xcf;

/// Prints each stop and records which kinds occurred.
struct Debugger {
    ram: GuestRam,
    executed: bool,
    watched: bool,
    replaced: bool,
}

impl Debugger {
    fn stopped(
        &mut self,
        vcpu: &mut KvmVcpu,
        stop: DebugStop,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match stop.cause() {
            StopCause::Hardware(0) => {
                println!("before {:#x}: ax {:#x}", stop.pc, vcpu.regs()?.rax);
                // The instruction hasn't been executed yet, so the guest would stop here again.
                vcpu.set_breakpoints(breakpoints(None))?;
                self.executed = true;
            }
            StopCause::Hardware(_) => {
                let byte: u8 = self.ram.memory().read_obj(GuestAddress(WATCHED))?;
                println!("before {:#x}: {byte} was stored at {WATCHED:#x}", stop.pc);
                self.watched = true;
            }
            StopCause::Software => {
                println!("at {:#x}: int3", stop.pc);
                let instruction = CODE[(REPLACED - ENTRY) as usize];
                self.ram.memory().write_obj(instruction, GuestAddress(REPLACED))?;
                self.replaced = true;
            }
            cause => println!("unexpected stop: {cause:?}"),
        }
        Ok(())
    }
}

impl ExitHandler for Debugger {
    type Stop = Box<dyn std::error::Error + Send + Sync>;

    fn debug(&mut self, vcpu: &mut KvmVcpu, stop: DebugStop) -> Option<Flow<Self::Stop>> {
        Some(self.stopped(vcpu, stop).map_or_else(Flow::Stop, |()| Flow::Enter))
    }
}

/// The breakpoints, the one on an instruction optional.
fn breakpoints(executed: Option<u64>) -> Breakpoints {
    let executed = executed.map(|address| HardwareBreakpoint { address, on: BreakOn::Execute });
    let watched = HardwareBreakpoint { address: WATCHED, on: BreakOn::Write(WatchLen::One) };
    Breakpoints { hardware: [executed, Some(watched), None, None], software: true }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x3000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    ram.memory().write_obj(INT3, GuestAddress(REPLACED))?;
    ram.memory().write_obj(HANDLER as u16, GuestAddress(4 * 3))?;
    ram.memory().write_obj(IRET, GuestAddress(HANDLER))?;
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    Start::new(Mode::Real, ENTRY, ENTRY).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;
    vcpu.set_breakpoints(breakpoints(Some(EXECUTED)))?;

    let mut debugger = Debugger { ram, executed: false, watched: false, replaced: false };
    match run(&mut vcpu, &mut debugger)? {
        End::Halted(report) => println!("halted: ax {:#x}", report.regs.rax),
        End::Asked(error) => return Err(error),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    let Debugger { executed, watched, replaced, .. } = debugger;
    for (what, stopped) in [("an instruction", executed), ("a store", watched), ("int3", replaced)] {
        if !stopped {
            println!("this KVM doesn't stop at {what}");
        }
    }
    Ok(())
}
