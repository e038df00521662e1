//! MSI-X: a function's interrupt vectors, each with a message that the guest has chosen (PCI Local Bus 3.0 §6.8.2).

/// Length of a table entry in bytes.
pub const ENTRY_LEN: usize = 16;
/// The most vectors that a function can have.
pub const MAX_VECTORS: usize = 2048;
/// Capability id.
pub const MSIX_CAPABILITY: u8 = 0x11;
/// Message Control: MSI-X is enabled.
pub const CONTROL_ENABLE: u16 = 1 << 15;
/// Message Control: all vectors are masked.
pub const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// Vector Control: the vector is masked.
const VECTOR_MASKED: u32 = 1;

/// A message-signalled interrupt: a write of `data` to `address`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The address; on x86 it selects the local APICs.
    pub address: u64,
    /// The data; on x86 the vector and the delivery mode.
    pub data: u32,
}

/// A vector's entry in the table, and its pending bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    /// Sent when the vector fires.
    pub message: Message,
    /// It sends nothing; an interrupt sets its pending bit instead.
    pub masked: bool,
    /// There was an interrupt while it, or the function, was masked.
    pub pending: bool,
}

/// The state of a function's MSI-X: a plain value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Msix {
    /// The table.
    pub vectors: Vec<Vector>,
    /// MSI-X is enabled.
    pub enabled: bool,
    /// All vectors are masked.
    pub masked: bool,
    /// The function may send messages (COMMAND's Bus Master Enable). Otherwise interrupts set pending bits.
    pub bus_master: bool,
}

impl Msix {
    /// `count` vectors, all masked, and not enabled.
    ///
    /// # Panics
    /// `count` is 0 or exceeds [`MAX_VECTORS`].
    pub fn new(count: usize) -> Self {
        assert!((1..=MAX_VECTORS).contains(&count), "a function has 1 to {MAX_VECTORS} vectors");
        let vector = Vector { message: Message::default(), masked: true, pending: false };
        Self { vectors: vec![vector; count], enabled: false, masked: false, bus_master: false }
    }

    /// Length of the table in bytes.
    pub fn table_len(&self) -> usize {
        self.vectors.len() * ENTRY_LEN
    }

    /// Length of the pending bit array in bytes: whole quad-words.
    pub fn pending_len(&self) -> usize {
        self.vectors.len().div_ceil(64) * 8
    }

    /// The Message Control register.
    pub fn control(&self) -> u16 {
        let flag = |set, bit| if set { bit } else { 0 };
        (self.vectors.len() - 1) as u16
            | flag(self.enabled, CONTROL_ENABLE)
            | flag(self.masked, CONTROL_FUNCTION_MASK)
    }

    /// Sets the writable bits of Message Control. Afterwards [`take_deliverable`](Self::take_deliverable) may have messages.
    pub fn set_control(&mut self, control: u16) {
        self.enabled = control & CONTROL_ENABLE != 0;
        self.masked = control & CONTROL_FUNCTION_MASK != 0;
    }

    /// Interrupts by a vector. Returns the message to send; `None` if the vector is pending instead, MSI-X is off, or there is no such
    /// vector.
    pub fn fire(&mut self, vector: usize) -> Option<Message> {
        if !self.enabled {
            return None;
        }
        let delivers = self.delivers();
        let vector = self.vectors.get_mut(vector)?;
        if !delivers || vector.masked {
            vector.pending = true;
            return None;
        }
        Some(vector.message)
    }

    /// Takes the messages of pending vectors that a change of a mask has made deliverable.
    pub fn take_deliverable(&mut self) -> impl Iterator<Item = Message> + '_ {
        let delivers = self.delivers();
        let deliverable = move |vector: &&mut Vector| delivers && vector.pending && !vector.masked;
        self.vectors.iter_mut().filter(deliverable).map(|vector| {
            vector.pending = false;
            vector.message
        })
    }

    /// Whether [`take_deliverable`](Self::take_deliverable) would return messages.
    pub fn has_deliverable(&self) -> bool {
        self.delivers() && self.vectors.iter().any(|vector| vector.pending && !vector.masked)
    }

    /// The message that an interrupt by a vector would send now. `None` if it would send none, or if there is no such vector.
    pub fn message(&self, vector: usize) -> Option<Message> {
        let vector = self.vectors.get(vector).filter(|vector| self.delivers() && !vector.masked)?;
        Some(vector.message)
    }

    fn delivers(&self) -> bool {
        self.enabled && !self.masked && self.bus_master
    }

    /// Reads the table at `offset`. Accesses other than aligned ones of 4 and 8 bytes read as zeros.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some(at) = aligned(offset, data.len()) else { return };
        for (index, dword) in data.chunks_exact_mut(4).enumerate() {
            let (entry, field) = ((at + index) / 4, (at + index) % 4);
            if let Some(vector) = self.vectors.get(entry) {
                dword.copy_from_slice(&vector.dword(field).to_le_bytes());
            }
        }
    }

    /// Writes the table at `offset`. Accesses other than aligned ones of 4 and 8 bytes are ignored. Afterwards
    /// [`take_deliverable`](Self::take_deliverable) may have messages.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let Some(at) = aligned(offset, data.len()) else { return };
        for (index, dword) in data.chunks_exact(4).enumerate() {
            let (entry, field) = ((at + index) / 4, (at + index) % 4);
            if let Some(vector) = self.vectors.get_mut(entry) {
                vector.set_dword(field, u32::from_le_bytes(dword.try_into().expect("four bytes")));
            }
        }
    }

    /// Reads the pending bit array at `offset`. The guest can't write it.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in data.iter_mut().enumerate() {
            let first = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(at).saturating_mul(8);
            let bit = |bit: usize| {
                let vector = first.checked_add(bit).and_then(|index| self.vectors.get(index));
                u8::from(vector.is_some_and(|vector| vector.pending)) << bit
            };
            *byte = (0..8).map(bit).sum();
        }
    }
}

impl Vector {
    fn dword(&self, field: usize) -> u32 {
        match field {
            0 => self.message.address as u32,
            1 => (self.message.address >> 32) as u32,
            2 => self.message.data,
            _ => u32::from(self.masked),
        }
    }

    fn set_dword(&mut self, field: usize, value: u32) {
        let address = &mut self.message.address;
        match field {
            // The lowest two bits are reserved.
            0 => *address = *address & !0xffff_ffff | u64::from(value & !0b11),
            1 => *address = *address & 0xffff_ffff | u64::from(value) << 32,
            2 => self.message.data = value,
            _ => self.masked = value & VECTOR_MASKED != 0,
        }
    }
}

/// The number of the double-word at `offset`, if an access of `len` bytes there is aligned and has 4 or 8 bytes.
fn aligned(offset: u64, len: usize) -> Option<usize> {
    let is_aligned = matches!(len, 4 | 8) && offset.is_multiple_of(len as u64);
    is_aligned.then(|| usize::try_from(offset / 4).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Message = Message { address: 0xfee0_1000, data: 0x31 };

    /// Two vectors, the second one set up and unmasked.
    fn msix() -> Msix {
        let mut msix = Msix::new(2);
        msix.set_control(CONTROL_ENABLE);
        msix.bus_master = true;
        msix.write_table(16, &MESSAGE.address.to_le_bytes());
        msix.write_table(24, &MESSAGE.data.to_le_bytes());
        msix.write_table(28, &[0; 4]);
        msix
    }

    #[test]
    fn vector_set_up_and_unmasked_delivers_its_message() {
        let mut msix = msix();
        assert_eq!(msix.fire(1), Some(MESSAGE));
        assert_eq!(msix.fire(0), None, "masked after a reset");
        assert_eq!(msix.fire(2), None, "there is none");
        assert_eq!(msix.control(), CONTROL_ENABLE | 1);
    }

    #[test]
    fn vector_that_fires_while_masked_is_delivered_once_after_either_unmasking() {
        let mut msix = msix();
        msix.write_table(28, &[1, 0, 0, 0]);
        assert_eq!((msix.fire(1), msix.fire(1)), (None, None));
        let mut pending = [0; 8];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(msix.take_deliverable().next(), None);
        msix.write_table(28, &[0; 4]);
        assert!(msix.has_deliverable());
        assert_eq!(msix.take_deliverable().collect::<Vec<_>>(), [MESSAGE]);
        assert_eq!(msix.take_deliverable().next(), None);

        msix.set_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        assert_eq!(msix.fire(1), None);
        assert_eq!(msix.take_deliverable().next(), None);
        msix.set_control(CONTROL_ENABLE);
        assert_eq!(msix.take_deliverable().collect::<Vec<_>>(), [MESSAGE]);
    }

    #[test]
    fn message_is_that_of_the_moment_of_delivery() {
        let mut msix = msix();
        msix.write_table(28, &[1, 0, 0, 0]);
        assert_eq!(msix.fire(1), None);
        msix.write_table(24, &[0x42, 0, 0, 0]);
        msix.write_table(28, &[0; 4]);
        assert_eq!(msix.take_deliverable().collect::<Vec<_>>(), [Message { data: 0x42, ..MESSAGE }]);
    }

    #[test]
    fn disabled_nothing_fires_and_nothing_pends() {
        let mut msix = msix();
        msix.set_control(0);
        assert_eq!(msix.fire(1), None);
        msix.set_control(CONTROL_ENABLE);
        assert!(!msix.has_deliverable());
    }

    #[test]
    fn table_reads_as_written_in_double_words() {
        let msix = msix();
        let mut entry = [0; 8];
        msix.read_table(16, &mut entry);
        assert_eq!(u64::from_le_bytes(entry), MESSAGE.address);
        msix.read_table(24, &mut entry);
        assert_eq!(entry, [0x31, 0, 0, 0, 0, 0, 0, 0]);
        msix.read_table(8, &mut entry);
        assert_eq!(entry, [0, 0, 0, 0, 1, 0, 0, 0], "masked");
    }

    #[test]
    fn odd_accesses_read_as_zeros_and_change_nothing() {
        let mut msix = msix();
        let before = msix.clone();
        for (offset, len) in
            [(16, 1), (16, 2), (18, 4), (20, 8), (17, 4), (32, 4), (u64::MAX - 3, 4), (u64::MAX, 8)]
        {
            msix.write_table(offset, &[0xff; 8][..len]);
            let mut data = [0xaa; 8];
            msix.read_table(offset, &mut data[..len]);
            assert_eq!(data[..len], [0; 8][..len], "{len} bytes at {offset}");
        }
        assert_eq!(msix, before);
        let mut data = [0xaa; 8];
        msix.read_pending(u64::MAX - 3, &mut data);
        assert_eq!(data, [0; 8]);
    }
}
