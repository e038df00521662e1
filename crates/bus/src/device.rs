//! What a device is to the bus, and what an access may ask of the machine.

/// A device with registers, seen from the bus.
///
/// Methods take `&self`: a device locks what it must, for as short as it can, and never across host I/O.
/// vCPU threads call at the same time. Every offset, width and value comes from the guest and is hostile.
pub trait BusDevice: Send + Sync {
    /// Fills `data`, which holds 0xff in every byte when it arrives, from the registers at `offset`.
    ///
    /// `offset` counts bytes from the start of the range that the device was inserted at, and `offset +
    /// data.len()` stays within that range. `data` has 1, 2, 4 or 8 bytes. A device leaves what it doesn't
    /// decode as it is: an unclaimed PC port reads all ones.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// Takes `data` into the registers at `offset`, under the same terms as [`read`](Self::read).
    ///
    /// The access is complete when this returns, whatever the outcome.
    fn write(&self, offset: u64, data: &[u8]) -> Outcome;

    /// Whether a vCPU that an [`Outcome::Hold`] keeps out of the guest must go on waiting. Asked when it is woken, which may
    /// have been for another device's sake.
    fn is_holding(&self) -> bool {
        false
    }
}

/// What a completed write asks of whoever dispatched it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a write may ask for the power to be cut or for the vCPU to be held"]
pub enum Outcome {
    /// Nothing more.
    Done,
    /// The device took the data but has no room for more: don't enter the guest on this vCPU again before
    /// the device's owner wakes it. Back-pressure without loss, without a lock and without a busy loop.
    Hold,
    /// The guest changes the machine's power state.
    Power(Power),
    /// The guest says that it has panicked.
    Panicked,
    /// The guest ends the monitor with this exit code.
    Exit(u8),
}

/// A change of the machine's power state that the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Switch off.
    Off,
    /// Start anew, as the reset button does.
    Reset,
}
