//! A device with two memory-mapped registers: `cargo run -p vmm-vcpu --example mmio_device`.
//!
//! No memory slot covers 0xd000_0000, so that a load or store there is an exit, which the call-backs handle.

use vmm_arch::flat::{Mode, Start};
use vmm_arch::layout::BOOT_STACK;
use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const ENTRY: u64 = 0x1000;
const CODE: [u8; 17] = [
    0xbf, 0x00, 0x00, 0x00, 0xd0, // mov edi, 0xd0000000
    0xc7, 0x07, 12, 0, 0, 0, // mov dword [edi], 12
    0x8b, 0x07, // mov eax, [edi]
    0x8b, 0x5f, 0x04, // mov ebx, [edi + 4]
    0xf4, // hlt
];

/// A store of 4 bytes sets the operand, and a load returns its square.
const SQUARE: u64 = 0xd000_0000;
/// A load returns the number of stores so far.
const COUNT: u64 = 0xd000_0004;

/// The device: squares numbers.
#[derive(Default)]
struct Squarer {
    result: u32,
    count: u32,
}

impl ExitHandler for Squarer {
    type Stop = ();

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        let value = match gpa {
            SQUARE => self.result,
            COUNT => self.count,
            _ => u32::MAX,
        };
        println!("read  {gpa:#x}, {} bytes: {value}", data.len());
        // The guest chooses the width. A narrow load returns the low bytes, and a wide one is zero-extended.
        data.fill(0);
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<()> {
        println!("write {gpa:#x}, {} bytes: {data:?}", data.len());
        if let (SQUARE, &[a, b, c, d]) = (gpa, data) {
            let operand = u32::from_le_bytes([a, b, c, d]);
            self.result = operand.wrapping_mul(operand);
            self.count += 1;
        }
        Flow::Enter
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x1_0000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    for table in Mode::Protected.tables() {
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa))?;
    }
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    let start = Start::new(Mode::Protected, ENTRY, BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    match run(&mut vcpu, &mut Squarer::default())? {
        End::Halted(report) => println!("the guest has eax {}, ebx {}", report.regs.rax, report.regs.rbx),
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    }
    Ok(())
}
