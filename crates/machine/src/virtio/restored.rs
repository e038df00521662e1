//! The plan of the virtio devices of a machine that is restored.

use vmm_pci::SLOTS;
use vmm_virtio::MMIO_LEN;

use super::{OpenDevice, TransportPlan, VirtioPlan, pci};
use crate::Error;
use crate::plan_state::VirtioPlace;
use crate::same_names::check_names;

/// The plan of a snapshot for these devices, in the order of the config, which is that of the snapshot.
pub(crate) fn restored(devices: &[OpenDevice], saved: Vec<VirtioPlace>) -> Result<Vec<VirtioPlan>, Error> {
    let ids = devices.iter().map(|device| device.id.as_str());
    check_names("devices", saved.iter().map(|place| place.id.as_str()), ids)?;
    check_places(&saved)?;
    let place = |(device, place): (&OpenDevice, VirtioPlace)| {
        let VirtioPlace { id, kind, transport, queues, memory } = place;
        let differs = |what: &str| {
            Err(Error::RestoreDevices {
                field: "devices",
                problem: format!("\"{id}\" {what} in the snapshot"),
            })
        };
        if device.id != id {
            return differs("has another place in the list");
        }
        if device.kind != kind {
            return differs(&format!("is a {kind}"));
        }
        if device.device.queue_sizes() != queues {
            return differs("has other queues");
        }
        let len = memory.as_ref().map(|memory| memory.end - memory.start);
        if device.mapping.as_ref().map(|mapping| mapping.len) != len {
            return differs("is of another length");
        }
        Ok(VirtioPlan {
            id,
            kind: device.kind,
            transport,
            queues,
            memory,
            console: device.console_end.clone(),
        })
    };
    devices.iter().zip(saved).map(place).collect()
}

/// Checks what connecting the devices relies on.
fn check_places(saved: &[VirtioPlace]) -> Result<(), Error> {
    let refused = |place: &VirtioPlace| {
        Err(Error::RestorePlan(format!("device \"{}\" has no possible place", place.id)))
    };
    let mut slots = Vec::new();
    for place in saved {
        let is_possible = match &place.transport {
            TransportPlan::Mmio { registers, .. } => registers.end - registers.start == MMIO_LEN,
            TransportPlan::Pci { slot, bar } => {
                let is_free = (1..SLOTS as u8).contains(slot) && !slots.contains(slot);
                slots.push(*slot);
                is_free && *bar == pci::bar(*slot)
            }
        };
        let is_pci = |place: &VirtioPlace| matches!(place.transport, TransportPlan::Pci { .. });
        if !is_possible || is_pci(place) != is_pci(&saved[0]) {
            return refused(place);
        }
    }
    Ok(())
}
