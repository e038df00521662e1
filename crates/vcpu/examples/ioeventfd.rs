//! A guest's write that signals an eventfd without an exit: `cargo run -p vmm-vcpu --example ioeventfd`.
//!
//! So a guest rings a device's bell while it goes on: KVM compares address, width and value, and signals whoever waits at the
//! eventfd. Here 7 at port 0x600 is connected, and 8 comes as an exit like any other.

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

/// Counts the exits, too.
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

    // Nonblocking, so that a bell that nobody rang is an error below, not a wait without end.
    let bell = EventFd::new()?;
    vm.connect_write(&bell, WriteAddress::Port(0x600), Some(7))?;
    match run(&mut vcpu, &mut Doorbell { exits: 0 })? {
        End::Halted(_) => println!("the guest halts, and the eventfd was signalled {} times", bell.read()?),
        end => return Err(format!("the guest ended otherwise: {end:?}").into()),
    }
    Ok(())
}
