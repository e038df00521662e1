//! Two processors that take turns counting to 1,000: `cargo run -p vmm-vcpu --example smp`.
//!
//! Each vCPU has its own thread. The first starts the second as a PC's firmware does, by INIT and a start-up interrupt (SIPI)
//! through the in-kernel local APIC. In shared memory, the first then counts from even to odd numbers, and the second from odd to
//! even.

use vmm_arch::flat::{Mode, Start};
use vmm_arch::layout::BOOT_STACK;
use vmm_kvm::{Kvm, ReservedPages};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, EventFd, ExitHandler, Flow, VcpuThread};

/// The first processor's code, 32-bit.
const ENTRY: u64 = 0x1000;
const FIRST: [u8; 44] = [
    0xbf, 0x00, 0x03, 0xe0, 0xfe, // mov edi, 0xfee00300: the local APIC's interrupt command register
    0xc7, 0x07, 0x00, 0x45, 0x0c, 0x00, // mov dword [edi], 0xc4500: INIT to all others
    0xc7, 0x07, 0x02, 0x46, 0x0c, 0x00, // mov dword [edi], 0xc4602: SIPI to all others, start at page 2
    0xa1, 0x00, 0x08, 0x00, 0x00, // turn: mov eax, [0x800]
    0x3d, 0xe8, 0x03, 0x00, 0x00, // cmp eax, 1000
    0x73, 0x0c, // jae end
    0xa8, 0x01, // test al, 1
    0x75, 0xf0, // jnz turn
    0xff, 0x05, 0x00, 0x08, 0x00, 0x00, // inc dword [0x800]
    0xeb, 0xe8, // jmp turn
    0xe6, 0xf4, // end: out 0xf4, al
    0xf4, // hlt
];

/// The second processor's code, 16-bit: a SIPI starts it in real mode at the start of a page, with that page in CS.
const SECOND_ENTRY: u64 = 0x2000;
const SECOND: [u8; 25] = [
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0xa1, 0x00, 0x08, // turn: mov ax, [0x800]
    0x3d, 0xe8, 0x03, // cmp ax, 1000
    0x73, 0x0a, // jae end
    0xa8, 0x01, // test al, 1
    0x74, 0xf4, // jz turn
    0xff, 0x06, 0x00, 0x08, // inc word [0x800]
    0xeb, 0xee, // jmp turn
    0xe6, 0xf4, // end: out 0xf4, al
    0xf4, // hlt
];

/// Ends a processor that writes to port 0xf4.
struct Finish;

impl ExitHandler for Finish {
    type Stop = ();

    fn outb(&mut self, port: u16, _value: u8) -> Flow<()> {
        if port == 0xf4 { Flow::Stop(()) } else { Flow::Enter }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let vm = Kvm::open()?.create_vm()?;
    vm.set_reserved_pages(ReservedPages::default())?;
    vm.create_irqchip_and_pit()?;
    let ram = GuestRam::new(&[0..0x1_0000])?;
    ram.memory().write_slice(&FIRST, GuestAddress(ENTRY))?;
    ram.memory().write_slice(&SECOND, GuestAddress(SECOND_ENTRY))?;
    for table in Mode::Protected.tables() {
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa))?;
    }
    vm.add_memory(&ram)?;

    // vCPU 0 is the bootstrap processor; all others wait for INIT.
    let (first, second) = (vm.create_vcpu(0)?, vm.create_vcpu(1)?);
    let (mut regs, mut sregs) = (first.regs()?, first.sregs()?);
    let start = Start::new(Mode::Protected, ENTRY, BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    first.set_sregs(&sregs)?;
    first.set_regs(&regs)?;

    let first = VcpuThread::spawn(0, first, Finish, EventFd::new()?)?;
    let second = VcpuThread::spawn(1, second, Finish, EventFd::new()?)?;
    first.resume();
    second.resume();
    for vcpu in [first, second] {
        let index = vcpu.index();
        match vcpu.join()? {
            End::Asked(()) => println!("vcpu{index} has finished"),
            end => return Err(format!("vcpu{index} ended unexpectedly: {end:?}").into()),
        }
    }
    println!("the count is {}", ram.memory().read_obj::<u32>(GuestAddress(0x800))?);
    Ok(())
}
