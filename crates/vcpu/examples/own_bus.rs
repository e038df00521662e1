//! A monitor with its own bus and devices: `cargo run -p vmm-vcpu --example own_bus`.
//!
//! The call-backs of the run loop look up devices by port. One of the devices ends the guest, with a reason.

use std::ops::Range;

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 11] = [
    0xe4, 0x50, // again: in al, 0x50
    0xe6, 0xe9, // out 0xe9, al
    0x3c, b'0', // cmp al, '0'
    0x75, 0xf8, // jne again
    0xe6, 0x51, // out 0x51, al
    0xf4, // hlt: never reached
];

/// Why a device ends the guest.
type Reason = String;

/// A device with ports. `offset` is relative to its first port.
trait Device: Send {
    fn read(&mut self, offset: u16) -> u8;
    fn write(&mut self, offset: u16, value: u8) -> Flow<Reason>;
}

/// Prints what is written to its port.
struct Console;

impl Device for Console {
    fn read(&mut self, _offset: u16) -> u8 {
        0xe9
    }
    fn write(&mut self, _offset: u16, value: u8) -> Flow<Reason> {
        println!("{}", char::from(value));
        Flow::Enter
    }
}

/// Has two ports: each read of the first returns the next lower digit, and a write to the second ends the guest.
struct Countdown {
    next: u8,
}

impl Device for Countdown {
    fn read(&mut self, _offset: u16) -> u8 {
        let digit = self.next;
        self.next = self.next.saturating_sub(1).max(b'0');
        digit
    }
    fn write(&mut self, offset: u16, value: u8) -> Flow<Reason> {
        if offset == 1 { Flow::Stop(format!("lift-off at {:?}", char::from(value))) } else { Flow::Enter }
    }
}

/// Devices by their ports, which must not overlap.
struct Bus(Vec<(Range<u16>, Box<dyn Device>)>);

impl Bus {
    fn find(&mut self, port: u16) -> Option<(u16, &mut dyn Device)> {
        let (ports, device) = self.0.iter_mut().find(|(ports, _)| ports.contains(&port))?;
        Some((port - ports.start, device.as_mut()))
    }
}

impl ExitHandler for Bus {
    type Stop = Reason;

    fn inb(&mut self, port: u16) -> u8 {
        // Unclaimed ports read as all ones.
        self.find(port).map_or(0xff, |(offset, device)| device.read(offset))
    }

    fn outb(&mut self, port: u16, value: u8) -> Flow<Reason> {
        self.find(port).map_or(Flow::Enter, |(offset, device)| device.write(offset, value))
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

    let mut bus =
        Bus(vec![(0xe9..0xea, Box::new(Console)), (0x50..0x52, Box::new(Countdown { next: b'3' }))]);
    match run(&mut vcpu, &mut bus)? {
        End::Asked(reason) => println!("a device ended the guest: {reason}"),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
