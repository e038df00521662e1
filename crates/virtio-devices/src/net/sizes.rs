//! Sizes of queues and frames.

/// Many times the number of pages that Linux's receive queue needs for the longest frame.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Maximum frame length with its header in bytes: the longest IP packet, an Ethernet header with two VLAN
/// tags, and struct virtio_net_hdr_v1.
pub(super) const FRAME_LEN: usize = 65535 + 14 + 8 + HEADER_LEN;
pub(super) const HEADER_LEN: usize = vmm_hostio::NET_HEADER_LEN;
/// Minimum length: an Ethernet header, which the kernel requires.
pub(super) const FRAME_MIN: usize = HEADER_LEN + 14;
