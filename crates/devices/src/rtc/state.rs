//! The real-time clock's state.

use time::Duration;
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use super::{INDEX_MASK, Registers, Rtc, STATUS_A, STATUS_C, STATUS_D, UPDATE_IN_PROGRESS, VALID};
use crate::Stateful;

/// Registers and memory of an [`Rtc`], and its difference to the host's clock. A running clock shows the right time wherever and
/// whenever it is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtcState(Registers);

impl State for RtcState {
    const KIND: &'static str = "dev.rtc";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        let Registers { index, memory, offset, was_reset } = &self.0;
        fields.u8(*index);
        fields.array(memory);
        fields.u64(offset.whole_seconds().cast_unsigned());
        fields.u32(offset.subsec_nanoseconds().cast_unsigned());
        fields.bool(*was_reset);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let (index, memory) = (fields.u8("index")?, fields.array("memory")?);
        let seconds = fields.u64("offset_seconds")?.cast_signed();
        let nanoseconds = fields.u32("offset_nanoseconds")?.cast_signed();
        let registers = Registers {
            index,
            memory,
            offset: offset(seconds, nanoseconds)?,
            was_reset: fields.bool("was_reset")?,
        };
        registers.check()?;
        Ok(Self(registers))
    }
}

/// A duration of seconds and nanoseconds of the same sign.
fn offset(seconds: i64, nanoseconds: i32) -> Result<Duration, StateError> {
    let is_fraction = nanoseconds.unsigned_abs() < 1_000_000_000;
    let has_sign = seconds == 0 || nanoseconds == 0 || (seconds < 0) == (nanoseconds < 0);
    if is_fraction && has_sign {
        return Ok(Duration::new(seconds, nanoseconds));
    }
    Err(StateError::new("offset_nanoseconds", format!("{nanoseconds} with {seconds} s isn't a time")))
}

impl Registers {
    /// Checks what no write of the guest's can result in.
    fn check(&self) -> Result<(), StateError> {
        let refuse = |field, value: u8| Err(StateError::new(field, format!("{value:#x} isn't possible")));
        let [a, c, d] = [STATUS_A, STATUS_C, STATUS_D].map(|status| self.memory[usize::from(status)]);
        match () {
            () if self.index & !INDEX_MASK != 0 => refuse("index", self.index),
            () if a & UPDATE_IN_PROGRESS != 0 => refuse("memory: status A", a),
            () if c != 0 => refuse("memory: status C", c),
            () if d != VALID => refuse("memory: status D", d),
            () => Ok(()),
        }
    }
}

impl Stateful for Rtc {
    type State = RtcState;

    fn save(&self) -> RtcState {
        RtcState(self.registers().clone())
    }

    fn load(&self, state: &RtcState) -> Result<(), StateError> {
        *self.registers() = state.0.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use proptest::prelude::*;
    use time::UtcDateTime;

    use super::*;
    use crate::rtc::{DATA, INDEX};
    use crate::testing::{assert_loads_or_refuses, load, reload, saved};
    use vmm_bus::BusDevice;

    fn at(seconds: i64) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp(seconds).unwrap()
    }

    /// The time at which the guest is saved, and a day later.
    const NOW: i64 = 1_800_000_000;
    const LATER: i64 = NOW + 86_400;

    /// The registers after the way through a section's bytes.
    fn reloaded(registers: Registers) -> Registers {
        let (from, to) = (Rtc { registers: registers.into() }, Rtc::default());
        reload(&from, &to).unwrap();
        to.registers().clone()
    }

    #[test]
    fn rtc_loaded_a_day_later_shows_that_day() {
        let mut clock = Registers::new();
        // Set a century ahead, in a running clock.
        clock.write(crate::rtc::calendar::CENTURY, 0x21, at(NOW));
        let loaded = reloaded(clock.clone());
        let day = |clock: &Registers, now| clock.read(crate::rtc::calendar::DAY_OF_MONTH, at(now));
        assert_eq!(loaded.read(crate::rtc::calendar::CENTURY, at(LATER)), 0x21);
        assert_eq!(day(&loaded, LATER), day(&clock, LATER));
        assert_ne!(day(&loaded, LATER), day(&loaded, NOW));
    }

    #[test]
    fn rtc_with_registers_that_no_guest_can_write_is_refused() {
        let mut bytes = saved(&Rtc::default());
        bytes[1 + usize::from(STATUS_C)] = 0x10;
        let error = load(&Rtc::default(), &bytes).unwrap_err();
        assert_eq!(error.to_string(), "memory: status C: 0x10 isn't possible");
    }

    #[test]
    fn rtc_with_an_offset_of_two_signs_is_refused() {
        let error = offset(-1, 1).unwrap_err().to_string();
        assert_eq!(error, "offset_nanoseconds: 1 with -1 s isn't a time");
        assert!(offset(i64::MAX, 1_000_000_000).is_err());
        assert!(offset(i64::MIN, -999_999_999).is_ok());
    }

    /// Writes to the data register by index, at times a few seconds apart.
    fn writes() -> impl Strategy<Value = Vec<(u8, u8, i64)>> {
        prop::collection::vec((0_u8..128, any::<u8>(), 0_i64..4), 0..60)
    }

    proptest! {
        #[test]
        fn rtc_loaded_reads_and_goes_on_as_the_saved_one(before in writes(), after in writes()) {
            let (mut clock, mut now) = (Registers::new(), NOW);
            for (index, value, passed) in before {
                now += passed;
                clock.write(index, value, at(now));
            }
            let mut loaded = reloaded(clock.clone());
            for (index, value, passed) in after {
                now += passed;
                (0..128).for_each(|index| assert_eq!(loaded.read(index, at(now)), clock.read(index, at(now))));
                clock.write(index, value, at(now));
                loaded.write(index, value, at(now));
            }
            prop_assert_eq!(loaded, clock);
        }

        #[test]
        fn rtc_selected_index_is_saved(index: u8, value in 0_u8..128) {
            let (from, to) = (Rtc::default(), Rtc::default());
            // Memory, which keeps what is written.
            let index = 0x40 | index;
            let _ = from.write(INDEX, &[index]);
            let _ = from.write(DATA, &[value]);
            reload(&from, &to).unwrap();
            let mut read = [0xff];
            to.read(DATA, &mut read);
            prop_assert_eq!(read, [value]);
        }

        #[test]
        fn rtc_of_any_bytes_is_refused_or_loaded(mut bytes in prop::collection::vec(any::<u8>(), 142), valid: bool) {
            if valid {
                bytes[0] &= INDEX_MASK;
                bytes[1 + usize::from(STATUS_A)] &= !UPDATE_IN_PROGRESS;
                bytes[1 + usize::from(STATUS_C)] = 0;
                bytes[1 + usize::from(STATUS_D)] = VALID;
                bytes[137..].fill(0);
            }
            assert_loads_or_refuses(&Rtc::default(), &bytes);
            // Whatever the offset is, reading doesn't panic.
            let rtc = Rtc::default();
            if load(&rtc, &bytes).is_ok() {
                (0..128).for_each(|index| _ = rtc.registers().read(index, at(NOW)));
                (0..128).for_each(|index| rtc.registers().write(index, 1, at(NOW)));
            }
        }
    }

    #[test]
    fn rtc_cut_anywhere_is_refused() {
        let bytes = saved(&Rtc::default());
        assert_eq!(NonZero::new(bytes.len()), NonZero::new(142));
        (0..bytes.len()).for_each(|len| assert!(load(&Rtc::default(), &bytes[..len]).is_err()));
    }
}
