//! 64-bit long mode: `cargo run -p vmm-vcpu --example long_mode`.
//!
//! The last step, after `protected_mode` and `paging`. Long mode requires paging, with four levels of tables whose entries have
//! 8 bytes (CR4.PAE). Here each entry of the third level maps 2 MiB. EFER.LMA shows that long mode is active.

use vmm_arch::flat::{Mode, Start};
use vmm_arch::layout::BOOT_STACK;
use vmm_kvm::Kvm;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, run};

/// Between the descriptor table at 0x500 and the stack below 0x8ff0.
const ENTRY: u64 = 0x1000;
const CODE: [u8; 16] = [
    0x48, 0xc7, 0xc0, 0x2a, 0x00, 0x00, 0x00, // mov rax, 42
    0x48, 0x89, 0x04, 0x25, 0x00, 0x04, 0x00, 0x00, // mov [0x400], rax
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
    // The descriptor and interrupt tables, and six pages of page tables.
    for table in Mode::Long.tables() {
        println!("{} at {:#x}, {} bytes", table.what, table.gpa, table.bytes.len());
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa))?;
    }
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    let start = Start::new(Mode::Long, ENTRY, BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    let report = match run(&mut vcpu, &mut Empty)? {
        End::Halted(report) => report,
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    };
    let (regs, sregs) = (report.regs, report.sregs);
    println!("cr0 {:#x}, cr3 {:#x}, cr4 {:#x}, efer {:#x}", sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer);
    // PG is bit 31 of CR0, PAE bit 5 of CR4, LMA bit 10 of EFER; CS.L selects 64-bit code.
    assert_eq!((sregs.cr0 >> 31 & 1, sregs.cr4 >> 5 & 1, sregs.efer >> 10 & 1, sregs.cs.l), (1, 1, 1, 1));
    println!("long mode, paging with 8-byte entries, 64-bit code");

    let stored: u64 = ram.memory().read_obj(GuestAddress(0x400))?;
    assert_eq!((regs.rax, stored), (42, 42));
    println!("rax {}, 8 bytes at 0x400: {stored}", regs.rax);
    Ok(())
}
