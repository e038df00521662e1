//! Finding the pages that a guest has written: `cargo run -p vmm-vcpu --example dirty_log`.
//!
//! KVM keeps a dirty log of a memory slot (KVM_MEM_LOG_DIRTY_PAGES, KVM_GET_DIRTY_LOG), and clears it each time it is read.
//! Monitors use it to redraw only what has changed on a display, and to copy a machine to another host while it runs.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::{Kvm, Vm};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 20] = [
    0xe6, 0x50, // out 0x50, al
    0xb0, b'x', // mov al, 'x'
    0xa2, 0x00, 0x30, // mov [0x3000], al
    0xa2, 0xff, 0x5f, // mov [0x5fff], al
    0xe6, 0x50, // out 0x50, al
    0xa2, 0x00, 0x70, // mov [0x7000], al
    0xa0, 0x00, 0x30, // mov al, [0x3000]: loads aren't logged
    0xe6, 0x50, // out 0x50, al
];
/// The instruction after the code.
const HLT: u8 = 0xf4;

/// Reads the log at each `out`.
struct Display {
    vm: Vm,
    is_first: bool,
}

impl ExitHandler for Display {
    type Stop = vmm_kvm::Error;

    fn outb(&mut self, _port: u16, _value: u8) -> Flow<vmm_kvm::Error> {
        let pages = self.vm.take_dirty_pages(0);
        if std::mem::take(&mut self.is_first) {
            // KVM may log a page when it first makes it writable, even if the guest has only executed it.
            return Flow::Enter;
        }
        match pages {
            Ok(pages) => println!("{} pages: {:x?}", pages.count(), pages.iter().collect::<Vec<_>>()),
            Err(error) => return Flow::Stop(error),
        }
        Flow::Enter
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x1_0000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    ram.memory().write_obj(HLT, GuestAddress(ENTRY + CODE.len() as u64))?;
    vm.add_memory(&ram)?;
    vm.log_dirty_pages(0, true)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    Start::new(Mode::Real, ENTRY, ENTRY).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    match run(&mut vcpu, &mut Display { vm, is_first: true })? {
        End::Halted(_) => println!("the guest halts"),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
