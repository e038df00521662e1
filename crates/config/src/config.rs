//! The machine that was asked for: the file, the flags and the defaults made one.

use serde::Serialize;

use crate::{
    affinity::HostCpus, announce::AnnounceVirtio, boot::Boot, conflicts, count::CpuCount, device::Device,
    device_ids, error::ConfigError, expect::Expect, features::CpuFeatures, file::ConfigFile,
    irqchip::IrqchipReason, on_reboot::OnReboot, overrides::Overrides, serial::Serial, size::MemorySize,
    topology::Grouping,
};

/// A complete config: nothing is left to be defaulted but what a flat image says itself, and no path depends on a config
/// file.
///
/// It serializes as a config file that says the same, read from the current directory; but paths in the fields of virtio
/// devices, which only their kinds know, stay relative to where they were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// What the guest boots.
    pub boot: Boot,
    /// The guest's memory.
    pub memory: Memory,
    /// The virtual processors.
    pub cpus: Cpus,
    /// Where COM1 goes.
    pub serial: Serial,
    /// Whether KVM emulates the interrupt controllers, the timer and the local APICs. Without them `hlt` ends the guest,
    /// and there is one processor.
    pub irqchip: bool,
    /// What follows when the guest resets its machine.
    pub on_reboot: OnReboot,
    /// How a Linux kernel learns of its virtio devices.
    pub announce_virtio: AnnounceVirtio,
    /// Devices beyond those that every guest has, no two at one port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// What must hold when the guest halts; only without `irqchip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expect>,
}

/// The guest's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// How much.
    pub size: MemorySize,
    /// Whether it is a memfd.
    pub shared: bool,
}

/// The virtual processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cpus {
    /// How many: the product of the three numbers that follow.
    pub count: CpuCount,
    /// How many of them a core has.
    pub threads_per_core: CpuCount,
    /// How many cores a socket has.
    pub cores_per_socket: CpuCount,
    /// How many sockets there are.
    pub sockets: CpuCount,
    /// For each processor the CPUs of the host that it runs on; none of them where the host may choose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affinity: Vec<HostCpus>,
    /// Which CPU features the guest sees.
    pub features: CpuFeatures,
}

impl ConfigFile {
    /// What the file and the flags ask for together: a flag replaces the file's field or adds to its list, and a default fills
    /// what neither gives. Relative paths of the file start at its directory, those of flags and of a file that was read from a
    /// descriptor at the current directory.
    ///
    /// # Errors
    /// If neither names a kernel or a flat image, and for fields and flags that exclude each other.
    pub fn merge(self, overrides: Overrides) -> Result<Config, ConfigError> {
        conflicts::check(&self, &overrides)?;
        let Grouping { count, threads_per_core, cores_per_socket, sockets } =
            Grouping::new(&self, &overrides)?;
        conflicts::lists_for_cpus(&self, count)?;
        let irqchip = IrqchipReason::of(&self, &overrides).is_some();
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
            announce_virtio: self.announce_virtio.unwrap_or_default(),
            devices: {
                let devices = self.devices.into_iter().chain(overrides.devices).collect();
                device_ids::settle(devices, directory, origin)?
            },
            expect: Expect::replaced(self.expect, overrides.expect),
        })
    }
}
