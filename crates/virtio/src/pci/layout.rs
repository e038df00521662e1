//! Where a function's structures lie in its only BAR, and its capabilities, which say so (virtio 1.2 §4.1.4).

use std::ops::Range;

use vmm_pci::{Bar, ENTRY_LEN, Identity, MSIX_CAPABILITY, NoRoom, PciConfigSpace};

/// The BAR's first register.
pub const PCI_BAR: usize = 0;
/// Offsets of its two registers in configuration space.
pub(super) const BAR_REGISTERS: Range<usize> = 0x10..0x18;
/// Its length. Table and pending bits have pages of their own, so that a guest could be given the other pages alone.
pub const PCI_BAR_LEN: u64 = 0x8_0000;
/// Offset in the BAR of the first queue's notification register.
pub const PCI_NOTIFY: u64 = 0x6000;
/// Bytes from one queue's notification register to the next.
pub const PCI_NOTIFY_STRIDE: u64 = 4;

pub(super) const COMMON: Range<u64> = 0x0..0x40;
pub(super) const ISR: Range<u64> = 0x2000..0x2004;
pub(super) const DEVICE: Range<u64> = 0x4000..0x5000;
pub(super) const NOTIFY: Range<u64> = PCI_NOTIFY..0x7000;
const TABLE: u64 = 0x8000;
const PENDING: u64 = 0x4_8000;
/// The most vectors whose table lies before the pending bits, of which the function can have 2048.
const MAX_VECTORS: usize = 2048;

const VENDOR_CAPABILITY: u8 = 0x09;
const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_ISR: u8 = 3;
const CFG_DEVICE: u8 = 4;
const CFG_PCI: u8 = 5;
/// Red Hat, whose vendor ID virtio has.
const VENDOR: u16 = 0x1af4;
/// Added to the virtio device id.
const FIRST_DEVICE: u16 = 0x1040;

/// Offsets in the configuration space that the transport needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities {
    /// Of MSI-X's Message Control.
    pub(super) msix_control: usize,
    /// Of the window's capability, VIRTIO_PCI_CAP_PCI_CFG.
    pub(super) window: usize,
}

/// Virtio device ids (virtio 1.2 §5).
const NET: u32 = 1;
const BLOCK: u32 = 2;
const CONSOLE: u32 = 3;
const VSOCK: u32 = 19;

/// Length of the table of `vectors`, in the BAR.
pub(super) fn table(vectors: usize) -> Range<u64> {
    TABLE..TABLE + (vectors * ENTRY_LEN) as u64
}

/// The pending bits of `vectors`, in the BAR.
pub(super) fn pending(vectors: usize) -> Range<u64> {
    PENDING..PENDING + (vectors.div_ceil(64) * 8) as u64
}

/// The configuration space of a device with this virtio id.
pub(super) fn config_space(id: u32, vectors: usize) -> Result<(PciConfigSpace, Capabilities), NoRoom> {
    debug_assert!(vectors <= MAX_VECTORS);
    let device = FIRST_DEVICE.wrapping_add(id as u16);
    let mut space = PciConfigSpace::new(Identity {
        vendor: VENDOR,
        device,
        // Non-transitional devices have 1 or more.
        revision: 1,
        class: class(id),
        subsystem_vendor: VENDOR,
        subsystem: device,
    });
    space.add_bar(PCI_BAR, Bar::new(PCI_BAR_LEN));
    let mut body = [0; 10];
    body[..2].copy_from_slice(&((vectors - 1) as u16).to_le_bytes());
    body[2..6].copy_from_slice(&(TABLE as u32 | PCI_BAR as u32).to_le_bytes());
    body[6..].copy_from_slice(&(PENDING as u32 | PCI_BAR as u32).to_le_bytes());
    // Enable and Function Mask.
    let msix = space.add_capability(MSIX_CAPABILITY, &body, &[0, 0xc0])?;
    for (kind, at) in [(CFG_COMMON, COMMON), (CFG_ISR, ISR), (CFG_DEVICE, DEVICE)] {
        space.add_capability(VENDOR_CAPABILITY, &structure::<14>(kind, at), &[])?;
    }
    let mut notify = structure::<18>(CFG_NOTIFY, NOTIFY);
    notify[14..].copy_from_slice(&(PCI_NOTIFY_STRIDE as u32).to_le_bytes());
    space.add_capability(VENDOR_CAPABILITY, &notify, &[])?;
    // BAR, offset, length and data are the driver's to write.
    let mut writable = [0; 18];
    writable[2] = 0xff;
    writable[6..].fill(0xff);
    let window = space.add_capability(VENDOR_CAPABILITY, &structure::<18>(CFG_PCI, 0..0), &writable)?;
    Ok((space, Capabilities { msix_control: msix + 2, window }))
}

/// A structure's capability after its id and the pointer to the next: length, type, BAR, id, padding, offset and length.
fn structure<const N: usize>(kind: u8, at: Range<u64>) -> [u8; N] {
    let mut body = [0; N];
    body[0] = N as u8 + 2;
    body[1] = kind;
    body[2] = PCI_BAR as u8;
    body[6..10].copy_from_slice(&(at.start as u32).to_le_bytes());
    body[10..14].copy_from_slice(&((at.end - at.start) as u32).to_le_bytes());
    body
}

/// The class code for a virtio device id (PCI Code and ID Assignment 1.14).
fn class(id: u32) -> u32 {
    match id {
        NET => 0x02_00_00,
        BLOCK => 0x01_80_00,
        CONSOLE => 0x07_80_00,
        VSOCK => 0x02_80_00,
        _ => 0xff_00_00,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_as_linux_walks_them() {
        let (space, capabilities) = config_space(2, 3).unwrap();
        let mut types = Vec::new();
        let mut at = usize::from(space.array::<1>(0x34)[0]);
        while at != 0 {
            let [id, next, len, kind] = space.array(at);
            let offset = u32::from_le_bytes(space.array(at + 8));
            types.push(match id {
                VENDOR_CAPABILITY => (kind, u32::from(len), offset),
                _ => (id, 0, u32::from_le_bytes(space.array(at + 4))),
            });
            at = usize::from(next);
        }
        let expected =
            [(0x11, 0, 0x8000), (1, 16, 0), (3, 16, 0x2000), (4, 16, 0x4000), (2, 20, 0x6000), (5, 20, 0)];
        assert_eq!(types, expected);
        assert_eq!(space.array::<2>(capabilities.msix_control), [2, 0], "three vectors");
        assert_eq!(space.array::<4>(0), [0xf4, 0x1a, 0x42, 0x10]);
    }

    /// By which guests name the device; Linux's drivers go by the ids.
    #[test]
    fn class_says_what_the_device_is() {
        let class = |id| {
            let (space, _) = config_space(id, 1).unwrap();
            let [_, interface, sub, base] = space.array(8);
            [base, sub, interface]
        };
        assert_eq!(class(1), [2, 0, 0], "Ethernet");
        assert_eq!(class(2), [1, 0x80, 0], "other mass storage");
        assert_eq!(class(3), [7, 0x80, 0], "other communication");
        assert_eq!(class(19), [2, 0x80, 0], "other network");
        assert_eq!(class(4), [0xff, 0, 0]);
    }

    #[test]
    fn table_and_pending_bits_don_t_meet_and_end_in_the_bar() {
        assert!(table(MAX_VECTORS).end <= pending(1).start);
        assert!(pending(MAX_VECTORS).end <= PCI_BAR_LEN);
    }
}
