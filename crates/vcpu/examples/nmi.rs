//! A non-maskable interrupt: `cargo run -p vmm-vcpu --example nmi`.
//!
//! The guest never enables interrupts, but can't mask an NMI. It is injected by KVM_NMI before an entry, as libkvm's
//! `try_push_nmi` did. On x86 the vector of an NMI is 2.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::{Kvm, KvmVcpu};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 20] = [
    0xc7, 0x06, 0x08, 0x00, 0x0f, 0x10, // mov word [8], 0x100f: the handler of vector 2
    0xb0, b'a', 0xe6, 0xe9, // mov al, 'a'; out 0xe9, al
    0xb0, b'b', 0xe6, 0xe9, // mov al, 'b'; out 0xe9, al
    0xf4, // hlt
    0xb0, b'n', 0xe6, 0xe9, // handler: mov al, 'n'; out 0xe9, al
    0xcf, // iret
];

/// An NMI button, as some servers have. It is pressed when the guest prints `a`.
#[derive(Default)]
struct Button {
    is_pressed: bool,
}

impl ExitHandler for Button {
    type Stop = ();

    fn before_run(&mut self, vcpu: &mut KvmVcpu) {
        if std::mem::take(&mut self.is_pressed) {
            vcpu.nmi().expect("every KVM on x86 supports NMIs");
            println!("monitor: NMI");
        }
    }

    fn outb(&mut self, _port: u16, value: u8) -> Flow<()> {
        println!("guest: {}", char::from(value));
        self.is_pressed = value == b'a';
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

    match run(&mut vcpu, &mut Button::default())? {
        End::Halted(_) => println!("guest: halts"),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
