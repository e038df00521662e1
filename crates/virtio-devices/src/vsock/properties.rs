//! The driver's view of the device, common to both implementations (virtio 1.2 §5.10.2, §5.10.4).

use vmm_virtio::ConfigSpace;

/// Index of the event queue.
pub(super) const EVENTQ: usize = 2;
/// The only event is TRANSPORT_RESET, for a restored guest.
pub(super) const EVENTQ_SIZE: u16 = 64;
pub(super) const QUEUE_SIZE: u16 = 256;

/// struct virtio_vsock_config.
pub(super) fn config_space(cid: u32) -> ConfigSpace {
    ConfigSpace::read_only(u64::from(cid).to_le_bytes())
}
