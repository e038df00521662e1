//! How long queues and frames are.

/// As many as the receiving queue of Linux fills with pages for the longest frame, many times over.
pub(super) const QUEUE_SIZE: u16 = 256;
/// The longest frame with its header, in bytes: the longest IP packet, a header of Ethernet's with two VLAN tags, and
/// struct virtio_net_hdr_v1.
pub(super) const FRAME_LEN: usize = 65535 + 14 + 8 + HEADER_LEN;
pub(super) const HEADER_LEN: usize = vmm_hostio::NET_HEADER_LEN;
/// The shortest: a header of Ethernet's, as the kernel wants it.
pub(super) const FRAME_MIN: usize = HEADER_LEN + 14;
