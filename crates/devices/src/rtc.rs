//! The CMOS real-time clock (Motorola MC146818A), showing the host's time.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use time::{OffsetDateTime, UtcDateTime};
use vmm_bus::{BusDevice, Outcome};

/// Offset of the index register (port 0x70) and the data register (port 0x71).
const INDEX: u64 = 0;
const DATA: u64 = 1;
/// Bit 7 of what is written to the index port masks NMI on a PC; it is no part of the index.
const INDEX_MASK: u8 = 0x7f;

/// Indices of the registers, MC146818A figure 9, and the century where PCs keep it.
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const CENTURY: u8 = 0x32;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;

/// Status A: the 32.768 kHz time base, 1024 Hz. Bit 7, "update in progress", is never set: the time is taken
/// at each read. While it reads as set, Linux's rtc_cmos waits a second, which is 4.5 s in a nested guest.
const TIME_BASE: u8 = 0x26;
/// Status B: hours from 0 to 23; numbers in BCD.
const HOURS_24: u8 = 0x02;
/// Status D: the battery is good.
const VALID: u8 = 0x80;

/// A real-time clock that always shows the host's time, in UTC. Give it the ports 0x70 and 0x71.
///
/// Writing the time or an alarm changes nothing, and there is no interrupt: a guest sets its own clock, not
/// the host's.
#[derive(Debug, Default)]
pub struct Rtc {
    index: AtomicU8,
}

impl Rtc {
    /// A register's value at `now`.
    fn register(index: u8, now: UtcDateTime) -> u8 {
        // Years of four digits: `time` knows no others without a feature that isn't on.
        let year = now.year().unsigned_abs();
        match index {
            SECONDS => bcd(now.second()),
            MINUTES => bcd(now.minute()),
            HOURS => bcd(now.hour()),
            DAY_OF_WEEK => bcd(now.weekday().number_from_sunday()),
            DAY_OF_MONTH => bcd(now.day()),
            MONTH => bcd(now.month().into()),
            YEAR => bcd((year % 100) as u8),
            CENTURY => bcd((year / 100 % 100) as u8),
            STATUS_A => TIME_BASE,
            STATUS_B => HOURS_24,
            STATUS_D => VALID,
            // No interrupt is pending, and the memory behind the registers is empty.
            STATUS_C => 0,
            _ => 0,
        }
    }
}

/// Two decimal digits, a nibble each. `number` is below 100.
fn bcd(number: u8) -> u8 {
    ((number / 10) << 4) | (number % 10)
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // The index can't be read back on a PC, and only one byte at a time is decoded.
        if let (DATA, [value]) = (offset, data) {
            let now = OffsetDateTime::from(SystemTime::now()).to_utc();
            *value = Self::register(self.index.load(Ordering::Relaxed), now);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        if let (INDEX, [index]) = (offset, data) {
            self.index.store(index & INDEX_MASK, Ordering::Relaxed);
        }
        Outcome::Done
    }
}

#[cfg(test)]
mod tests {
    use time::{Date, Month, Time};

    use super::*;

    fn at(index: u8) -> u8 {
        let date = Date::from_calendar_date(2026, Month::November, 20).unwrap();
        let time = Time::from_hms(23, 59, 7).unwrap();
        Rtc::register(index, UtcDateTime::new(date, time))
    }

    #[test]
    fn rtc_shows_the_time_in_bcd() {
        assert_eq!([at(HOURS), at(MINUTES), at(SECONDS)], [0x23, 0x59, 0x07]);
    }

    #[test]
    fn rtc_shows_the_date_with_its_century_and_friday_as_the_sixth_day() {
        assert_eq!([at(CENTURY), at(YEAR), at(MONTH), at(DAY_OF_MONTH)], [0x20, 0x26, 0x11, 0x20]);
        assert_eq!(at(DAY_OF_WEEK), 6);
    }

    #[test]
    fn rtc_is_never_updating_and_always_valid() {
        assert_eq!(at(STATUS_A) & 0x80, 0);
        assert_eq!([at(STATUS_B), at(STATUS_C), at(STATUS_D)], [HOURS_24, 0, VALID]);
    }

    #[test]
    fn rtc_index_ignores_the_nmi_bit_and_data_writes_change_nothing() {
        let rtc = Rtc::default();
        assert_eq!(rtc.write(INDEX, &[0x80 | STATUS_D]), Outcome::Done);
        assert_eq!(rtc.write(DATA, &[0]), Outcome::Done);
        let mut value = [0xff];
        rtc.read(DATA, &mut value);
        assert_eq!(value, [VALID]);
    }

    #[test]
    fn rtc_wide_accesses_and_the_index_port_read_as_unclaimed() {
        let mut data = [0xff; 2];
        Rtc::default().read(INDEX, &mut data);
        Rtc::default().read(INDEX, &mut data[..1]);
        assert_eq!(data, [0xff; 2]);
    }
}
