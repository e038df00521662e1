//! A VM's clock: the time that its guest reads from kvm-clock.

use kvm_bindings::{KVM_CAP_ADJUST_CLOCK, KVM_CLOCK_REALTIME, kvm_clock_data};
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use super::uapi::{put, take};
use crate::error::Named;
use crate::{Error, Vm};

/// A VM's clock at one moment (KVM api.rst KVM_GET_CLOCK).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClockState(pub(crate) kvm_clock_data);

/// What becomes of the time between saving and restoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockPolicy {
    /// The guest's clocks continue where they stopped. Its wall clock is late by that time.
    Freeze,
    /// The guest's clocks are advanced by that time, according to the host's wall clock.
    Advance,
}

impl State for ClockState {
    const KIND: &'static str = "vm.clock";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        put(fields, &self.0);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        take(fields, "clock").map(Self)
    }
}

impl ClockState {
    /// Nanoseconds of the guest's kvm-clock.
    pub fn nanoseconds(&self) -> u64 {
        self.0.clock
    }

    /// Whether the host's wall clock is included, which [`ClockPolicy::Advance`] needs. KVM has included it since Linux 5.16, if the
    /// host's TSC is stable.
    pub fn has_wall_clock(&self) -> bool {
        self.0.flags & KVM_CLOCK_REALTIME != 0
    }
}

impl Vm {
    /// The VM's clock. For a snapshot, read it as soon as all vCPUs have stopped.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn clock(&self) -> Result<ClockState, Error> {
        self.fd.get_clock().named("KVM_GET_CLOCK").map(ClockState)
    }

    /// Sets the VM's clock. Returns by how many nanoseconds it was advanced: 0 if frozen.
    ///
    /// # Errors
    /// [`Error::NoWallClock`]: the clock can't be advanced. The ioctl failed.
    pub fn set_clock(&self, state: &ClockState, policy: ClockPolicy) -> Result<u64, Error> {
        let knows_wall_clock = || {
            let flags = self.fd.check_extension_raw(KVM_CAP_ADJUST_CLOCK.into());
            flags > 0 && flags as u32 & KVM_CLOCK_REALTIME != 0
        };
        let realtime = match policy {
            ClockPolicy::Freeze => None,
            ClockPolicy::Advance if state.has_wall_clock() && knows_wall_clock() => Some(state.0.realtime),
            ClockPolicy::Advance => return Err(Error::NoWallClock),
        };
        // KVM reads the other flags only from its own answer, and refuses them.
        let flags = if realtime.is_some() { KVM_CLOCK_REALTIME } else { 0 };
        let clock = kvm_clock_data {
            clock: state.0.clock,
            flags,
            realtime: realtime.unwrap_or_default(),
            ..Default::default()
        };
        self.fd.set_clock(&clock).named("KVM_SET_CLOCK")?;
        match policy {
            ClockPolicy::Freeze => Ok(0),
            ClockPolicy::Advance => Ok(self.clock()?.nanoseconds().saturating_sub(state.nanoseconds())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KVM's structure with TSC_STABLE, REALTIME and HOST_TSC.
    fn section() -> Vec<u8> {
        let words = [5_u64, 0xe, 1_700_000_000_000_000_000, 77, 0, 0];
        [&48_u32.to_le_bytes()[..], &words.map(u64::to_le_bytes).concat()].concat()
    }

    #[test]
    fn clock_loaded_is_saved_as_it_was() {
        let bytes = section();
        let clock = ClockState::load(1, &mut FieldReader::new(&bytes)).unwrap();
        assert_eq!((clock.nanoseconds(), clock.has_wall_clock(), clock.0.host_tsc), (5, true, 77));
        let mut fields = FieldWriter::new();
        clock.save(&mut fields);
        assert_eq!(fields.into_bytes(), bytes);
    }

    #[test]
    fn clock_cut_anywhere_is_refused() {
        let bytes = section();
        (0..bytes.len())
            .for_each(|len| assert!(ClockState::load(1, &mut FieldReader::new(&bytes[..len])).is_err()));
    }
}
