//! Ten bytes of real-mode code, which run on any /dev/kvm: `cargo run -p vmm-vcpu --example ten_bytes`.
//!
//! They add 2 and 2, write the digit to port 0x3f8 and halt. The program uses only vmm-memory, vmm-kvm and vmm-vcpu.

use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const CODE: [u8; 10] = [
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0x00, 0xd8, // add al, bl
    0x04, b'0', // add al, '0'
    0xee, // out dx, al
    0xf4, // hlt
    0x90, // nop
];

/// Prints what the guest writes to port 0x3f8.
struct Printer;

impl ExitHandler for Printer {
    type Stop = ();

    fn outb(&mut self, port: u16, value: u8) -> Flow<()> {
        if port == 0x3f8 {
            println!("the guest says {}", char::from(value));
        }
        Flow::Enter
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0x1000..0x2000])?;
    ram.memory().write_slice(&CODE, GuestAddress(0x1000))?;
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.regs()?;
    (regs.rip, regs.rax, regs.rbx, regs.rflags) = (0x1000, 2, 2, 2);
    vcpu.set_regs(&regs)?;

    match run(&mut vcpu, &mut Printer)? {
        End::Halted(_) => println!("and halts"),
        end => println!("ended unexpectedly: {end:?}"),
    }
    Ok(())
}
