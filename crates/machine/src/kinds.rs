//! The kinds of devices that a monitor knows.

use crate::Error;

/// The tables from which a machine's devices are made. A monitor of one's own adds tables of its own kinds.
#[derive(Clone, Copy, Debug)]
pub struct Kinds<'a> {
    /// Devices with ports: those that every machine has, and those that a config lists. A `type` that virtio devices have, too, is
    /// that of a device from here.
    pub legacy: &'a [&'a [vmm_devices::LegacyEntry]],
    /// Virtio devices.
    pub virtio: &'a [&'a [vmm_virtio::KindEntry]],
}

/// The legacy devices of a PC, and no virtio devices; vmm-virtio-devices has some.
impl Default for Kinds<'_> {
    fn default() -> Self {
        Self { legacy: &[vmm_devices::KINDS], virtio: &[] }
    }
}

impl<'a> Kinds<'a> {
    /// Every kind of legacy device.
    pub fn legacy(&self) -> impl Iterator<Item = &'a vmm_devices::LegacyEntry> + use<'a> {
        self.legacy.iter().copied().flatten()
    }

    /// Every kind of virtio device.
    pub fn virtio(&self) -> impl Iterator<Item = &'a vmm_virtio::KindEntry> + use<'a> {
        self.virtio.iter().copied().flatten()
    }

    /// The legacy device that a config lists by this `type`.
    pub(crate) fn listed_legacy(&self, name: &str) -> Option<&'a vmm_devices::LegacyEntry> {
        self.legacy().find(|kind| kind.listed_as() == Some(name))
    }

    /// The device at this place of a config is of a `type` that there isn't.
    pub(crate) fn unknown(&self, index: usize, name: &str) -> Error {
        let legacy = self.legacy().filter_map(vmm_devices::LegacyEntry::listed_as);
        let known: Vec<&str> = self.virtio().map(|kind| kind.name).chain(legacy).collect();
        Error::UnknownDevice { index, name: name.to_owned(), hint: vmm_config::hint(name, &known) }
    }
}
