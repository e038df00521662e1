//! What the driver sees of a network card: features, configuration and packet headers (virtio 1.2 §5.1.3,
//! §5.1.4, §5.1.6).

use vmm_virtio::ConfigSpace;

use super::mac::Mac;

/// Feature bits (virtio 1.2 §5.1.3).
pub(super) const F_CSUM: u32 = 0;
pub(super) const F_GUEST_CSUM: u32 = 1;
const F_MTU: u32 = 3;
const F_MAC: u32 = 5;
pub(super) const F_GUEST_TSO4: u32 = 7;
pub(super) const F_GUEST_TSO6: u32 = 8;
pub(super) const F_GUEST_ECN: u32 = 9;
const F_HOST_TSO4: u32 = 11;
const F_HOST_TSO6: u32 = 12;
const F_HOST_ECN: u32 = 13;
pub(super) const F_MRG_RXBUF: u32 = 15;
const F_STATUS: u32 = 16;
const F_CTRL_VQ: u32 = 17;
pub(super) const F_MQ: u32 = 22;
pub(super) const F_GUEST_USO4: u32 = 54;
pub(super) const F_GUEST_USO6: u32 = 55;
const F_HOST_USO: u32 = 56;

/// Linux, include/uapi/linux/if_tun.h.
const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO: u32 = 0x20 | 0x40;

/// Offloads of a TAP since Linux 2.6.27, and since 6.2.
pub(super) const TAP_OFFLOADS: u32 = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
pub(super) const TAP_OFFLOADS_USO: u32 = TAP_OFFLOADS | TUN_F_USO;

/// Offloads of the user backend.
pub(super) const USER_OFFLOADS: u32 = TUN_F_CSUM;

/// Field offsets and values of struct virtio_net_hdr_v1 (virtio 1.2 §5.1.6).
pub(super) const FLAGS: usize = 0;
const GSO_TYPE: usize = 1;
pub(super) const NUM_BUFFERS: usize = 10;
pub(super) const HDR_F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// VIRTIO_NET_S_LINK_UP.
pub(super) const LINK_UP: u8 = 1;
/// Offset of `status`.
const STATUS: usize = 6;

/// The properties of a card that its driver sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetProperties {
    pub(super) mac: Mac,
    pub(super) mtu: Option<u16>,
    pub(super) pairs: u16,
    /// Offloads that the backend supports, as TUN_F_ bits.
    pub(super) offloads: u32,
}

fn bits(features: &[u32]) -> u64 {
    features.iter().fold(0, |all, bit| all | 1 << bit)
}

impl NetProperties {
    pub(super) fn features(&self) -> u64 {
        let when = |is_so: bool, features: &[u32]| if is_so { bits(features) } else { 0 };
        let has = |offload: u32| self.offloads & offload != 0;
        bits(&[F_MAC, F_MRG_RXBUF, F_STATUS])
            | when(self.mtu.is_some(), &[F_MTU])
            | when(self.pairs > 1, &[F_CTRL_VQ, F_MQ])
            | when(has(TUN_F_CSUM), &[F_CSUM, F_GUEST_CSUM])
            | when(has(TUN_F_TSO4), &[F_GUEST_TSO4, F_HOST_TSO4])
            | when(has(TUN_F_TSO6), &[F_GUEST_TSO6, F_HOST_TSO6])
            | when(has(TUN_F_TSO_ECN), &[F_GUEST_ECN, F_HOST_ECN])
            | when(has(TUN_F_USO), &[F_GUEST_USO4, F_GUEST_USO6, F_HOST_USO])
    }

    /// struct virtio_net_config up to `mtu`.
    pub(super) fn space(&self) -> ConfigSpace {
        let mut bytes = [0; 12];
        bytes[..STATUS].copy_from_slice(&self.mac.0);
        bytes[STATUS] = LINK_UP;
        bytes[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        bytes[10..].copy_from_slice(&self.mtu.unwrap_or(0).to_le_bytes());
        ConfigSpace::read_only(bytes)
    }
}

/// Sets the link state. Returns whether it has changed.
pub(super) fn set_link(space: &ConfigSpace, is_up: bool) -> bool {
    let status = if is_up { LINK_UP } else { 0 };
    space.update(|bytes| std::mem::replace(&mut bytes[STATUS], status)) != status
}

/// The offloads that a driver with these features accepts in received frames, as TUN_F_ bits.
pub(super) fn offloads(features: u64) -> u32 {
    let has = |bit: u32| features & 1 << bit != 0;
    // The others require partial checksums (virtio 1.2 §5.1.3.1), and the kernel rejects them without.
    if !has(F_GUEST_CSUM) {
        return 0;
    }
    let when = |is_so: bool, offload: u32| if is_so { offload } else { 0 };
    let (tso4, tso6) = (has(F_GUEST_TSO4), has(F_GUEST_TSO6));
    TUN_F_CSUM
        | when(tso4, TUN_F_TSO4)
        | when(tso6, TUN_F_TSO6)
        | when(has(F_GUEST_ECN) && (tso4 || tso6), TUN_F_TSO_ECN)
        // The kernel supports both or none (Linux, drivers/net/tun.c, set_offload).
        | when(has(F_GUEST_USO4) && has(F_GUEST_USO6), TUN_F_USO)
}

/// Adapts a frame's header from the backend to a driver with these features, for a single buffer. False if
/// the driver doesn't support the frame: it was queued before the negotiation, or its peer isn't a kernel.
pub(super) fn adapt(header: &mut [u8], features: u64) -> bool {
    let has = |bit: u32| features & 1 << bit != 0;
    let is_known = match header[GSO_TYPE] & !GSO_ECN {
        GSO_NONE => true,
        GSO_TCPV4 => has(F_GUEST_TSO4),
        GSO_TCPV6 => has(F_GUEST_TSO6),
        GSO_UDP_L4 => has(F_GUEST_USO4) || has(F_GUEST_USO6),
        _ => false,
    };
    let takes_checksums = has(F_GUEST_CSUM);
    let is_whole = takes_checksums || header[FLAGS] & HDR_F_NEEDS_CSUM == 0;
    if !takes_checksums {
        // virtio 1.2 §5.1.6.4.1: no flags then.
        header[FLAGS] = 0;
    }
    header[NUM_BUFFERS..NUM_BUFFERS + 2].copy_from_slice(&1_u16.to_le_bytes());
    is_known && is_whole
}
