//! The complete config, merged from file, flags and defaults.

use serde::Serialize;

use crate::{
    affinity::HostCpus, announce::AnnounceVirtio, boot::Boot, conflicts, count::CpuCount, device::Device,
    device_ids, error::ConfigError, expect::Expect, features::CpuFeatures, file::ConfigFile,
    irqchip::IrqchipReason, on_reboot::OnReboot, overrides::Overrides, path::FilePath, sandbox::Sandbox,
    serial::Serial, size::MemorySize, topology::Grouping, transport::Transport, user::User,
};

/// A complete config: all defaults are filled in except those that depend on a flat image, and no path
/// depends on the config file.
///
/// It serializes as an equivalent config file, to be read from the current directory. Paths in the fields of
/// virtio devices, which only their kinds know, remain relative to their original directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// What the guest boots.
    pub boot: Boot,
    /// The guest's memory.
    pub memory: Memory,
    /// The virtual processors.
    pub cpus: Cpus,
    /// Where COM1 is connected.
    pub serial: Serial,
    /// Whether KVM emulates the interrupt controllers, the timer and the local APICs. Without them `hlt` ends
    /// the guest, and there is one processor.
    pub irqchip: bool,
    /// What happens when the guest resets the machine.
    pub on_reboot: OnReboot,
    /// Where the monitor accepts commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<FilePath>,
    /// How a Linux kernel discovers its virtio devices.
    pub announce_virtio: AnnounceVirtio,
    /// The transport of virtio devices.
    pub transport: Transport,
    /// How the monitor confines itself.
    pub sandbox: Sandbox,
    /// The user and the group to which it changes if root has started it.
    #[serde(skip_serializing_if = "User::is_empty")]
    pub user: User,
    /// Additional devices, no two of them at the same port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// The conditions that must hold when the guest halts; only without `irqchip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
}

/// The guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Its size.
    pub size: MemorySize,
    /// Whether it is a memfd.
    pub shared: bool,
}

/// The virtual processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpus {
    /// Their number, the product of the following three numbers.
    pub count: CpuCount,
    /// Threads per core.
    pub threads_per_core: CpuCount,
    /// Cores per socket.
    pub cores_per_socket: CpuCount,
    /// Number of sockets.
    pub sockets: CpuCount,
    /// The host CPUs on which each processor may run; empty if the host decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affinity: Vec<HostCpus>,
    /// Which CPU features the guest sees.
    pub features: CpuFeatures,
}

impl ConfigFile {
    /// Merges the file with the flags: a flag replaces the file's field or adds to its list, and defaults
    /// fill the rest. Relative paths in the file start at its directory, those in flags and in a file read
    /// from a descriptor at the current directory.
    ///
    /// # Errors
    /// Neither names a kernel or a flat image, or fields and flags conflict.
    pub fn merge(self, overrides: Overrides) -> Result<Config, ConfigError> {
        conflicts::check(&self, &overrides)?;
        let Grouping { count, threads_per_core, cores_per_socket, sockets } =
            Grouping::new(&self, &overrides)?;
        conflicts::lists_for_cpus(&self, count)?;
        let irqchip = IrqchipReason::of(&self, &overrides).is_some();
        let is_flat = self.boot.flat.is_some() || overrides.flat.is_some();
        let announce_virtio = self.announce_virtio.unwrap_or_default();
        let transport = self.transport.unwrap_or(match announce_virtio {
            AnnounceVirtio::Acpi if irqchip && !is_flat => Transport::Pci,
            AnnounceVirtio::Acpi | AnnounceVirtio::Cmdline => Transport::Mmio,
        });
        let origin = self.origin.as_deref();
        let directory = &self.directory();

        Ok(Config {
            boot: Boot::new(self.boot.within(directory).replaced(&overrides), origin)?,
            memory: Memory {
                size: overrides.memory.or(self.memory.size).unwrap_or_default(),
                shared: self.memory.shared.unwrap_or_default(),
            },
            cpus: Cpus {
                count,
                threads_per_core,
                cores_per_socket,
                sockets,
                affinity: self.cpus.affinity.unwrap_or_default(),
                features: self.cpus.features.unwrap_or_default(),
            },
            serial: overrides
                .serial
                .or(self.serial.map(|serial| serial.within(directory)))
                .unwrap_or_default(),
            irqchip,
            on_reboot: self.on_reboot.unwrap_or_default(),
            control: overrides.control.or(self.control.map(|path| path.within(directory))),
            announce_virtio,
            transport,
            sandbox: overrides.sandbox.or(self.sandbox).unwrap_or_default(),
            user: User { uid: overrides.uid.or(self.user.uid), gid: overrides.gid.or(self.user.gid) },
            devices: {
                let devices = self.devices.into_iter().chain(overrides.devices).collect();
                device_ids::settle(devices, directory, origin)?
            },
            expect: Expect::replaced(self.expect, overrides.expect),
        })
    }
}
