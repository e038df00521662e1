//! The devices that a config of this program may have.

use vmm_machine::Kinds;

/// Those of the workspace.
pub(crate) const KINDS: Kinds<'static> =
    Kinds { legacy: &[vmm_devices::KINDS], virtio: &[vmm_virtio_devices::KINDS] };
