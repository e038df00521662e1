//! The kinds of devices that this program supports.

use vmm_machine::Kinds;

/// All kinds of the workspace's device crates.
pub(crate) const KINDS: Kinds<'static> =
    Kinds { legacy: &[vmm_devices::KINDS], virtio: &[vmm_virtio_devices::KINDS] };
