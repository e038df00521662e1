//! Errors of planning, building and running a machine.

use std::io;

use vmm_boot::{FlatContentsError, FlatLoadError, FlatPlanError, LoadError, PlanError, SourceError};
use vmm_memory::vm_memory::GuestMemoryError;

use crate::OpenError;
use crate::platform::{HostCpuError, RegisterConflict};

/// Why a machine can't be planned, built or run. Messages name the object and its value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or the initrd can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The kernel or the initrd doesn't fit the rest of the config.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The flat image doesn't fit the rest of the config.
    #[error(transparent)]
    FlatPlan(#[from] FlatPlanError),
    /// The flat image has no contents at its entry.
    #[error(transparent)]
    FlatContents(#[from] FlatContentsError),
    /// The ACPI tables are too large for their area, or two devices conflict in them.
    #[error("{remedy}{0}", remedy = acpi_remedy(.0))]
    Acpi(#[from] vmm_acpi::Error),
    /// The guest has no RAM for the ACPI tables or the MP table.
    #[error(
        "memory.size: no memory at {gpa:#x} for the tables of the BIOS area; give the guest at least 1 MiB"
    )]
    TablesWrite {
        /// Guest-physical address of the table.
        gpa: u64,
        /// The failed write.
        source: GuestMemoryError,
    },
    /// The config's topology has no processor or too many: a defect, since the config checks it.
    #[error("cpus: no processors, or too many")]
    Topology,
    /// `cpus.features` has an unknown name or a contradiction.
    #[error("{field}: {problem}")]
    CpuFeatures {
        /// JSON path of the name.
        field: String,
        /// The problem, and what to write instead.
        problem: String,
    },
    /// A device has an unknown type.
    #[error("devices[{index}].type: unknown device \"{name}\", {hint}")]
    UnknownDevice {
        /// Index in the config's list.
        index: usize,
        /// The config's value.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// A device can't be opened.
    #[error("devices[{index}]{source}")]
    OpenDevice {
        /// Index in the config's list.
        index: usize,
        /// The device's error.
        source: vmm_virtio::DeviceError,
    },
    /// After a reset: a device's thread has panicked, a defect of the monitor, and the device isn't opened again.
    #[error(
        "devices[{index}]: the thread of this {kind} device has panicked, so the machine can't start again"
    )]
    DevicePanicked {
        /// Index in the config's list.
        index: usize,
        /// The device's kind.
        kind: String,
    },
    /// Two devices, or a device and the serial console, claim the same exclusive resource, such as a MAC address.
    #[error(
        "devices[{index}].{}: {} {} is already used by {}{}; change one of them",
        claim.field, claim.what, claim.value, by.map_or(String::new(), |by| format!("devices[{by}].")), first.field
    )]
    ClaimedTwice {
        /// The second device's index in the config's list.
        index: usize,
        /// The first device's index, which may be the same; `None` for the serial console.
        by: Option<usize>,
        /// The second device's claim.
        claim: Box<vmm_virtio::Claim>,
        /// The first device's claim.
        first: Box<vmm_virtio::Claim>,
    },
    /// Two consoles on standard input and output.
    #[error(
        "devices[{index}].target: standard input and output are already used by {}; choose another target{}",
        by.map_or("serial".to_owned(), |by| format!("devices[{by}]")),
        if by.is_none() { ", or set \"serial\": \"none\"" } else { "" }
    )]
    StdioTaken {
        /// The second device's index in the config's list.
        index: usize,
        /// The first device's index; `None` for the serial console.
        by: Option<usize>,
    },
    /// A virtio device on a machine without interrupt controllers.
    #[error("devices[{index}]: a virtio device needs interrupts; remove it, or \"irqchip\": false")]
    VirtioWithoutIrqchip {
        /// Index in the config's list.
        index: usize,
    },
    /// More virtio devices than interrupts for them.
    #[error("devices: {requested} virtio devices, but interrupts for only {max}; remove some")]
    TooManyDevices {
        /// The config's virtio devices.
        requested: usize,
        /// The available interrupts.
        max: usize,
    },
    /// More virtio devices than slots of the PCI bus.
    #[error("devices: {requested} virtio devices, but the PCI bus has slots for only {max}; remove some")]
    TooManySlots {
        /// The config's virtio devices.
        requested: usize,
        /// The bus's slots without that of the host bridge.
        max: usize,
    },
    /// A PCI slot on a machine without PCI.
    #[error("devices[{index}].slot: with \"transport\": \"mmio\" there are no slots; remove it")]
    SlotWithoutPci {
        /// Index in the config's `devices`.
        index: usize,
    },
    /// A kernel that doesn't look for PCI devices, on a machine with such devices.
    #[error(
        "boot.cmdline: with {word:?} the kernel finds no PCI device, and the virtio devices are there; remove it, or set \
         \"transport\": \"mmio\""
    )]
    PciOff {
        /// The parameter.
        word: String,
    },
    /// More virtio devices on the kernel's command line than interrupts, because the processors' ACPI tables leave no room for an
    /// MP table.
    #[error(
        "devices: {requested} virtio devices on the command line, but with {cpus} processors there is no room for an MP table, and \
         without one there are interrupts for only {max}; reduce either number"
    )]
    NoMpTable {
        /// The config's virtio devices.
        requested: usize,
        /// The available interrupts.
        max: usize,
        /// The machine's processors.
        cpus: u32,
    },
    /// The inputs were opened for another config.
    #[error("the files were opened for another config")]
    OtherInputs,
    /// A legacy device's registers can't be where the config puts them.
    #[error("devices[{index}].{}: {source}", RegisterConflict::FIELD)]
    Registers {
        /// Index in the config's list.
        index: usize,
        /// The conflict.
        source: RegisterConflict,
    },
    /// Two legacy devices have the same interrupt.
    #[error("devices[{index}]: interrupt {gsi} belongs to the {by}; remove one of them")]
    GsiTaken {
        /// Index in the config's list.
        index: usize,
        /// The global system interrupt.
        gsi: u32,
        /// The name of the other device.
        by: String,
    },
    /// A legacy device of the table can't be in any machine: a defect of its kind.
    #[error("legacy device {name}: {problem}")]
    LegacyKind {
        /// The kind's name.
        name: &'static str,
        /// The defect.
        problem: String,
    },
    /// No legacy device of the table has a serial line, which the console needs.
    #[error("no legacy device of the table has a serial line")]
    NoSerialLine,
    /// No legacy device of the table has the fixed hardware that ACPI requires.
    #[error("no legacy device of the table has power management, or none can reset the machine")]
    NoFixedHardware,
    /// `expect.memory` names an address outside RAM.
    #[error(
        "expect.memory[{index}].address: the guest has no memory at {gpa:#x}; change the address or memory.size"
    )]
    ExpectedMemory {
        /// Index in the config's list.
        index: usize,
        /// The guest-physical address.
        gpa: u64,
    },
    /// A file changed between planning and loading.
    #[error("can't load the kernel")]
    Load(#[source] LoadError),
    /// A file changed between planning and loading.
    #[error("can't load the image")]
    LoadFlat(#[source] FlatLoadError),
    /// The guest's RAM exceeds the host's memory and swap.
    #[error("memory.size: {requested_mib} MiB is more than this host has ({host_mib} MiB)")]
    HostMemory {
        /// The config's `memory.size`, in MiB.
        requested_mib: u64,
        /// The host's memory and swap, in MiB.
        host_mib: u64,
    },
    /// The host's KVM supports fewer vCPUs.
    #[error("cpus.count: {requested} is more than this host's KVM supports (at most {max})")]
    HostCpus {
        /// The config's `cpus.count`.
        requested: u32,
        /// KVM's limit (`KVM_CAP_MAX_VCPUS`).
        max: usize,
    },
    /// The host lacks a CPU feature, APIC ids or a processor mode.
    #[error(transparent)]
    HostCpu(#[from] HostCpuError),
    /// A vCPU's thread can't run on a host CPU of its affinity.
    #[error("cpus.affinity[{index}]: this process can't run on CPU {cpu} of the host, only on {allowed}")]
    HostAffinity {
        /// The vCPU's index.
        index: usize,
        /// The host CPU in the config.
        cpu: usize,
        /// The CPUs that this process may use, as ranges.
        allowed: String,
    },
    /// The guest's RAM can't be mapped.
    #[error(transparent)]
    Memory(#[from] vmm_memory::Error),
    /// A file can't be mapped as guest memory.
    #[error(transparent)]
    FileMemory(#[from] vmm_memory::FileMemoryError),
    /// A KVM call failed.
    #[error(transparent)]
    Kvm(#[from] vmm_kvm::Error),
    /// A vCPU failed.
    #[error(transparent)]
    Vcpu(#[from] vmm_vcpu::Error),
    /// The host can't provide a page of a file that the guest sees as memory.
    #[error("the host has no page for the guest's access to a file: {files}")]
    MissingPage {
        /// Which file it may be, and what to do.
        files: String,
    },
    /// The snapshot is of a machine whose config has another value of this field, which a restore can't change.
    #[error("{field}: the snapshot is of a machine with {saved}, and a restore can't change that")]
    RestoreField {
        /// The config's field.
        field: &'static str,
        /// The machine's value.
        saved: String,
    },
    /// The config's devices aren't those of the snapshot.
    #[error("{field}: {problem}")]
    RestoreDevices {
        /// The config's field.
        field: &'static str,
        /// What differs.
        problem: String,
    },
    /// The snapshot's plan contradicts itself.
    #[error("the snapshot's plan is impossible: {0}")]
    RestorePlan(String),
    /// A section of the snapshot is missing, is damaged, or isn't known.
    #[error("the snapshot can't be restored: {0}")]
    RestoreSection(#[from] vmm_snapshot::FormatError),
    /// A device of the snapshot can't be restored.
    #[error("the snapshot can't be restored: {0}")]
    RestoreDevice(#[from] vmm_snapshot::StateError),
    /// KVM refuses the snapshot's state of the VM or of a vCPU.
    #[error("the snapshot can't be restored: {0}")]
    RestoreVm(vmm_kvm::Error),
    /// A console can't be opened.
    #[error(transparent)]
    Console(#[from] OpenError),
    /// Two devices overlap on a bus: a defect of the plan.
    #[error(transparent)]
    Bus(#[from] vmm_bus::Error),
    /// The event loop can't watch a descriptor: the host is out of memory, or of what the user may watch.
    #[error("epoll: {0}{remedy}", remedy = epoll_remedy(.0))]
    Epoll(io::Error),
    /// The event loop failed.
    #[error("event loop: {0}")]
    EventLoop(event_manager::Error),
    /// The terminal can't be made raw.
    #[error("the modes of the terminal at standard input can't be changed")]
    Terminal(#[source] io::Error),
    /// The process can't be confined.
    #[error("sandbox: {0}{remedy}", remedy = vmm_hostio::descriptor_remedy(.0))]
    Confine(io::Error),
    /// A job's thread panicked: a defect of the monitor.
    #[error("a thread of the monitor panicked")]
    JobPanicked,
    /// A system call failed, usually because the host is out of a resource.
    #[error("{what}: {source}")]
    Host {
        /// The call, or what it creates.
        what: &'static str,
        /// The call's error.
        source: io::Error,
    },
}

/// Who can fix an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The user: the config, or a file that it names, is wrong.
    Config,
    /// The host's administrator: the host lacks something.
    Host,
    /// The monitor's developers: a defect.
    Monitor,
}

impl Error {
    /// The JSON path of the field in question, such as `devices[0].format`, for errors whose place in the config's text is worth
    /// showing: those about one of several devices, consoles or list items.
    pub fn field(&self) -> Option<String> {
        Some(match self {
            Self::CpuFeatures { field, .. } => field.clone(),
            Self::HostCpu(error) => error.field()?.to_owned(),
            Self::UnknownDevice { index, .. } => format!("devices[{index}].type"),
            Self::OpenDevice { index, source } => {
                let dot = if source.field.is_empty() { "" } else { "." };
                format!("devices[{index}]{dot}{}", source.field)
            }
            Self::ClaimedTwice { index, claim, .. } => format!("devices[{index}].{}", claim.field),
            Self::StdioTaken { index, .. } => format!("devices[{index}].target"),
            Self::VirtioWithoutIrqchip { index } | Self::GsiTaken { index, .. } => {
                format!("devices[{index}]")
            }
            Self::TooManyDevices { .. } | Self::TooManySlots { .. } | Self::NoMpTable { .. } => {
                "devices".to_owned()
            }
            Self::PciOff { .. } => "boot.cmdline".to_owned(),
            Self::SlotWithoutPci { index } => format!("devices[{index}].slot"),
            Self::Registers { index, .. } => format!("devices[{index}].{}", RegisterConflict::FIELD),
            Self::ExpectedMemory { index, .. } => format!("expect.memory[{index}].address"),
            Self::HostAffinity { index, .. } => format!("cpus.affinity[{index}]"),
            Self::Console(error) => error.field.clone(),
            _ => return None,
        })
    }

    /// Who can fix it.
    pub fn blame(&self) -> Blame {
        use vmm_kvm::Error as Kvm;
        match self {
            Self::Source(_) | Self::Plan(_) | Self::FlatPlan(_) | Self::FlatContents(_) => Blame::Config,
            Self::Console(_) => Blame::Config,
            Self::Load(_) | Self::LoadFlat(_) | Self::Acpi(_) | Self::TablesWrite { .. } => Blame::Config,
            Self::Registers { .. } | Self::GsiTaken { .. } | Self::ExpectedMemory { .. } => Blame::Config,
            Self::RestoreField { .. } | Self::RestoreDevices { .. } | Self::RestorePlan(_) => Blame::Config,
            Self::RestoreSection(_) | Self::RestoreDevice(_) => Blame::Config,
            // What it can't do on this host either.
            Self::RestoreVm(Kvm::NoWallClock) => Blame::Host,
            Self::RestoreVm(_) => Blame::Config,
            Self::Memory(vmm_memory::Error::SharedCopyOnWrite) => Blame::Config,
            Self::Kvm(Kvm::NoWallClock) => Blame::Host,
            Self::HostMemory { .. } | Self::HostCpus { .. } | Self::HostCpu(_) | Self::Memory(_) => {
                Blame::Host
            }
            Self::StdioTaken { .. } | Self::ClaimedTwice { .. } => Blame::Config,
            Self::UnknownDevice { .. } | Self::VirtioWithoutIrqchip { .. } => Blame::Config,
            Self::TooManyDevices { .. } | Self::TooManySlots { .. } | Self::NoMpTable { .. } => Blame::Config,
            Self::PciOff { .. } | Self::SlotWithoutPci { .. } => Blame::Config,
            Self::OpenDevice { source, .. } => match source.blame {
                vmm_virtio::DeviceBlame::Config => Blame::Config,
                vmm_virtio::DeviceBlame::Host => Blame::Host,
            },
            Self::CpuFeatures { .. } => Blame::Config,
            Self::HostAffinity { .. } | Self::Terminal(_) | Self::MissingPage { .. } => Blame::Host,
            Self::Epoll(_) | Self::Confine(_) => Blame::Host,
            Self::Kvm(Kvm::NoDevice | Kvm::NoPermission | Kvm::ApiVersion(_) | Kvm::MissingCapability(_)) => {
                Blame::Host
            }
            _ => Blame::Monitor,
        }
    }
}

/// The limit to raise, if that helps.
fn epoll_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            "; all programs of this user watch too many descriptors: raise /proc/sys/fs/epoll/max_user_watches"
        }
        _ => "",
    }
}

/// The field to change in the config, if that helps.
fn acpi_remedy(error: &vmm_acpi::Error) -> &'static str {
    match error {
        vmm_acpi::Error::NoRoom { .. } | vmm_acpi::Error::TooManyCpus { .. } => {
            "cpus.count: too many processors: "
        }
        _ => "ACPI tables: ",
    }
}

/// Adds the name of the failed call to an [`io::Error`].
pub(crate) trait HostContext<T> {
    fn context(self, what: &'static str) -> Result<T, Error>;
}

impl<T> HostContext<T> for io::Result<T> {
    fn context(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Host { what, source })
    }
}
