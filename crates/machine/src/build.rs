//! Builds a machine from its plan: the system calls, in a fixed order.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Instant;

use tracing::info;
use vmm_bus::{EventFd, Output, SystemEvent};
use vmm_kvm::{Kvm, KvmVcpu, VCPU_CALLS, VCPU_STATE_CALLS};
use vmm_memory::GuestRam;
use vmm_sandbox::confine_thread;
use vmm_vcpu::VcpuThreads;

use crate::build_error::BuildError;
use crate::console::Lines;
use crate::diagnostics::Observer;
use crate::error::HostContext;
use crate::job::Progress;
use crate::machine::Machine;
use crate::open_host::OpenHost;
use crate::plan_state::PlanState;
use crate::platform::{self, Buses};
use crate::restoring::Restore;
use crate::run_state::RunState;
use crate::step_times::StepTimes;
use crate::supervisor_handles::SupervisorHandles;
use crate::virtio::{GuestSide, VirtioDevices};
use crate::{Error, Inputs, Plan, affinity, legacy};

impl Machine {
    /// Builds the machine of `plan`, with every vCPU paused before its first instruction, or where it was in the snapshot to `restore`.
    /// `printed` is COM1's output queue, kept from the previous machine after a reset.
    ///
    /// # Errors
    /// The host lacks memory or another resource. Only the devices are left.
    pub(crate) fn build(
        plan: Plan,
        (mut inputs, restore): (Inputs, Option<Restore>),
        printed: Option<Arc<Output>>,
        handles: SupervisorHandles,
        progress: &Progress,
    ) -> Result<(Self, Lines), BuildError> {
        let mut virtio = VirtioDevices::opened(std::mem::take(&mut inputs.devices));
        match Self::assemble(plan, (inputs, &mut virtio), (printed, restore), handles, progress) {
            Ok(built) => Ok(built),
            // The buses are gone. No driver has used the devices, so they have nothing to report.
            Err(error) => Err(BuildError { error, devices: virtio.into_open(progress, &channel().0) }),
        }
    }

    /// As [`build`](Self::build), and takes the devices if it succeeds.
    fn assemble(
        plan: Plan,
        (mut inputs, virtio): (Inputs, &mut VirtioDevices),
        (printed, mut restore): (Option<Arc<Output>>, Option<Restore>),
        handles: SupervisorHandles,
        progress: &Progress,
    ) -> Result<(Self, Lines), Error> {
        let OpenHost { kvm, cpu, pagemap, .. } = &*handles.host;
        check_host(&plan, kvm)?;
        let mut times = StepTimes::since(Instant::now());
        let vm = Arc::new(platform::create_vm(&plan, kvm)?);
        times.add("VM");

        let load_started = Instant::now();
        let mut ram = match &restore {
            Some(restore) => restore.ram(&plan, progress)?,
            None => {
                let ram = GuestRam::with_backing(&plan.ram, plan.backing)?;
                load(&plan, &ram, &mut inputs, progress)?;
                ram
            }
        };
        if let Some(pagemap) = pagemap {
            ram = ram.with_pagemap(pagemap.clone());
        }
        let load_time = load_started.elapsed();
        plan.boot.add_memory(&vm, &ram)?;
        times.add("memory");
        // After the memory: KVM_SET_USER_MEMORY_REGION waits several milliseconds for those who may still use the I/O bus that this replaces.
        platform::create_irqchip(&plan, &vm)?;
        times.add("interrupt controllers");

        let plan_state = PlanState::of(&plan, handles.about.directory.clone());
        let buses = Buses::new();
        let printed = printed.map_or_else(|| Output::new().map(Arc::new), Ok).context("eventfd of COM1")?;
        let connected = legacy::connect(&plan.devices, &vm, buses.legacy(), &printed)?;
        let lines =
            Lines { serial: plan.serial.clone(), uart: connected.serial, consoles: virtio.take_consoles() };
        let guest = GuestSide { vm: &vm, buses: &buses, ram: &ram, news: handles.news };
        virtio.connect(&plan.virtio, &guest)?;
        times.add("devices");

        let mut observer = Observer::new(handles.diagnostics, handles.lines, handles.is_raw_terminal, &vm)?;
        let created = match &mut restore {
            Some(restore) => restore.vcpus(&plan, (kvm, *cpu), &vm)?,
            None => platform::create_vcpus(&plan, (kvm, *cpu), &vm)?,
        };
        times.add("vCPUs");
        let is_restored = restore.is_some();
        let memory_file = restore.as_ref().and_then(|restore| restore.name_file(&ram));
        if let Some(restore) = restore {
            restore.devices(&connected.states, &printed, virtio)?;
            times.add("states of devices");
        }
        let vcpus = spawn_vcpus(&plan, created, &buses, &mut observer, &handles.vcpu_ended)?;
        times.add("threads");
        info!("machine built in {times}");
        let machine = Self {
            vcpus,
            virtio: std::mem::take(virtio),
            files: inputs.files,
            printed,
            load_time,
            observer,
            power_button: connected.power_button,
            state: RunState::default(),
            started: Instant::now(),
            _memory_file: memory_file,
            ram,
            expect: plan.expect,
            vm,
            legacy: connected.states,
            plan: plan_state,
            about: handles.about,
            host: handles.host,
            is_restored,
        };
        Ok((machine, lines))
    }
}

/// Loads the kernel or image and the firmware tables into guest memory.
fn load(plan: &Plan, ram: &GuestRam, inputs: &mut Inputs, progress: &Progress) -> Result<(), Error> {
    let _step = progress.begin("reading what the guest starts with".to_owned());
    plan.boot.load(ram, inputs)?;
    plan.tables.write(ram)
}

/// Starts a thread for each vCPU, paused.
fn spawn_vcpus(
    plan: &Plan,
    created: Vec<KvmVcpu>,
    buses: &Buses,
    observer: &mut Observer,
    ended: &EventFd,
) -> Result<VcpuThreads<SystemEvent>, Error> {
    let mut vcpus = VcpuThreads::default();
    for (index, vcpu) in created.into_iter().enumerate() {
        let handler = buses.handler();
        let ended = ended.try_clone().context("eventfd of the vCPUs")?;
        let affinity = plan.affinity.get(index).cloned();
        let begin = move || {
            affinity.map_or(Ok(()), |affinity| affinity.apply())?;
            confine_thread(&format!("vcpu{index}"), &[VCPU_CALLS, VCPU_STATE_CALLS])
        };
        vcpus.push(observer.spawn(index as u32, vcpu, handler, ended, begin)?);
    }
    Ok(vcpus)
}

/// Compares the plan with the host's limits, so that errors name the config's field.
fn check_host(plan: &Plan, kvm: &Kvm) -> Result<(), Error> {
    let max = kvm.max_vcpus();
    let requested = plan.topology.count();
    if requested as usize > max {
        return Err(Error::HostCpus { requested, max });
    }
    platform::check_vcpu_ids(plan.topology, kvm)?;
    affinity::check(&plan.affinity)?;
    let host = nix::sys::sysinfo::sysinfo().map_err(std::io::Error::from).context("sysinfo")?;
    let host_len = host.ram_total().saturating_add(host.swap_total());
    if plan.ram_len() > host_len {
        return Err(Error::HostMemory { requested_mib: plan.ram_len() >> 20, host_mib: host_len >> 20 });
    }
    Ok(())
}
