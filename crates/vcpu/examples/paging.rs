//! 32-bit protected mode with paging: `cargo run -p vmm-vcpu --example paging`.
//!
//! The second step, after `protected_mode`: CR3 points to a page directory, and CR0.PG enables address translation. The
//! directory's 1,024 entries map 4 MiB each to the same physical address. `long_mode` is the last step. Some software KVMs
//! support paging only in long mode.

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
    // The descriptor and interrupt tables, and the page directory.
    for table in Mode::Paged.tables() {
        println!("{} at {:#x}, {} bytes", table.what, table.gpa, table.bytes.len());
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa))?;
    }
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    let start = Start::new(Mode::Paged, ENTRY, BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    vcpu.set_sregs(&sregs)?;
    if vcpu.sregs()?.cr0 != sregs.cr0 {
        return Err("this KVM has no paging outside of long mode: it dropped CR0.PG".into());
    }
    vcpu.set_regs(&regs)?;

    let report = match run(&mut vcpu, &mut Empty)? {
        End::Halted(report) => report,
        end => return Err(format!("the guest ended unexpectedly: {end:?}").into()),
    };
    let (regs, sregs) = (report.regs, report.sregs);
    println!("cr0 {:#x}, cr3 {:#x}, cr4 {:#x}, efer {:#x}", sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer);
    // PE is bit 0 of CR0, PG bit 31; PSE, bit 4 of CR4, allows pages of 4 MiB.
    assert_eq!((sregs.cr0 & 1, sregs.cr0 >> 31 & 1, sregs.cr4 >> 4 & 1, sregs.cs.db), (1, 1, 1, 1));
    println!("protected mode, paging with 4 MiB pages, 32-bit code");
    let entry: u32 = ram.memory().read_obj(GuestAddress(sregs.cr3))?;
    println!(
        "first entry of the page directory {entry:#x}: the processor has set accessed, 0x20, and dirty, 0x40"
    );

    let stored: u32 = ram.memory().read_obj(GuestAddress(0x400))?;
    assert_eq!((regs.rax, stored), (42, 42));
    println!("eax {}, 4 bytes at 0x400: {stored}", regs.rax);
    Ok(())
}
