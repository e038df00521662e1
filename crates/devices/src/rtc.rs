//! The CMOS real-time clock and memory (Motorola MC146818A), driven by the host's clock.
//!
//! ```text
//!            SET in status B, or the divider held in reset by status A
//!   running -----------------------------------------------------------> halted
//!      ^       the time registers keep their values, and can be written    |
//!      |                                                                   |
//!      +-------------------------------------------------------------------+
//!          both cleared: the clock continues from the time registers
//! ```

mod calendar;
mod state;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use time::{Duration, OffsetDateTime, UtcDateTime};
use vmm_acpi::io_device;
use vmm_bus::{BusDevice, Outcome};
use vmm_config::NoFields;

use crate::{AcpiParts, BuiltDevice, LegacyKind, Place, Presence, Wiring};
use calendar::{Format, Memory};
pub use state::RtcState;

/// Offset of the index register (port 0x70) and the data register (port 0x71).
const INDEX: u64 = 0;
const DATA: u64 = 1;
/// Bit 7 of a write to the index port masks NMI on a PC and isn't part of the index.
const INDEX_MASK: u8 = 0x7f;

/// Indices of the status registers (MC146818A, figure 9).
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;

/// Status A, bit 7: update in progress. Always clear, since each read takes the time anew. While the bit is set, Linux's rtc_cmos
/// waits a second, which takes 4.5 s in a nested guest.
const UPDATE_IN_PROGRESS: u8 = 0x80;
/// Status A, bits 6 and 5: if both are set, the divider is held in reset and the clock is halted.
const DIVIDER_RESET: u8 = 0x60;
/// Initial value of status A: 32.768 kHz time base, 1024 Hz periodic rate.
const TIME_BASE: u8 = 0x26;
/// Status B, bit 7: the clock is halted, so that the time registers can be written.
const SET: u8 = 0x80;
/// Status D, bit 7: the battery is good, and time and memory are valid.
const VALID: u8 = 0x80;
/// The first update comes half a second after the divider is released, in nanoseconds (MC146818A, "Divider Control").
const HALF_A_SECOND: u32 = 500_000_000;

/// A real-time clock that starts with the host's time, in UTC.
///
/// When a guest sets the clock, the device keeps the difference to the host's clock, which isn't changed. Status B selects BCD or
/// binary, and 12 or 24 hours. Setting an invalid time, such as February 31, has no effect. The alarm registers and the 114 bytes
/// of memory keep what is written to them. All state is lost with the device. There is no interrupt: alarms don't fire, and
/// status C reads as 0.
#[derive(Debug)]
pub struct Rtc {
    registers: Mutex<Registers>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Registers {
    index: u8,
    /// The time and date bytes are valid only while the clock is halted; a running clock computes them for each read.
    memory: Memory,
    /// The clock's time minus the host's. A copy of the time would drift, and a separate clock would need a timer.
    offset: Duration,
    /// Whether the divider has been reset since the clock was halted.
    was_reset: bool,
}

impl Rtc {
    /// A PC's ports for it: the index register and the data register.
    pub const PORTS: Range<u64> = 0x70..0x72;

    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().expect("no panic while it is held")
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self { registers: Mutex::new(Registers::new()) }
    }
}

impl LegacyKind for Rtc {
    const NAME: &'static str = "real-time clock";
    const PRESENCE: Presence = Presence::Always;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(Self::PORTS)
    }

    /// Without the index of the century (ACPI 6.5 table 5.9, CENTURY), Linux takes years from 70 on for 1970 and later.
    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.rtc = Some(vmm_acpi::Rtc { century: calendar::CENTURY });
        acpi.devices.push(io_device("RTC0", "PNP0B00", 0, [place.ports.clone()], None)?);
        Ok(())
    }

    fn build(_config: &NoFields, _wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        let device = Arc::new(Self::default());
        Ok(BuiltDevice::new(Arc::clone(&device)).with_state(device))
    }
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // On a PC the index can't be read back, and only accesses of one byte are decoded.
        if let (DATA, [value]) = (offset, data) {
            let registers = self.registers();
            *value = registers.read(registers.index, host_time());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let mut registers = self.registers();
        match (offset, data) {
            (INDEX, [index]) => registers.index = index & INDEX_MASK,
            (DATA, [value]) => {
                let index = registers.index;
                registers.write(index, *value, host_time());
            }
            _ => {}
        }
        Outcome::Done
    }
}

fn host_time() -> UtcDateTime {
    OffsetDateTime::from(SystemTime::now()).to_utc()
}

impl Registers {
    fn new() -> Self {
        let mut memory = [0; 128];
        memory[usize::from(STATUS_A)] = TIME_BASE;
        memory[usize::from(STATUS_B)] = Format::HOURS_24;
        memory[usize::from(STATUS_D)] = VALID;
        Self { index: 0, memory, offset: Duration::ZERO, was_reset: false }
    }

    /// The value of register `index` at the host's time `now`.
    fn read(&self, index: u8, now: UtcDateTime) -> u8 {
        let at = usize::from(index & INDEX_MASK);
        if !calendar::is_time(index) || self.is_halted() {
            return self.memory[at];
        }
        let mut memory = self.memory;
        self.format().encode(self.time(now), &mut memory);
        memory[at]
    }

    fn write(&mut self, index: u8, value: u8, now: UtcDateTime) {
        let at = usize::from(index & INDEX_MASK);
        let was_halted = self.is_halted();
        if !was_halted {
            self.store_time(now);
        }
        match index {
            STATUS_A => {
                self.memory[at] = value & !UPDATE_IN_PROGRESS;
                self.was_reset |= self.is_reset();
            }
            STATUS_C | STATUS_D => {}
            _ => self.memory[at] = value,
        }
        // A time register that is written while the clock runs takes effect at once.
        let sets_time = calendar::is_time(index);
        if !self.is_halted() && (was_halted || sets_time) {
            self.start(now);
        }
    }

    fn format(&self) -> Format {
        Format(self.memory[usize::from(STATUS_B)])
    }

    fn is_reset(&self) -> bool {
        self.memory[usize::from(STATUS_A)] & DIVIDER_RESET == DIVIDER_RESET
    }

    /// Whether the clock is halted.
    fn is_halted(&self) -> bool {
        self.memory[usize::from(STATUS_B)] & SET != 0 || self.is_reset()
    }

    /// The time of a running clock. If it exceeds the range of the type, the host's time.
    fn time(&self, now: UtcDateTime) -> UtcDateTime {
        now.checked_add(self.offset).unwrap_or(now)
    }

    /// Stores the time of a running clock in the time registers.
    fn store_time(&mut self, now: UtcDateTime) {
        self.format().encode(self.time(now), &mut self.memory);
    }

    /// Runs the clock from the time in the registers. The fraction of the second is the running clock's, or half a second after
    /// a reset of the divider.
    fn start(&mut self, now: UtcDateTime) {
        let running = self.time(now).nanosecond();
        let nanosecond = if std::mem::take(&mut self.was_reset) { HALF_A_SECOND } else { running };
        let set = self.format().decode(&self.memory);
        if let Some(Ok(time)) = set.map(|time| time.replace_nanosecond(nanosecond)) {
            self.offset = time - now;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{Date, Month, Time};

    use super::calendar::{DAY_OF_MONTH, DAY_OF_WEEK, HOURS, MINUTES, MONTH, SECONDS, YEAR};
    use super::*;

    /// A Friday, at a quarter of a second.
    fn now() -> UtcDateTime {
        let date = Date::from_calendar_date(2026, Month::November, 20).unwrap();
        UtcDateTime::new(date, Time::from_hms_milli(23, 59, 7, 250).unwrap())
    }

    fn later(milliseconds: i64) -> UtcDateTime {
        now() + Duration::milliseconds(milliseconds)
    }

    fn time_of_day(clock: &Registers, at: UtcDateTime) -> [u8; 3] {
        [HOURS, MINUTES, SECONDS].map(|index| clock.read(index, at))
    }

    fn date(clock: &Registers, at: UtcDateTime) -> [u8; 4] {
        [calendar::CENTURY, YEAR, MONTH, DAY_OF_MONTH].map(|index| clock.read(index, at))
    }

    /// Sets the clock as Linux does (drivers/rtc/rtc-mc146818-lib.c, mc146818_set_time), to 2031-02-03 04:05:06.
    fn set_as_linux(clock: &mut Registers, at: UtcDateTime) {
        let (control, frequency) = (clock.read(STATUS_B, at), clock.read(STATUS_A, at));
        clock.write(STATUS_B, control | SET, at);
        clock.write(STATUS_A, frequency | 0x70, at);
        let bytes = [
            (YEAR, 0x31),
            (MONTH, 0x02),
            (DAY_OF_MONTH, 0x03),
            (HOURS, 0x04),
            (MINUTES, 0x05),
            (SECONDS, 0x06),
        ];
        bytes.into_iter().for_each(|(index, byte)| clock.write(index, byte, at));
        clock.write(calendar::CENTURY, 0x20, at);
        clock.write(STATUS_B, control, at);
        clock.write(STATUS_A, frequency, at);
    }

    #[test]
    fn rtc_shows_the_hosts_time_in_bcd() {
        assert_eq!(time_of_day(&Registers::new(), now()), [0x23, 0x59, 0x07]);
    }

    #[test]
    fn rtc_shows_the_date_with_its_century_and_friday_as_the_sixth_day() {
        let clock = Registers::new();
        assert_eq!(date(&clock, now()), [0x20, 0x26, 0x11, 0x20]);
        assert_eq!(clock.read(DAY_OF_WEEK, now()), 6);
    }

    #[test]
    fn rtc_is_never_updating_and_always_valid() {
        let mut clock = Registers::new();
        [STATUS_A, STATUS_C, STATUS_D]
            .into_iter()
            .for_each(|index| clock.write(index, 0x80 | TIME_BASE, now()));
        assert_eq!(
            [STATUS_A, STATUS_C, STATUS_D].map(|index| clock.read(index, now())),
            [TIME_BASE, 0, VALID]
        );
    }

    #[test]
    fn rtc_set_as_linux_does_continues_from_there() {
        let mut clock = Registers::new();
        set_as_linux(&mut clock, now());
        assert_eq!(date(&clock, now()), [0x20, 0x31, 0x02, 0x03]);
        assert_eq!(time_of_day(&clock, later(10_000)), [0x04, 0x05, 0x16]);
    }

    /// hwclock sets the time in the middle of a second, and relies on the next one beginning half a second later.
    #[test]
    fn rtc_after_divider_reset_begins_the_next_second_after_half_a_second() {
        let mut clock = Registers::new();
        set_as_linux(&mut clock, now());
        assert_eq!(clock.read(SECONDS, later(499)), 0x06);
        assert_eq!(clock.read(SECONDS, later(500)), 0x07);
    }

    #[test]
    fn rtc_halted_shows_the_second_in_which_it_was_halted() {
        let mut clock = Registers::new();
        clock.write(STATUS_B, SET | Format::HOURS_24, now());
        assert_eq!(time_of_day(&clock, later(90_000)), [0x23, 0x59, 0x07]);
        clock.write(STATUS_B, Format::HOURS_24, later(90_000));
        assert_eq!(time_of_day(&clock, later(91_000)), [0x23, 0x59, 0x08]);
    }

    #[test]
    fn rtc_second_written_while_it_runs_takes_effect() {
        let mut clock = Registers::new();
        clock.write(MINUTES, 0x30, now());
        assert_eq!(time_of_day(&clock, later(1000)), [0x23, 0x30, 0x08]);
    }

    #[test]
    fn rtc_set_to_an_invalid_day_is_unchanged() {
        let mut clock = Registers::new();
        clock.write(STATUS_B, SET | Format::HOURS_24, now());
        [(MONTH, 0x02), (DAY_OF_MONTH, 0x31)]
            .into_iter()
            .for_each(|(index, byte)| clock.write(index, byte, now()));
        clock.write(STATUS_B, Format::HOURS_24, now());
        assert_eq!(date(&clock, now()), [0x20, 0x26, 0x11, 0x20]);
    }

    #[test]
    fn rtc_in_binary_and_12_hours_shows_the_afternoon() {
        let mut clock = Registers::new();
        clock.write(STATUS_B, Format::BINARY, now());
        assert_eq!(time_of_day(&clock, now()), [0x80 | 11, 59, 7]);
        clock.write(HOURS, 12, now());
        clock.write(STATUS_B, Format::HOURS_24, now());
        assert_eq!(time_of_day(&clock, now()), [0x00, 0x59, 0x07]);
    }

    #[test]
    fn rtc_alarm_and_memory_keep_what_is_written() {
        let mut clock = Registers::new();
        let indices = [1, 3, 5, 0x0e, 0x31, 0x33, 0x7f];
        indices.into_iter().for_each(|index| clock.write(index, index ^ 0xff, now()));
        assert_eq!(indices.map(|index| clock.read(index, later(5000))), indices.map(|index| index ^ 0xff));
    }

    fn byte_at(rtc: &Rtc, index: u8) -> u8 {
        let mut value = [0xff];
        assert_eq!(rtc.write(INDEX, &[index]), Outcome::Done);
        rtc.read(DATA, &mut value);
        value[0]
    }

    #[test]
    fn rtc_index_ignores_the_nmi_bit() {
        let rtc = Rtc::default();
        assert_eq!(byte_at(&rtc, 0x80 | STATUS_D), VALID);
        assert_eq!(rtc.write(INDEX, &[0x80 | 0x40]), Outcome::Done);
        assert_eq!(rtc.write(DATA, &[42]), Outcome::Done);
        assert_eq!(byte_at(&rtc, 0x40), 42);
    }

    #[test]
    fn rtc_wide_accesses_and_the_index_port_read_as_unclaimed() {
        let mut data = [0xff; 2];
        Rtc::default().read(INDEX, &mut data);
        Rtc::default().read(INDEX, &mut data[..1]);
        assert_eq!(data, [0xff; 2]);
    }

    proptest! {
        /// No access of any value, width and offset panics or sets the update bit.
        #[test]
        fn rtc_survives_any_access(
            accesses in prop::collection::vec((0_u64..4, prop::collection::vec(any::<u8>(), 0..9)), 0..200),
        ) {
            let rtc = Rtc::default();
            for (offset, mut data) in accesses {
                prop_assert_eq!(rtc.write(offset, &data), Outcome::Done);
                rtc.read(offset, &mut data);
            }
            prop_assert_eq!(byte_at(&rtc, STATUS_A) & UPDATE_IN_PROGRESS, 0);
        }

        /// A time that is set is read back, in each format.
        #[test]
        fn rtc_time_set_is_time_read(seconds in 0_i64..253_402_300_000, format in 0_u8..4) {
            let format = Format(format << 1);
            let time = UtcDateTime::from_unix_timestamp(seconds).unwrap();
            let mut memory = [0; 128];
            format.encode(time, &mut memory);
            prop_assert_eq!(format.decode(&memory), Some(time));
        }
    }
}
