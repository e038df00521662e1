//! From a plan to a machine: the system calls, in one fixed order.

use std::sync::Arc;
use std::time::Instant;

use tracing::debug;
use vmm_arch::cpuid::{self, Place};
use vmm_arch::topology::{FIRST_X2APIC_ID, Topology};
use vmm_arch::{boot, layout, msr};
use vmm_bus::{Bus, BusDevice, IrqLine, SystemEvent};
use vmm_devices::{
    DebugConsole, DebugExit, I8042, Output, PowerManagement, PseudoSerial, PvPanic, Rtc, Uart,
};
use vmm_kvm::kvm_bindings::kvm_sregs;
use vmm_kvm::{Kvm, KvmVcpu, VcpuState, Vm};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;
use vmm_vcpu::VcpuThreads;

use crate::console::Lines;
use crate::device_kind::DeviceKind;
use crate::diagnostics::Watching;
use crate::error::Tried;
use crate::guest::GuestPlan;
use crate::handler::BusHandler;
use crate::job::Progress;
use crate::machine::Machine;
use crate::parts::Parts;
use crate::run_state::RunState;
use crate::virtio::{self, VirtioDevices};
use crate::{Error, Inputs, Plan, affinity, host_cpu};

impl Machine {
    /// Builds the machine of `plan`, with every vCPU paused before its first instruction. `printed` is what COM1 of the machine
    /// before it has printed.
    ///
    /// # Errors
    /// The host lacks KVM, memory or something else; nothing is left behind then.
    pub(crate) fn build(
        plan: Plan,
        mut inputs: Inputs,
        printed: Option<Arc<Output>>,
        parts: Parts,
        progress: &Progress,
    ) -> Result<(Self, Lines), Error> {
        let kvm = Kvm::open()?;
        check_host(&plan, &kvm)?;
        let vm = create_vm(&plan, &kvm)?;

        let ram = GuestRam::with_backing(&plan.ram, plan.backing)?;
        let load_started = Instant::now();
        load(&plan, &ram, &mut inputs, progress)?;
        let load_time = load_started.elapsed();
        add_memory(&plan, &vm, &ram)?;

        let (ports, mmio) = (Bus::new(), Bus::new());
        let printed = printed.map_or_else(|| Output::new().map(Arc::new), Ok).tried("eventfd of COM1")?;
        let connected = connect_devices(&plan, &vm, &ports, &printed)?;
        let Inputs { files, devices: mut opened } = inputs;
        let lines = Lines {
            serial: plan.serial.clone(),
            uart: connected.uart,
            ports: virtio::take_consoles(&mut opened),
        };
        let virtio = VirtioDevices::connect(&plan.virtio, opened, &vm, &mmio, &ram, parts.news)?;

        let mut watching = Watching::new(parts.diagnostics, parts.lines, parts.is_raw_terminal, &vm)?;
        let created = create_vcpus(&plan, &kvm, &vm)?;
        let vcpus = spawn_vcpus(&plan, created, (&ports, &mmio), &mut watching, &parts.ended)?;
        debug!("machine is built");
        let machine = Self {
            vcpus,
            virtio,
            files,
            printed,
            load_time,
            watching,
            power: connected.power,
            state: RunState::default(),
            started: Instant::now(),
            ram,
            expect: plan.expect,
            _vm: vm,
        };
        Ok((machine, lines))
    }
}

/// The VM, with what KVM emulates of its chipset.
fn create_vm(plan: &Plan, kvm: &Kvm) -> Result<Vm, Error> {
    let vm = kvm.create_vm()?;
    vm.set_reserved_pages(layout::KVM_IDENTITY_MAP, layout::KVM_TSS)?;
    if plan.irqchip {
        vm.create_irqchip_and_pit()?;
    }
    if plan.topology.needs_x2apic() {
        vm.enable_x2apic_ids()?;
    }
    Ok(vm)
}

/// Reads all that the guest starts with into its memory.
fn load(plan: &Plan, ram: &GuestRam, inputs: &mut Inputs, progress: &Progress) -> Result<(), Error> {
    let _step = progress.begin("reading what the guest starts with".to_owned());
    plan.boot.load(ram, inputs)?;
    write_tables(plan, ram)
}

/// Gives the guest its memory. After the load: until the guest runs, KVM needn't follow the changes of the mappings.
fn add_memory(plan: &Plan, vm: &Vm, ram: &GuestRam) -> Result<(), Error> {
    vm.add_memory(ram)?;
    if let GuestPlan::Flat(flat) = &plan.boot
        && let Some(alias) = flat.alias()
    {
        vm.add_read_only_alias(ram, alias.source, alias.gpa)?;
    }
    Ok(())
}

/// Gives each vCPU its thread, paused.
fn spawn_vcpus(
    plan: &Plan,
    created: Vec<KvmVcpu>,
    (ports, mmio): (&Bus, &Bus),
    watching: &mut Watching,
    ended: &EventFd,
) -> Result<VcpuThreads<SystemEvent>, Error> {
    let mut vcpus = VcpuThreads::default();
    for (index, vcpu) in created.into_iter().enumerate() {
        let handler = BusHandler::new(ports.view(), mmio.view());
        let ended = ended.try_clone().tried("eventfd of the vCPUs")?;
        let affinity = plan.affinity.get(index).cloned();
        let begin = move || affinity.map_or(Ok(()), |affinity| affinity.apply());
        vcpus.push(watching.spawn(index as u32, vcpu, handler, ended, begin)?);
    }
    Ok(vcpus)
}

/// Whether KVM took the mode of the processor that it was given. A software KVM may not, and says nothing.
fn check_mode(asked: &kvm_sregs, taken: &kvm_sregs) -> Result<(), Error> {
    let registers =
        [("CR0", asked.cr0, taken.cr0), ("CR4", asked.cr4, taken.cr4), ("EFER", asked.efer, taken.efer)];
    match registers.into_iter().find(|(_, asked, taken)| asked & !taken != 0) {
        Some((register, asked, taken)) => Err(Error::HostMode { register, asked, taken }),
        None => Ok(()),
    }
}

/// Compares the plan with what the host can give, for errors that name the config's field.
fn check_host(plan: &Plan, kvm: &Kvm) -> Result<(), Error> {
    let max = kvm.max_vcpus();
    let asked = plan.topology.count();
    if asked as usize > max {
        return Err(Error::HostCpus { asked, max });
    }
    check_apic_ids(plan.topology, kvm)?;
    affinity::check(&plan.affinity)?;
    let host = nix::sys::sysinfo::sysinfo().map_err(std::io::Error::from).tried("sysinfo")?;
    let host_len = host.ram_total().saturating_add(host.swap_total());
    if plan.ram_len() > host_len {
        return Err(Error::HostMemory { asked_mib: plan.ram_len() >> 20, host_mib: host_len >> 20 });
    }
    Ok(())
}

/// Whether the host's KVM has APIC ids as high as the vCPUs'.
fn check_apic_ids(topology: Topology, kvm: &Kvm) -> Result<(), Error> {
    let limit = if kvm.has_x2apic_ids() { kvm.max_vcpu_id() } else { FIRST_X2APIC_ID as usize };
    match topology.last_apic_id() {
        last if last as usize >= limit => Err(Error::HostApicIds { topology, last, max: limit as u32 - 1 }),
        _ => Ok(()),
    }
}

/// Writes the ACPI tables and the MP table where the kernel searches for them.
fn write_tables(plan: &Plan, ram: &GuestRam) -> Result<(), Error> {
    let acpi = plan.acpi.iter().flat_map(vmm_acpi::Tables::iter).map(|table| (table.gpa, &table.bytes[..]));
    let mp_table = plan.mp_table.iter().map(|table| (table.range().start, table.bytes()));
    for (gpa, bytes) in acpi.chain(mp_table) {
        let written = ram.memory().write_slice(bytes, GuestAddress(gpa));
        written.map_err(|source| Error::TablesWrite { gpa, source })?;
    }
    Ok(())
}

/// The devices that have another side than the guest's.
struct Connected {
    /// Its other side is the console.
    uart: Arc<Uart>,
    /// Its other side is whoever presses the power button.
    power: Option<Arc<PowerManagement>>,
}

/// Puts the planned devices on the bus, and their interrupts at the controllers.
fn connect_devices(plan: &Plan, vm: &Vm, ports: &Bus, printed: &Arc<Output>) -> Result<Connected, Error> {
    let line = || IrqLine::new().tried("eventfd of an interrupt");
    let uart_irq = line()?;
    let uart = Uart::with_output(uart_irq.clone(), Arc::clone(printed)).tried("eventfds of COM1")?;
    let uart = Arc::new(uart);
    let mut power = None;
    for device in &plan.devices {
        let (bus_device, irq): (Arc<dyn BusDevice>, _) = match device.kind {
            DeviceKind::I8042 => (Arc::new(I8042), None),
            DeviceKind::PvPanic => (Arc::new(PvPanic), None),
            DeviceKind::Rtc => (Arc::new(Rtc::default()), None),
            DeviceKind::Uart => (Arc::clone(&uart) as _, Some(uart_irq.clone())),
            DeviceKind::PowerManagement => {
                let sci = line()?;
                let device = Arc::new(PowerManagement::new(sci.clone()));
                power = Some(Arc::clone(&device));
                (device, Some(sci))
            }
            // All that prints does so into one queue, so that the order is the guest's.
            DeviceKind::DebugConsole => (Arc::new(DebugConsole::new(Arc::clone(uart.output()))), None),
            DeviceKind::PseudoSerial => (Arc::new(PseudoSerial::new(Arc::clone(uart.output()))), None),
            DeviceKind::DebugExit => (Arc::new(DebugExit), None),
        };
        ports.insert(device.ports.start, device.ports.end - device.ports.start, bus_device)?;
        if let Some((gsi, irq)) = device.gsi.zip(irq) {
            vm.connect_irq(irq.event(), gsi)?;
        }
    }
    Ok(Connected { uart, power })
}

/// Creates all vCPUs, each with the state of its start.
fn create_vcpus(plan: &Plan, kvm: &Kvm, vm: &Vm) -> Result<Vec<KvmVcpu>, Error> {
    let supported = kvm.supported_cpuid()?;
    let tsc_deadline = kvm.has_tsc_deadline();
    let brand = host_cpu::brand();
    (0..plan.topology.count())
        .map(|index| {
            let place = Place { index, topology: plan.topology };
            // KVM takes a vCPU's id for its APIC id.
            let vcpu = vm.create_vcpu(place.apic_id())?;
            // No model-specific registers: those that aren't set below keep the values that KVM gave them. The TSC must, or the
            // vCPUs' wouldn't be equal.
            let mut state = vcpu.state(&[])?;
            let host = cpuid::Host { tsc_deadline, tsc_khz: state.tsc_khz, brand };
            let shown = plan.features.restrict(cpuid::policy(&supported, place, host));
            state.cpuid = shown.map_err(Error::HostFeatures)?;
            prepare_start(&mut state, plan, place);
            vcpu.set_state(&state)?;
            if index == 0 {
                check_mode(&state.sregs, &vcpu.sregs()?)?;
            }
            Ok(vcpu)
        })
        .collect()
}

/// Changes the state of a new vCPU to the one that it starts with. The first starts at the kernel's entry; the others wait for it to
/// start them, as KVM leaves them.
fn prepare_start(state: &mut VcpuState, plan: &Plan, place: Place) {
    state.msrs = msr::boot();
    boot::init_fpu(&mut state.xsave);
    if let Some(lapic) = &mut state.lapic {
        boot::wire_local_apic(lapic);
        if plan.acpi.is_some() && plan.topology.needs_x2apic() {
            boot::enable_x2apic(&mut state.sregs, lapic, place.apic_id());
        }
    }
    if place.index == 0 {
        plan.boot.apply_to(&mut state.regs, &mut state.sregs);
    }
}
