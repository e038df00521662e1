//! A real-mode guest that exits once for each byte that it prints: `cargo run -p vmm-vcpu --example hello_real`.
//!
//! The guest sends the bytes of a string to port 0x3f8, where a PC has its first serial port, and halts at the NUL.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

/// Address of the code, above the interrupt vector table and in the first segment.
const ENTRY: u64 = 0x1000;
const CODE: [u8; 15] = [
    0xbe, 0x00, 0x11, // mov si, 0x1100
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xac, // next: lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x03, // jz end
    0xee, // out dx, al
    0xeb, 0xf8, // jmp next
    0xf4, // end: hlt
];

/// Address of the string.
const MESSAGE: u64 = 0x1100;

/// Prints each exit.
struct Serial {
    exits: usize,
}

impl ExitHandler for Serial {
    type Stop = ();

    fn outb(&mut self, port: u16, value: u8) -> Flow<()> {
        self.exits += 1;
        println!("exit {:2}: out {port:#x}, {:?}", self.exits, char::from(value));
        Flow::Enter
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x2000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    ram.memory().write_slice(b"Hello, KVM!\0", GuestAddress(MESSAGE))?;
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    Start::new(Mode::Real, ENTRY, ENTRY).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    let mut serial = Serial { exits: 0 };
    match run(&mut vcpu, &mut serial)? {
        End::Halted(_) => println!("{} exits for {} bytes, and one to halt", serial.exits, serial.exits),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
