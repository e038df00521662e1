//! Exits of string instructions: `cargo run -p vmm-vcpu --example strings`.
//!
//! `rep outsb` writes CX bytes from memory to a port, and `rep insb` reads CX bytes. KVM chooses the number of bytes per exit, so
//! a device must handle any number. Only handlers that override `string_out` and `string_in` see the difference.

use vmm_arch::flat::{Mode, Start};
use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 20] = [
    0xbe, 0x00, 0x11, // mov si, 0x1100
    0xb9, 13, 0, // mov cx, 13
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xf3, 0x6e, // rep outsb
    0xbf, 0x00, 0x12, // mov di, 0x1200
    0xb9, 5, 0, // mov cx, 5
    0xf3, 0x6c, // rep insb
    0xf4, // hlt
];

/// Initial values of the guest's SI and DI.
const SOURCE: GuestAddress = GuestAddress(0x1100);
const DESTINATION: GuestAddress = GuestAddress(0x1200);

/// Accepts all bytes, and returns the alphabet.
struct Port {
    taken: Vec<u8>,
    out_exits: usize,
    alphabet: std::ops::RangeInclusive<u8>,
    in_exits: usize,
    in_elements: usize,
}

impl ExitHandler for Port {
    type Stop = ();

    fn string_out(&mut self, _port: u16, _width: usize, data: &[u8]) -> Flow<()> {
        self.out_exits += 1;
        self.taken.extend(data);
        Flow::Enter
    }

    fn string_in(&mut self, _port: u16, width: usize, data: &mut [u8]) {
        self.in_exits += 1;
        self.in_elements += data.len() / width;
        data.iter_mut().zip(&mut self.alphabet).for_each(|(to, letter)| *to = letter);
    }

    // Called for exits with one element: KVM doesn't report whether the instruction was a string instruction.
    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<()> {
        self.string_out(port, data.len(), data)
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.string_in(port, data.len(), data);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x2000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    ram.memory().write_slice(b"Hello, World!", SOURCE)?;
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    Start::new(Mode::Real, ENTRY, ENTRY).apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    let mut port =
        Port { taken: Vec::new(), out_exits: 0, alphabet: b'a'..=b'z', in_exits: 0, in_elements: 0 };
    match run(&mut vcpu, &mut port)? {
        End::Halted(_) => {}
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    let mut given = [0; 5];
    ram.memory().read_slice(&mut given, DESTINATION)?;
    println!(
        "rep outsb: exits {}, elements {}, {}",
        port.out_exits,
        port.taken.len(),
        port.taken.escape_ascii()
    );
    println!("rep insb: exits {}, elements {}, {}", port.in_exits, port.in_elements, given.escape_ascii());
    Ok(())
}
