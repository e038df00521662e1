//! The kinds of devices that a monitor supports.

use crate::Error;

/// The tables of device kinds. A custom monitor adds tables of its own.
#[derive(Clone, Copy, Debug)]
pub struct Kinds<'a> {
    /// Legacy devices: those that every machine has, and those that a config lists. They take precedence over a virtio device of
    /// the same `type`.
    pub legacy: &'a [&'a [vmm_devices::LegacyEntry]],
    /// Virtio devices: all are listed in a config.
    pub virtio: &'a [&'a [vmm_virtio::KindEntry]],
}

/// The legacy devices of a PC, and no virtio devices: those are in vmm-virtio-devices.
impl Default for Kinds<'_> {
    fn default() -> Self {
        Self { legacy: &[vmm_devices::KINDS], virtio: &[] }
    }
}

impl<'a> Kinds<'a> {
    /// All kinds of legacy devices.
    pub fn legacy(&self) -> impl Iterator<Item = &'a vmm_devices::LegacyEntry> + use<'a> {
        self.legacy.iter().copied().flatten()
    }

    /// All kinds of virtio devices.
    pub fn virtio(&self) -> impl Iterator<Item = &'a vmm_virtio::KindEntry> + use<'a> {
        self.virtio.iter().copied().flatten()
    }

    /// The legacy device with this `type` in a config.
    pub(crate) fn listed_legacy(&self, name: &str) -> Option<&'a vmm_devices::LegacyEntry> {
        self.legacy().find(|kind| kind.listed_as() == Some(name))
    }

    /// The error for a device of unknown `type` at `index` in a config.
    pub(crate) fn unknown(&self, index: usize, name: &str) -> Error {
        let legacy = self.legacy().filter_map(vmm_devices::LegacyEntry::listed_as);
        let known: Vec<&str> = self.virtio().map(|kind| kind.name).chain(legacy).collect();
        Error::UnknownDevice { index, name: name.to_owned(), hint: vmm_config::hint(name, &known) }
    }
}
