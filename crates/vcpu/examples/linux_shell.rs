//! From a kernel file to a shell: `cargo run -p vmm-vcpu --example linux_shell -- KERNEL [INITRD]`. `reboot -f` ends it.

use std::io::{self, IsTerminal, Read};
use std::{env, error::Error, sync::Arc, thread};

use vmm_arch::layout;
use vmm_boot::{BootPlan, BootSpec, InitrdFile, KernelFile};
use vmm_bus::{Bus, IrqLine};
use vmm_devices::{I8042, Rtc, Uart};
use vmm_hostio::RawMode;
use vmm_kvm::{Kvm, ReservedPages};
use vmm_memory::GuestRam;
use vmm_vcpu::{BusHandler, VcpuThread};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args_os().skip(1);
    let mut kernel = KernelFile::open(args.next().ok_or("usage: linux_shell KERNEL [INITRD]")?)?;
    let mut initrd = args.next().map(InitrdFile::open).transpose()?;
    let image = kernel.inspect()?;
    let ranges = layout::ram_ranges(512 << 20);
    let initrd_len = initrd.as_ref().map(InitrdFile::len);
    let cmdline = "console=ttyS0 reboot=k panic=-1 quiet";
    let plan = BootPlan::new(&BootSpec { initrd_len, cmdline, ..BootSpec::new(&image, &ranges) })?;
    let ram = GuestRam::new(&ranges)?;
    plan.load(ram.memory(), &mut kernel, initrd.as_mut())?;

    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    vm.set_reserved_pages(ReservedPages::default())?;
    vm.create_irqchip_and_pit()?;
    vm.add_memory(&ram)?;
    let (ports, mmio, irq) = (Bus::new(), Bus::new(), IrqLine::new()?);
    vm.connect_irq(irq.event(), Uart::COM1_GSI)?;
    let uart = Arc::new(Uart::new(irq)?);
    ports.insert(Uart::COM1_PORTS, Arc::clone(&uart))?;
    ports.insert(I8042::PORTS, I8042)?;
    ports.insert(Rtc::PORTS, Rtc::default())?;
    let vcpu = vm.create_boot_vcpu(&kvm, plan.entry())?;
    // One eventfd for what the guest prints and for its end.
    let printed = uart.output().ready();
    let vcpu = VcpuThread::spawn(0, vcpu, BusHandler::new(ports.view(), mmio.view()), printed.try_clone()?)?;

    let raw = io::stdin().is_terminal().then(|| RawMode::enter(io::stdin())).transpose()?;
    let keyboard = Arc::clone(&uart);
    thread::spawn(move || -> io::Result<()> {
        let mut typed = [0; 64];
        while let len @ 1.. = io::stdin().read(&mut typed)? {
            keyboard.send_all(&typed[..len])?;
        }
        Ok(())
    });
    vcpu.resume();
    while !(vcpu.has_ended() && uart.output().is_drained()) {
        printed.wait()?;
        uart.output().write_to(&mut io::stdout(), || vcpu.wake())?;
    }
    drop(raw);
    println!("the guest has ended: {:?}", vcpu.join()?);
    Ok(())
}
