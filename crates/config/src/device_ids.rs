//! Ids and slots of virtio devices.

use std::{collections::BTreeMap, path::Path};

use crate::{
    device::Device,
    error::ConfigError,
    value_error::ValueError,
    virtio::{DeviceId, Slot},
};

/// Assigns a unique id and a base directory for paths to every virtio device, and checks that slots are unique.
pub(crate) fn settle(
    mut devices: Vec<Device>,
    directory: &Path,
    origin: Option<&Path>,
) -> Result<Vec<Device>, ConfigError> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut taken: BTreeMap<DeviceId, usize> = BTreeMap::new();
    let mut slots: BTreeMap<Slot, usize> = BTreeMap::new();
    for (index, device) in devices.iter_mut().enumerate() {
        let Device::Virtio(section) = device else { continue };
        section.directory = directory.to_owned();
        let count = counts.entry(section.kind.clone()).or_default();
        let id = section.id.get_or_insert_with(|| DeviceId::numbered(&section.kind, *count));
        *count += 1;
        if let Some(first) = taken.insert(id.clone(), index) {
            let problem = ValueError::IdTaken { id: id.to_string(), first };
            return Err(ConfigError::value(origin, &format!("devices[{index}].id"), &problem));
        }
        if let Some(slot) = section.slot
            && let Some(first) = slots.insert(slot, index)
        {
            let problem = ValueError::SlotTaken { slot: slot.to_string(), first };
            return Err(ConfigError::value(origin, &format!("devices[{index}].slot"), &problem));
        }
    }
    Ok(devices)
}
