//! The Linux boot protocol, step by step: `cargo run -p vmm-vcpu --example linux_by_hand BZIMAGE [BYTES]`.
//!
//! Loads a kernel as a boot loader does, and shows the output of its first serial port until it has printed its version or BYTES
//! bytes. Needs a KVM that can run Linux. Source: Linux, Documentation/arch/x86/boot.rst, "32-bit Boot Protocol".

use std::process::ExitCode;

use vmm_arch::flat::{Mode, Start};
use vmm_arch::layout::{BOOT_STACK, CMDLINE, EBDA, HIGH_MEMORY, ZERO_PAGE};
use vmm_kvm::{Kvm, ReservedPages};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_vcpu::{End, ExitHandler, Flow, run};

const COMMAND_LINE: &[u8] = b"console=ttyS0 earlyprintk=serial\0";
const RAM_LEN: u64 = 512 << 20;

/// A minimal 16550 whose transmitter is always empty.
struct Serial {
    /// DLAB of the line control register: port 0x3f8 is the baud rate divisor.
    divisor: bool,
    line: String,
    bytes_left: usize,
}

impl ExitHandler for Serial {
    type Stop = &'static str;

    fn inb(&mut self, port: u16) -> u8 {
        if port == 0x3fd { 0x60 } else { 0xff }
    }

    fn outb(&mut self, port: u16, value: u8) -> Flow<Self::Stop> {
        match port {
            0x3fb => self.divisor = value & 0x80 != 0,
            0x3f8 if !self.divisor => return self.print(char::from(value)),
            _ => {}
        }
        Flow::Enter
    }
}

impl Serial {
    fn print(&mut self, character: char) -> Flow<&'static str> {
        print!("{character}");
        self.line.push(character);
        self.bytes_left = self.bytes_left.saturating_sub(1);
        if self.bytes_left == 0 {
            return Flow::Stop("enough bytes have been printed");
        }
        if character != '\n' {
            return Flow::Enter;
        }
        let line = std::mem::take(&mut self.line);
        if line.contains("Linux version") { Flow::Stop("Linux has printed its version") } else { Flow::Enter }
    }
}

/// The zero page for a bzImage, and the image's protected-mode code.
fn parse(image: &[u8]) -> Option<([u8; 0x1000], &[u8])> {
    // The setup header: its magic number, and its end, which is the target of the short jump at 0x200.
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let header = 0x1f1..0x202 + usize::from(image[0x201]);
    let mut zero_page = [0; 0x1000];
    zero_page[header.clone()].copy_from_slice(image.get(header)?);
    let mut put = |at: usize, bytes: &[u8]| zero_page[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x210, &[0xff]); // type_of_loader: undefined
    put(0x228, &(CMDLINE as u32).to_le_bytes()); // cmd_line_ptr
    put(0x1e8, &[2]); // e820_entries
    for (n, (start, end)) in [(0, EBDA), (HIGH_MEMORY, RAM_LEN)].into_iter().enumerate() {
        let entry = [&start.to_le_bytes()[..], &(end - start).to_le_bytes(), &1_u32.to_le_bytes()].concat();
        put(0x2d0 + entry.len() * n, &entry); // address, length, type RAM
    }
    // The real-mode code at the start is skipped: a boot sector and setup_sects sectors of 512 bytes. 0 means 4.
    let sectors = if image[0x1f1] == 0 { 4 } else { usize::from(image[0x1f1]) };
    Some((zero_page, image.get((1 + sectors) * 512..)?))
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("usage: linux_by_hand BZIMAGE [BYTES]")?;
    let bytes_left = args.next().map_or(Ok(usize::MAX), |bytes| bytes.parse())?;
    let image = std::fs::read(&path)?;
    let (zero_page, code) = parse(&image).ok_or_else(|| format!("{path} is not a bzImage"))?;

    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    vm.set_reserved_pages(ReservedPages::default())?;
    vm.create_irqchip_and_pit()?;
    let ram = GuestRam::new(&[0..RAM_LEN])?;
    ram.memory().write_slice(&zero_page, GuestAddress(ZERO_PAGE))?;
    ram.memory().write_slice(COMMAND_LINE, GuestAddress(CMDLINE))?;
    ram.memory().write_slice(code, GuestAddress(HIGH_MEMORY))?;
    for table in Mode::Protected.tables() {
        ram.memory().write_slice(&table.bytes, GuestAddress(table.gpa))?;
    }
    vm.add_memory(&ram)?;

    let mut vcpu = vm.create_vcpu(0)?;
    // Without CPUID the kernel doesn't find long mode.
    vcpu.set_cpuid(&kvm.supported_cpuid()?)?;
    let (mut regs, mut sregs) = (vcpu.regs()?, vcpu.sregs()?);
    let start = Start::new(Mode::Protected, HIGH_MEMORY, BOOT_STACK);
    start.apply_to(&mut regs, &mut sregs);
    regs.rsi = ZERO_PAGE;
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&regs)?;

    match run(&mut vcpu, &mut Serial { divisor: false, line: String::new(), bytes_left })? {
        End::Asked(reason) => {
            println!("-- {reason}");
            return Ok(ExitCode::SUCCESS);
        }
        End::Crashed(crash) => println!("-- the guest crashed: {}\n{}", crash.cause, crash.report),
        end => println!("-- the guest ended unexpectedly: {end:?}"),
    }
    Ok(ExitCode::FAILURE)
}
