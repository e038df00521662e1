//! Interrupting a halted guest by an eventfd: `cargo run -p vmm-vcpu --example irqfd`.
//!
//! The guest sets up interrupt 4 and halts. With in-kernel interrupt controllers, a halt isn't an exit. A device thread writes to
//! an eventfd, KVM raises the interrupt, and the guest's handler writes to port 0xe9.

use std::sync::mpsc::{Sender, channel};
use std::thread;

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::{Kvm, ReservedPages};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, EventFd, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 49] = [
    0xc7, 0x06, 0x30, 0x00, 0x28, 0x10, // mov word [0x30], 0x1028: vector 12's handler
    0xc7, 0x06, 0x32, 0x00, 0x00, 0x00, // mov word [0x32], 0: its segment
    0xb0, 0x11, 0xe6, 0x20, // mov al, 0x11; out 0x20, al: begin to initialise the first 8259
    0xb0, 0x08, 0xe6, 0x21, // mov al, 8; out 0x21, al: its lines are vectors 8 to 15
    0xb0, 0x04, 0xe6, 0x21, // mov al, 4; out 0x21, al: the second 8259 is at line 2
    0xb0, 0x01, 0xe6, 0x21, // mov al, 1; out 0x21, al: for an 8086, end of interrupt by command
    0xb0, 0xef, 0xe6, 0x21, // mov al, 0xef; out 0x21, al: all lines masked except 4
    0xb0, b'r', 0xe6, 0xe9, // mov al, 'r'; out 0xe9, al: ready
    0xfb, // sti
    0xf4, // wait: hlt
    0xeb, 0xfd, // jmp wait
    0xb0, b'4', 0xe6, 0xe9, // handler: mov al, '4'; out 0xe9, al
    0xb0, 0x20, 0xe6, 0x20, // mov al, 0x20; out 0x20, al: end of interrupt
    0xcf, // iret
];

/// Receives what the guest writes to port 0xe9.
struct Console {
    ready: Sender<()>,
}

impl ExitHandler for Console {
    type Stop = &'static str;

    fn outb(&mut self, port: u16, value: u8) -> Flow<&'static str> {
        match (port, value) {
            (0xe9, b'r') => {
                println!("guest: ready for interrupt 4");
                // An interrupt before the guest's hlt stays pending in the 8259.
                let _ = self.ready.send(());
            }
            (0xe9, b'4') => return Flow::Stop("interrupt 4 was handled"),
            _ => {}
        }
        Flow::Enter
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    vm.set_reserved_pages(ReservedPages::default())?;
    vm.create_irqchip_and_pit()?;
    let ram = GuestRam::new(&[0..0x2000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    Start::new(Mode::Real, ENTRY, ENTRY).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    let line = EventFd::new()?;
    vm.connect_irq(&line, 4)?;
    let (ready, when_ready) = channel();
    let device = thread::spawn(move || {
        let Ok(()) = when_ready.recv() else { return Ok(()) };
        println!("device: writes to the eventfd");
        line.write(1)
    });
    match run(&mut vcpu, &mut Console { ready })? {
        End::Asked(reason) => println!("guest: {reason}"),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    device.join().expect("the thread doesn't panic")?;
    Ok(())
}
