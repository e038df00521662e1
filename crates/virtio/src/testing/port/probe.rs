//! How a driver finds a function's structures: it walks the capability list, as Linux's virtio_pci_modern_dev does.

use vmm_bus::BusDevice;
use vmm_pci::MSIX_CAPABILITY;

/// The capability pointer in the header.
const CAPABILITIES: u64 = 0x34;
const VENDOR_CAPABILITY: u8 = 0x09;

/// A function's configuration space in memory (ECAM).
pub(crate) struct ConfigAccess<'a> {
    pub(crate) ecam: &'a dyn BusDevice,
    /// Of the function.
    pub(crate) start: u64,
}

impl ConfigAccess<'_> {
    pub(crate) fn read<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.ecam.read(self.start + at, &mut bytes);
        bytes
    }

    pub(crate) fn read_u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at))
    }

    pub(crate) fn read_u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.read(at))
    }
}

/// Where the structures are: offsets in BAR 0 and, of capabilities, in configuration space.
#[derive(Debug, Default)]
pub(crate) struct Structures {
    pub(crate) common: u64,
    pub(crate) isr: u64,
    pub(crate) device: u64,
    pub(crate) device_len: u64,
    pub(crate) notify: u64,
    /// Bytes between the notification registers of two queues.
    pub(crate) multiplier: u64,
    /// VIRTIO_PCI_CAP_PCI_CFG's capability.
    pub(crate) window: u64,
    /// MSI-X's capability.
    pub(crate) msix: u64,
    pub(crate) table: u64,
    pub(crate) pending: u64,
    pub(crate) vectors: usize,
}

impl Structures {
    /// Walks the list.
    ///
    /// # Panics
    /// The list has no end, or a structure lies in another BAR.
    pub(crate) fn find(config: &ConfigAccess<'_>) -> Self {
        let mut found = Self::default();
        let [mut at] = config.read(CAPABILITIES);
        // A capability has at least four bytes.
        for _ in 0..64 {
            if at == 0 {
                return found;
            }
            let place = u64::from(at);
            let [id, next] = config.read(place);
            match id {
                MSIX_CAPABILITY => found.take_msix(config, place),
                VENDOR_CAPABILITY => found.take_structure(config, place),
                _ => {}
            }
            at = next;
        }
        panic!("the capability list has no end");
    }

    fn take_msix(&mut self, config: &ConfigAccess<'_>, at: u64) {
        self.msix = at;
        self.vectors = usize::from(config.read_u16(at + 2) & 0x7ff) + 1;
        let [table, pending] = [4, 8].map(|field| config.read_u32(at + field));
        assert_eq!((table & 7, pending & 7), (0, 0), "they are in BAR 0");
        (self.table, self.pending) = (table.into(), pending.into());
    }

    fn take_structure(&mut self, config: &ConfigAccess<'_>, at: u64) {
        let [kind] = config.read(at + 3);
        let [bar] = config.read(at + 4);
        assert_eq!(bar, 0, "structure {kind} is in BAR 0");
        let (offset, len) = (config.read_u32(at + 8).into(), config.read_u32(at + 12).into());
        match kind {
            1 => self.common = offset,
            2 => (self.notify, self.multiplier) = (offset, config.read_u32(at + 16).into()),
            3 => self.isr = offset,
            4 => (self.device, self.device_len) = (offset, len),
            5 => self.window = at,
            _ => panic!("structure {kind} is unknown"),
        }
    }
}
