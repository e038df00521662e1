//! A function's configuration space: the type 0 header and the capability list (PCI Local Bus 3.0 §6).

use std::ops::Range;

use crate::bar::{BAR_REGISTERS, Bar};

/// Length of a function's configuration space without PCI Express's extension, in bytes.
pub const CONFIG_LEN: usize = 256;

/// The offsets of the COMMAND register.
pub const COMMAND: Range<usize> = 0x04..0x06;
/// COMMAND: the function responds to memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// COMMAND: the function may access memory and send message-signalled interrupts.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// COMMAND: INTx is disabled.
const COMMAND_INTX_DISABLE: u16 = 1 << 10;

const VENDOR_ID: usize = 0x00;
const DEVICE_ID: usize = 0x02;
/// The offset of the STATUS register.
pub const STATUS: usize = 0x06;
/// STATUS, low byte: the function has an interrupt that no message reports.
pub const STATUS_INTERRUPT: u8 = 1 << 3;
const REVISION_ID: usize = 0x08;
const CLASS_CODE: usize = 0x09;
const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
const SUBSYSTEM_ID: usize = 0x2e;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
/// Where capabilities start, after the header.
const FIRST_CAPABILITY: usize = 0x40;
/// STATUS: there is a capability list.
const STATUS_CAPABILITY_LIST: u16 = 1 << 4;

/// The read-only registers of the header that identify a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code: base class, sub-class and programming interface, as in 0x02_00_00 for an Ethernet card.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// The configuration space has no room for a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for a capability of {len} bytes in the configuration space")]
pub struct NoRoom {
    /// Length of the capability, with its header.
    pub len: usize,
}

/// A function's configuration space. A plain value: the bytes, and which of their bits the guest may write.
#[derive(Clone, PartialEq, Eq)]
pub struct PciConfigSpace {
    bytes: [u8; CONFIG_LEN],
    writable: [u8; CONFIG_LEN],
    /// Where the next capability goes.
    free: usize,
    /// Offset of the pointer to the next capability.
    last_pointer: usize,
}

impl PciConfigSpace {
    /// A header of type 0, for a single function, without BARs and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_LEN],
            writable: [0; CONFIG_LEN],
            free: FIRST_CAPABILITY,
            last_pointer: CAPABILITIES,
        };
        space.put(VENDOR_ID, &identity.vendor.to_le_bytes());
        space.put(DEVICE_ID, &identity.device.to_le_bytes());
        space.put(REVISION_ID, &[identity.revision]);
        space.put(CLASS_CODE, &identity.class.to_le_bytes()[..3]);
        space.put(SUBSYSTEM_VENDOR_ID, &identity.subsystem_vendor.to_le_bytes());
        space.put(SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        let command = COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE;
        space.allow(COMMAND.start, &command.to_le_bytes());
        // Scratch space for firmware and operating system.
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Adds a BAR in the registers `index` and `index + 1`, at address 0.
    ///
    /// # Panics
    /// There are no such registers.
    pub fn add_bar(&mut self, index: usize, bar: Bar) {
        assert!(index + 1 < BAR_REGISTERS, "a 64-bit BAR takes two of the {BAR_REGISTERS} registers");
        let at = 0x10 + 4 * index;
        self.put(at, &bar.flags().to_le_bytes());
        self.allow(at, &bar.address_mask().to_le_bytes());
    }

    /// The address in the BAR registers `index` and `index + 1`, whether or not it is decoded.
    pub fn bar_address(&self, index: usize) -> u64 {
        u64::from_le_bytes(self.array(0x10 + 4 * index)) & !0xf
    }

    /// Sets the address in the BAR registers `index` and `index + 1`, as firmware does.
    pub fn set_bar_address(&mut self, index: usize, address: u64) {
        let at = 0x10 + 4 * index;
        let flags = u64::from(self.bytes[at] & 0xf);
        self.put(at, &(address & !0xf | flags).to_le_bytes());
    }

    /// Adds a capability to the list: its id and what follows the pointer to the next one. `writable` has the bits of `body` that
    /// the guest may write, and may be shorter. Returns the offset of the capability.
    ///
    /// # Errors
    /// There is no room. The configuration space is unchanged.
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<usize, NoRoom> {
        let (at, len) = (self.free, 2 + body.len());
        if len > CONFIG_LEN - at {
            return Err(NoRoom { len });
        }
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.allow(at + 2, &writable[..writable.len().min(body.len())]);
        self.bytes[self.last_pointer] = at as u8;
        self.last_pointer = at + 1;
        self.free = (at + len).next_multiple_of(4);
        let status = u16::from_le_bytes(self.array(STATUS)) | STATUS_CAPABILITY_LIST;
        self.put(STATUS, &status.to_le_bytes());
        Ok(at)
    }

    /// The COMMAND register.
    pub fn command(&self) -> u16 {
        u16::from_le_bytes(self.array(COMMAND.start))
    }

    /// The `N` bytes at `at`.
    ///
    /// # Panics
    /// They aren't all inside.
    pub fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("N bytes")
    }

    /// Replaces bytes, writable or not.
    ///
    /// # Panics
    /// They aren't all inside.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Reads `data.len()` bytes at `offset`. What lies past the end reads as zeros: there are no extended capabilities.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.fill(0);
        for (at, byte) in data.iter_mut().enumerate() {
            if let Some(value) = offset.checked_add(at).and_then(|at| self.bytes.get(at)) {
                *byte = *value;
            }
        }
    }

    /// Writes the writable bits of `data.len()` bytes at `offset`, and ignores the rest.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        for (at, value) in data.iter().enumerate() {
            let Some(at) = offset.checked_add(at).filter(|at| *at < CONFIG_LEN) else { return };
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | value & mask;
        }
    }

    fn allow(&mut self, at: usize, bits: &[u8]) {
        self.writable[at..at + bits.len()].copy_from_slice(bits);
    }
}

impl std::fmt::Debug for PciConfigSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = |at| u16::from_le_bytes(self.array(at));
        write!(f, "PciConfigSpace({:04x}:{:04x})", id(VENDOR_ID), id(DEVICE_ID))
    }
}

/// Whether an access of `len` bytes at `offset` touches `registers`.
pub fn touches(offset: usize, len: usize, registers: Range<usize>) -> bool {
    offset < registers.end && registers.start < offset.saturating_add(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity {
        vendor: 0x1af4,
        device: 0x1042,
        revision: 1,
        class: 0x01_00_00,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1042,
    };

    fn read<const N: usize>(space: &PciConfigSpace, at: usize) -> [u8; N] {
        let mut data = [0xaa; N];
        space.read(at, &mut data);
        data
    }

    #[test]
    fn header_has_the_identity_where_linux_looks_for_it() {
        let space = PciConfigSpace::new(IDENTITY);
        assert_eq!(read(&space, 0), [0xf4, 0x1a, 0x42, 0x10]);
        // Revision, interface, sub-class, base class.
        assert_eq!(read(&space, 8), [1, 0, 0, 1]);
        assert_eq!(read(&space, 0x2c), [0xf4, 0x1a, 0x42, 0x10]);
        assert_eq!(read(&space, 0x0e), [0], "type 0, one function");
        assert_eq!(read(&space, 0x34), [0], "no capability");
    }

    #[test]
    fn write_changes_the_writable_bits_alone() {
        let mut space = PciConfigSpace::new(IDENTITY);
        space.write(0, &[0; 4]);
        assert_eq!(read(&space, 0), [0xf4, 0x1a, 0x42, 0x10]);
        space.write(COMMAND.start, &[0xff; 4]);
        assert_eq!(space.command(), 0x0406);
        assert_eq!(read(&space, STATUS), [0, 0]);
    }

    #[test]
    fn bar_written_with_ones_reads_as_its_size() {
        let mut space = PciConfigSpace::new(IDENTITY);
        space.add_bar(0, Bar::new(0x8_0000));
        space.write(0x10, &[0xff; 4]);
        space.write(0x14, &[0xff; 4]);
        assert_eq!(u32::from_le_bytes(read(&space, 0x10)), 0xfff8_0004, "64 bits wide, not prefetchable");
        assert_eq!(u32::from_le_bytes(read(&space, 0x14)), 0xffff_ffff);
        space.set_bar_address(0, 0xc010_0000);
        assert_eq!((space.bar_address(0), read(&space, 0x10)), (0xc010_0000, [4, 0, 0x10, 0xc0]));
    }

    #[test]
    fn capabilities_are_a_list_that_ends() {
        let mut space = PciConfigSpace::new(IDENTITY);
        let first = space.add_capability(0x11, &[1; 10], &[0, 0xc0]).unwrap();
        let second = space.add_capability(0x09, &[2; 14], &[]).unwrap();
        assert_eq!((first, second), (0x40, 0x4c));
        assert_eq!(read(&space, CAPABILITIES), [0x40]);
        assert_eq!(read(&space, 0x40), [0x11, 0x4c, 1, 1]);
        assert_eq!(read(&space, 0x4c), [0x09, 0, 2, 2]);
        assert_eq!(read(&space, STATUS), [0x10, 0]);
        space.write(0x42, &[0xff, 0xff]);
        assert_eq!(read(&space, 0x42), [1, 0xc1]);
    }

    #[test]
    fn capability_without_room_changes_nothing() {
        let mut space = PciConfigSpace::new(IDENTITY);
        space.add_capability(0x09, &[0; 180], &[]).unwrap();
        let before = space.clone();
        assert_eq!(space.add_capability(0x09, &[0; 14], &[]), Err(NoRoom { len: 16 }));
        assert!(space == before);
    }

    #[test]
    fn past_the_end_are_zeros_and_nothing_is_written() {
        let mut space = PciConfigSpace::new(IDENTITY);
        space.write(0x100, &[0xff; 4]);
        space.write(usize::MAX, &[0xff; 4]);
        assert_eq!(read(&space, 0x100), [0; 4]);
        assert_eq!(read(&space, usize::MAX), [0; 4]);
    }
}
