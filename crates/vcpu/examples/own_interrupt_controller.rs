//! A monitor with its own interrupt controller: `cargo run -p vmm-vcpu --example own_interrupt_controller`.
//!
//! Without in-kernel interrupt controllers, the monitor injects interrupts itself (KVM_INTERRUPT), when the guest is ready for
//! one. Otherwise it requests an exit for when the guest becomes ready: the interrupt window. The controller checks for pending
//! interrupts before each entry, as libkvm's `try_push_interrupts` did.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::{Kvm, KvmVcpu};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 49] = [
    0xc7, 0x06, 0x80, 0x00, 0x1b, 0x10, // mov word [0x80], 0x101b: the handler of vector 0x20
    0xc7, 0x06, 0x84, 0x00, 0x26, 0x10, // mov word [0x84], 0x1026: the handler of vector 0x21
    0xb0, b'a', 0xe6, 0xe9, // mov al, 'a'; out 0xe9, al: with interrupts off
    0xfb, // sti
    0x80, 0x3e, 0x00, 0x05, 0x02, // wait: cmp byte [0x500], 2
    0x75, 0xf9, // jne wait: until both handlers have run
    0xf4, // halt: hlt
    0xeb, 0xfd, // jmp halt
    0xb0, b'0', 0xe6, 0xe9, // handler: mov al, '0'; out 0xe9, al
    0xfe, 0x06, 0x00, 0x05, // inc byte [0x500]
    0xe6, 0x20, // out 0x20, al: end of interrupt
    0xcf, // iret
    0xb0, b'1', 0xe6, 0xe9, // handler: mov al, '1'; out 0xe9, al
    0xfe, 0x06, 0x00, 0x05, // inc byte [0x500]
    0xe6, 0x20, // out 0x20, al: end of interrupt
    0xcf, // iret
];

/// The vector of line 0. Line 1 has the next.
const FIRST_VECTOR: u8 = 0x20;

/// An interrupt controller with two lines, where the lower has priority, and the devices that raise them.
#[derive(Default)]
struct Controller {
    /// A bit for each pending line.
    pending: u8,
    /// An interrupt is in service: the guest hasn't signalled its end.
    is_busy: bool,
    halts: usize,
}

impl ExitHandler for Controller {
    type Stop = vmm_kvm::Error;

    fn before_run(&mut self, vcpu: &mut KvmVcpu) {
        let is_due = self.pending != 0 && !self.is_busy;
        if is_due && vcpu.is_ready_for_interrupt() {
            let line = self.pending.trailing_zeros() as u8;
            println!("controller: injects vector {:#x}", FIRST_VECTOR + line);
            vcpu.interrupt(FIRST_VECTOR + line).expect("this VM has no in-kernel controllers");
            self.pending &= !(1 << line);
            self.is_busy = true;
        }
        // Request an exit when the guest is ready for the next pending interrupt.
        vcpu.request_interrupt_window(self.pending != 0 && !self.is_busy);
    }

    fn interrupt_window(&mut self, _vcpu: &mut KvmVcpu) -> Flow<Self::Stop> {
        println!("controller: the interrupt window is open");
        Flow::Enter
    }

    fn outb(&mut self, port: u16, value: u8) -> Flow<Self::Stop> {
        match (port, value) {
            (0xe9, b'a') => {
                println!("guest: a; two devices raise lines 0 and 1");
                self.pending = 0b11;
            }
            (0xe9, _) => println!("guest: handles line {}", char::from(value)),
            (0x20, _) => self.is_busy = false,
            _ => {}
        }
        Flow::Enter
    }

    fn halt(&mut self, _vcpu: &mut KvmVcpu) -> Option<Flow<Self::Stop>> {
        self.halts += 1;
        if self.halts > 1 {
            return None;
        }
        println!("guest: halts; a device raises line 1");
        self.pending = 0b10;
        Some(Flow::Enter)
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

    match run(&mut vcpu, &mut Controller::default())? {
        End::Halted(_) => println!("guest: halts for good"),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
