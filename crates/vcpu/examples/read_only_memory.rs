//! Read-only memory: `cargo run -p vmm-vcpu --example read_only_memory`.
//!
//! A read-only memory slot (KVM_MEM_READONLY) is a ROM: the guest loads from it and executes it at full speed. A store is an
//! exit, which the monitor can ignore, or handle like a flash chip.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::Kvm;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_memory::{Access, GuestRam};
use vmm_vcpu::{End, ExitHandler, Flow, run};

/// Address of the ROM, which contains the code.
const ROM: u64 = 0x1000;
const CODE: [u8; 13] = [
    0xa0, 0x00, 0x18, // mov al, [0x1800]
    0xfe, 0xc0, // inc al
    0xa2, 0x00, 0x18, // mov [0x1800], al: to the ROM
    0x8a, 0x26, 0x00, 0x18, // mov ah, [0x1800]
    0xf4, // hlt
];
const BYTE: u64 = 0x1800;

/// Prints and ignores the guest's stores.
struct Rom;

impl ExitHandler for Rom {
    type Stop = ();

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<()> {
        println!("a store of {data:?} to read-only memory at {gpa:#x}");
        Flow::Enter
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x1000])?;
    vm.add_memory(&ram)?;
    let rom = GuestRam::new(&[ROM..ROM + 0x1000])?;
    rom.memory().write_slice(&CODE, GuestAddress(ROM))?;
    rom.memory().write_obj(41u8, GuestAddress(BYTE))?;
    vm.add_memory_for(&rom, Access::Read)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    Start::new(Mode::Real, ROM, ROM).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    match run(&mut vcpu, &mut Rom)? {
        End::Halted(report) => {
            let [al, ah, ..] = report.regs.rax.to_le_bytes();
            println!("the guest stored {al} and still reads {ah}");
        }
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
