//! 32-bit protected mode without paging: `cargo run -p vmm-vcpu --example protected_mode`.
//!
//! The first step from real mode to long mode. Segment registers select descriptors from a table in memory. With flat segments,
//! which have base 0 and 4 GiB, an offset is a physical address. `paging` and `long_mode` are the next steps.

use vmm_arch::flat::{Mode, Start};
use vmm_arch::layout::BOOT_STACK;
use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, run};

/// Between the descriptor table at 0x500 and the stack below 0x8ff0.
const ENTRY: u64 = 0x1000;
const CODE: [u8; 11] = [
    0xb8, 0x2a, 0x00, 0x00, 0x00, // mov eax, 42
    0xa3, 0x00, 0x04, 0x00, 0x00, // mov [0x400], eax
    0xf4, // hlt
];

/// A machine with only a processor and memory.
struct Empty;

impl ExitHandler for Empty {
    type Stop = ();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    let ram = GuestRam::new(&[0..0x1_0000])?;
    ram.memory().write_slice(&CODE, GuestAddress(ENTRY))?;
    // The descriptor table, and an empty interrupt table.
    for table in Mode::Protected.tables() {
        println!("{} at {:#x}, {} bytes", table.what, table.gpa, table.bytes.len());
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa))?;
    }
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    let start = Start::new(Mode::Protected, ENTRY, BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    let report = match run(&mut vcpu, &mut Empty)? {
        End::Halted(report) => report,
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    };
    let (regs, sregs) = (report.regs, report.sregs);
    println!("cr0 {:#x}, cr3 {:#x}, cr4 {:#x}, efer {:#x}", sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer);
    // PE is bit 0 of CR0, PG bit 31; CS.D selects 32-bit code.
    assert_eq!((sregs.cr0 & 1, sregs.cr0 >> 31 & 1, sregs.cs.db), (1, 0, 1));
    println!("protected mode, no paging, 32-bit code");

    let stored: u32 = ram.memory().read_obj(GuestAddress(0x400))?;
    assert_eq!((regs.rax, stored), (42, 42));
    println!("eax {}, 4 bytes at 0x400: {stored}", regs.rax);
    Ok(())
}
