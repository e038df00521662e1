//! The hint that a guest has no driver for its devices on PCI.

use tracing::warn;

use crate::machine::Machine;
use crate::run_state::RunState;

/// What has been done about the hint, in the lifetime of the process: whatever the guest does, it is logged once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DriverHint {
    is_awaited: bool,
    is_given: bool,
}

impl DriverHint {
    /// A machine is about to run. Returns whether to call [`give`](Self::give) after a while: it may be long before it ends.
    pub(super) fn must_wait(&mut self, machine: &Machine) -> bool {
        machine.virtio.are_undiscovered_on_pci() && !std::mem::replace(&mut self.is_awaited, true)
    }

    /// Gives the hint if the guest has been started and no driver has used the devices.
    pub(super) fn give(&mut self, machine: &Machine) {
        let is_due = machine.state != RunState::Configured && machine.virtio.are_undiscovered_on_pci();
        if is_due && !std::mem::replace(&mut self.is_given, true) {
            warn!(
                "no driver has used the virtio devices, which are on PCI; for a guest that has virtio_mmio but not virtio_pci, set \
                 \"transport\": \"mmio\""
            );
        }
    }
}
