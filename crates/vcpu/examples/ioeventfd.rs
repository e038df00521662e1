//! Signalling an eventfd by a guest's write, without an exit: `cargo run -p vmm-vcpu --example ioeventfd`.
//!
//! A guest can notify a device without being interrupted: KVM compares the address, width and value of writes, and signals the
//! eventfd on a match. Here a write of 7 to port 0x600 is connected, and a write of 8 is an ordinary exit.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::{Kvm, WriteAddress};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, EventFd, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 18] = [
    0xba, 0x00, 0x06, // mov dx, 0x600
    0x66, 0xb8, 7, 0, 0, 0, // mov eax, 7
    0x66, 0xef, // out dx, eax
    0x66, 0xef, // out dx, eax
    0x66, 0x40, // inc eax
    0x66, 0xef, // out dx, eax
    0xf4, // hlt
];

/// Counts and prints the exits.
struct Doorbell {
    exits: usize,
}

impl ExitHandler for Doorbell {
    type Stop = ();

    fn outl(&mut self, port: u16, value: u32) -> Flow<()> {
        self.exits += 1;
        println!("exit {}: out {port:#x}, {value}", self.exits);
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

    // Non-blocking, so that the read below fails instead of waiting forever if the eventfd wasn't signalled.
    let bell = EventFd::new()?;
    vm.connect_write(&bell, WriteAddress::Port(0x600), Some(7))?;
    match run(&mut vcpu, &mut Doorbell { exits: 0 })? {
        End::Halted(_) => println!("the guest halts, and the eventfd was signalled {} times", bell.read()?),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
