//! The host bridge in slot 0.

use crate::bar::BarMove;
use crate::config_space::{Identity, PciConfigSpace};
use crate::root::{Effect, Function};

/// Intel's ids for a virtual host bridge, as in Firecracker and Cloud Hypervisor. Linux needs no driver for it.
const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x0d57,
    revision: 0,
    // Bridge, host.
    class: 0x06_00_00,
    subsystem_vendor: 0,
    subsystem: 0,
};

/// A host bridge without registers of its own.
#[derive(Debug)]
pub struct HostBridge(PciConfigSpace);

impl HostBridge {
    /// The bridge.
    pub fn new() -> Self {
        Self(PciConfigSpace::new(IDENTITY))
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl Function for HostBridge {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    /// It has no writable registers.
    fn write_config(&self, _offset: usize, _data: &[u8]) -> Effect {
        Effect::Done
    }

    fn moved(&self, _made: BarMove) {}
}
