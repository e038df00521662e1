//! What a driver sees of the device, whoever carries its data (virtio 1.2 §5.10.2, §5.10.4).

use vmm_virtio::ConfigSpace;

/// The device has no event to tell: TRANSPORT_RESET is for a guest that was moved.
pub(super) const EVENTQ_SIZE: u16 = 64;
pub(super) const QUEUE_SIZE: u16 = 256;

/// struct virtio_vsock_config.
pub(super) fn config_space(cid: u32) -> ConfigSpace {
    ConfigSpace::read_only(u64::from(cid).to_le_bytes())
}
