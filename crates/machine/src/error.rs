//! Why a machine can't be planned, built or run.

use std::io;

use vmm_boot::{FlatContentsError, FlatLoadError, FlatPlanError, LoadError, PlanError, SourceError};
use vmm_memory::vm_memory::GuestMemoryError;

use crate::OpenError;
use crate::platform::{HostCpuError, RegisterConflict};

/// What went wrong, in words that name the thing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel or the initrd can't be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// They don't fit together with the rest of the config.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The flat image doesn't fit together with the rest of the config.
    #[error(transparent)]
    FlatPlan(#[from] FlatPlanError),
    /// The flat image holds nothing where it is started.
    #[error(transparent)]
    FlatContents(#[from] FlatContentsError),
    /// The ACPI tables of so large a machine have no room, or its devices can't be together in them.
    #[error("{remedy}{0}", remedy = acpi_remedy(.0))]
    Acpi(#[from] vmm_acpi::Error),
    /// The guest has no memory for the ACPI tables or the MP table.
    #[error(
        "memory.size: no memory at {gpa:#x} for the tables of the BIOS area; give the guest at least 1 MiB"
    )]
    TablesWrite {
        /// Where.
        gpa: u64,
        /// Why not.
        source: GuestMemoryError,
    },
    /// The config's groups of processors have none: a defect, since it checks them.
    #[error("cpus: no processor at all, or too many")]
    Topology,
    /// The words of `cpus.features` are no policy.
    #[error("{field}: {problem}")]
    CpuFeatures {
        /// Path of the word.
        field: String,
        /// What is wrong with it, and what to write instead.
        problem: String,
    },
    /// A device is of no kind that there is.
    #[error("devices[{index}].type: unknown device \"{name}\", {hint}")]
    UnknownDevice {
        /// Place in the config's list.
        index: usize,
        /// What the config says.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// A device can't be opened.
    #[error("devices[{index}]{source}")]
    OpenDevice {
        /// Place in the config's list.
        index: usize,
        /// Why not.
        source: vmm_virtio::DeviceError,
    },
    /// Two devices have what only one can have.
    #[error(
        "devices[{index}].{}: {} {} is that of devices[{by}].{} already; give one of them another",
        claim.field, claim.what, claim.value, first.field
    )]
    ClaimedTwice {
        /// The second one's place in the config's list.
        index: usize,
        /// The first one's place there, which may be the same.
        by: usize,
        /// What the second one would have.
        claim: Box<vmm_virtio::Claim>,
        /// What the first one has.
        first: Box<vmm_virtio::Claim>,
    },
    /// Two consoles on standard input and output.
    #[error(
        "devices[{index}].target: standard input and output belong to {} already; choose another target{}",
        by.map_or("serial".to_owned(), |by| format!("devices[{by}]")),
        if by.is_none() { ", or set \"serial\": \"none\"" } else { "" }
    )]
    StdioTaken {
        /// The second one's place in the config's list.
        index: usize,
        /// The first one's place there; the serial console if `None`.
        by: Option<usize>,
    },
    /// A virtio device on a machine without interrupt controllers.
    #[error("devices[{index}]: a virtio device needs interrupts; remove it, or \"irqchip\": false")]
    VirtioWithoutIrqchip {
        /// Place in the config's list.
        index: usize,
    },
    /// More virtio devices than interrupts.
    #[error("devices: {asked} virtio devices, but there are interrupts for {max}; remove some")]
    TooManyDevices {
        /// How many the config has.
        asked: usize,
        /// How many there can be.
        max: usize,
    },
    /// More virtio devices on the kernel's command line than interrupts, since so many processors leave no room for an MP table.
    #[error(
        "devices: {asked} virtio devices on the command line, but with {cpus} processors there is no room for an MP table, and \
         without one there are interrupts for {max}; ask for fewer of either"
    )]
    NoMpTable {
        /// How many the config has.
        asked: usize,
        /// How many there can be.
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
        /// Place in the config's list.
        index: usize,
        /// Why not.
        source: RegisterConflict,
    },
    /// A device's interrupt belongs to another one.
    #[error("devices[{index}]: interrupt {gsi} belongs to the {by}; remove one of them")]
    GsiTaken {
        /// Place in the config's list.
        index: usize,
        /// The global system interrupt.
        gsi: u32,
        /// Whose it is.
        by: String,
    },
    /// A legacy device of the table can be in no machine: a defect of its kind.
    #[error("legacy device {name}: {problem}")]
    LegacyKind {
        /// The kind's name.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// No legacy device of the table has a serial line, which a console belongs to.
    #[error("the table of legacy devices has none with a serial line")]
    NoSerialLine,
    /// No legacy device of the table has what ACPI can't do without.
    #[error("the table of legacy devices has none with power management, or none that resets the machine")]
    NoFixedHardware,
    /// Something is expected where no memory is.
    #[error(
        "expect.memory[{index}].address: at {gpa:#x} the guest has no memory; change the address or memory.size"
    )]
    ExpectedMemory {
        /// Place in the config's list.
        index: usize,
        /// The address.
        gpa: u64,
    },
    /// A file changed between planning and loading.
    #[error("kernel can't be loaded")]
    Load(#[source] LoadError),
    /// A file changed between planning and loading.
    #[error("image can't be loaded")]
    LoadFlat(#[source] FlatLoadError),
    /// The host's memory is smaller than the guest's would be.
    #[error("memory.size: {asked_mib} MiB is more than this host has ({host_mib} MiB)")]
    HostMemory {
        /// What the config asks for, in MiB.
        asked_mib: u64,
        /// All the memory and swap of the host, in MiB.
        host_mib: u64,
    },
    /// The host's KVM has fewer vCPUs to give.
    #[error("cpus.count: {asked} is more than this host's KVM gives a machine (at most {max})")]
    HostCpus {
        /// What the config asks for.
        asked: u32,
        /// What there is.
        max: usize,
    },
    /// The host can't give what the guest is to have of a processor.
    #[error(transparent)]
    HostCpu(#[from] HostCpuError),
    /// A vCPU's thread can't run where it should.
    #[error("cpus.affinity[{index}]: this process can't run on CPU {cpu} of the host, only on {allowed}")]
    HostAffinity {
        /// Number of the vCPU.
        index: usize,
        /// What the config asks for.
        cpu: usize,
        /// What there is, as ranges.
        allowed: String,
    },
    /// The host has no room for the guest's memory.
    #[error(transparent)]
    Memory(#[from] vmm_memory::Error),
    /// A file can't be memory of the guest.
    #[error(transparent)]
    FileMemory(#[from] vmm_memory::FileMemoryError),
    /// KVM said no.
    #[error(transparent)]
    Kvm(#[from] vmm_kvm::Error),
    /// A vCPU said no.
    #[error(transparent)]
    Vcpu(#[from] vmm_vcpu::Error),
    /// The console can't be opened.
    #[error(transparent)]
    Console(#[from] OpenError),
    /// Two devices want the same ports: a defect of the plan.
    #[error(transparent)]
    Bus(#[from] vmm_bus::Error),
    /// The event loop failed.
    #[error("event loop: {0}")]
    EventLoop(event_manager::Error),
    /// The terminal can't be made raw.
    #[error("terminal: {0}")]
    Terminal(io::Error),
    /// A defect of ours, on a thread that prepared or ended something.
    #[error("a thread of the monitor panicked")]
    JobPanicked,
    /// The host is out of something.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

/// Who can mend an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Who wrote the config, or chose the files that it names.
    Config,
    /// Who runs the host: it lacks something.
    Host,
    /// We.
    Monitor,
}

impl Error {
    /// The JSON path of the field that it is about, such as `devices[0].format`, if it is about a device, a console or another
    /// thing of which a config can have several: the place in the config's text is worth showing.
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
            Self::TooManyDevices { .. } | Self::NoMpTable { .. } => "devices".to_owned(),
            Self::Registers { index, .. } => format!("devices[{index}].{}", RegisterConflict::FIELD),
            Self::ExpectedMemory { index, .. } => format!("expect.memory[{index}].address"),
            Self::HostAffinity { index, .. } => format!("cpus.affinity[{index}]"),
            Self::Console(error) => error.field.clone(),
            _ => return None,
        })
    }

    /// Who can mend it.
    pub fn blame(&self) -> Blame {
        use vmm_kvm::Error as Kvm;
        match self {
            Self::Source(_) | Self::Plan(_) | Self::FlatPlan(_) | Self::FlatContents(_) => Blame::Config,
            Self::Console(_) => Blame::Config,
            Self::Load(_) | Self::LoadFlat(_) | Self::Acpi(_) | Self::TablesWrite { .. } => Blame::Config,
            Self::Registers { .. } | Self::GsiTaken { .. } | Self::ExpectedMemory { .. } => Blame::Config,
            Self::HostMemory { .. } | Self::HostCpus { .. } | Self::HostCpu(_) | Self::Memory(_) => {
                Blame::Host
            }
            Self::StdioTaken { .. } | Self::ClaimedTwice { .. } => Blame::Config,
            Self::UnknownDevice { .. } | Self::VirtioWithoutIrqchip { .. } => Blame::Config,
            Self::TooManyDevices { .. } | Self::NoMpTable { .. } => Blame::Config,
            Self::OpenDevice { source, .. } => match source.blame {
                vmm_virtio::DeviceBlame::Config => Blame::Config,
                vmm_virtio::DeviceBlame::Host => Blame::Host,
            },
            Self::CpuFeatures { .. } => Blame::Config,
            Self::HostAffinity { .. } => Blame::Host,
            Self::Kvm(Kvm::NoDevice | Kvm::NoPermission | Kvm::ApiVersion(_) | Kvm::MissingCapability(_)) => {
                Blame::Host
            }
            _ => Blame::Monitor,
        }
    }
}

/// What to change in the config, if that helps.
fn acpi_remedy(error: &vmm_acpi::Error) -> &'static str {
    match error {
        vmm_acpi::Error::NoRoom { .. } | vmm_acpi::Error::TooManyCpus { .. } => "cpus.count: ask for fewer: ",
        _ => "ACPI tables: ",
    }
}

/// Names what the host refused.
pub(crate) trait Tried<T> {
    fn tried(self, what: &'static str) -> Result<T, Error>;
}

impl<T> Tried<T> for io::Result<T> {
    fn tried(self, what: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Host { what, source })
    }
}
