//! Encoding and decoding of the clock's time registers.

use time::{Date, Month, Time, UtcDateTime};

/// Registers and memory, indexed by 7 bits.
pub(super) type Memory = [u8; 128];

/// Indices of time and date (MC146818A, figure 9), and of a PC's century byte.
pub(super) const SECONDS: u8 = 0x00;
pub(super) const MINUTES: u8 = 0x02;
pub(super) const HOURS: u8 = 0x04;
pub(super) const DAY_OF_WEEK: u8 = 0x06;
pub(super) const DAY_OF_MONTH: u8 = 0x07;
pub(super) const MONTH: u8 = 0x08;
pub(super) const YEAR: u8 = 0x09;
pub(super) const CENTURY: u8 = 0x32;

/// Bit 7 of the hours in 12-hour format: PM.
const AFTERNOON: u8 = 0x80;

/// Whether `index` is a time or date register.
pub(super) fn is_time(index: u8) -> bool {
    matches!(index, SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY_OF_MONTH | MONTH | YEAR | CENTURY)
}

/// The format of the time registers, as the value of status B (MC146818A, "Register B").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format(pub(super) u8);

impl Format {
    /// Bit 1: hours are 0 to 23; if clear, 1 to 12 with AM or PM.
    pub(super) const HOURS_24: u8 = 0x02;
    /// Bit 2: numbers are binary; if clear, BCD.
    pub(super) const BINARY: u8 = 0x04;

    /// Writes `time`, truncated to the second, to the registers.
    pub(super) fn encode(self, time: UtcDateTime, memory: &mut Memory) {
        // At most four digits, because the feature large-dates of the crate `time` is off.
        let year = time.year().unsigned_abs();
        let mut put = |index: u8, byte: u8| memory[usize::from(index)] = byte;
        put(SECONDS, self.digits(time.second()));
        put(MINUTES, self.digits(time.minute()));
        put(HOURS, self.hours(time.hour()));
        put(DAY_OF_WEEK, self.digits(time.weekday().number_from_sunday()));
        put(DAY_OF_MONTH, self.digits(time.day()));
        put(MONTH, self.digits(time.month().into()));
        put(YEAR, self.digits((year % 100) as u8));
        put(CENTURY, self.digits((year / 100 % 100) as u8));
    }

    /// The time in the registers, or `None` if it is invalid. The day of the week is ignored.
    pub(super) fn decode(self, memory: &Memory) -> Option<UtcDateTime> {
        let number = |index: u8| self.number(memory[usize::from(index)]);
        let hour = self.hour(memory[usize::from(HOURS)])?;
        let time = Time::from_hms(hour, number(MINUTES)?, number(SECONDS)?).ok()?;
        let year = i32::from(number(CENTURY)?) * 100 + i32::from(number(YEAR)?);
        let month = Month::try_from(number(MONTH)?).ok()?;
        let date = Date::from_calendar_date(year, month, number(DAY_OF_MONTH)?).ok()?;
        Some(UtcDateTime::new(date, time))
    }

    /// Encodes `number`, which is below 100.
    fn digits(self, number: u8) -> u8 {
        if self.0 & Self::BINARY != 0 { number } else { ((number / 10) << 4) | (number % 10) }
    }

    /// The inverse of [`digits`](Self::digits).
    fn number(self, byte: u8) -> Option<u8> {
        let (tens, ones) = (byte >> 4, byte & 0xf);
        let number = match self.0 & Self::BINARY {
            0 => (tens < 10 && ones < 10).then_some(tens * 10 + ones)?,
            _ => byte,
        };
        (number < 100).then_some(number)
    }

    /// Encodes `hour`, which is below 24.
    fn hours(self, hour: u8) -> u8 {
        if self.0 & Self::HOURS_24 != 0 {
            return self.digits(hour);
        }
        // 12, 1, 2 ... 11, in each half of the day.
        let half = if hour < 12 { 0 } else { AFTERNOON };
        half | self.digits((hour + 11) % 12 + 1)
    }

    /// The inverse of [`hours`](Self::hours).
    fn hour(self, byte: u8) -> Option<u8> {
        if self.0 & Self::HOURS_24 != 0 {
            return self.number(byte);
        }
        let hour = self.number(byte & !AFTERNOON).filter(|hour| (1..=12).contains(hour))?;
        Some(hour % 12 + if byte & AFTERNOON != 0 { 12 } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWELVE_HOURS: Format = Format(0);

    #[test]
    fn hours_of_twelve_begin_and_end_with_twelve() {
        let hours = [0, 1, 11, 12, 13, 23].map(|hour| TWELVE_HOURS.hours(hour));
        assert_eq!(hours, [0x12, 0x01, 0x11, 0x92, 0x81, 0x91]);
        assert_eq!(hours.map(|byte| TWELVE_HOURS.hour(byte)), [0, 1, 11, 12, 13, 23].map(Some));
    }

    #[test]
    fn hours_of_twelve_have_neither_0_nor_13() {
        assert_eq!([0x00, 0x13, 0x80].map(|byte| TWELVE_HOURS.hour(byte)), [None; 3]);
    }

    #[test]
    fn digits_above_nine_are_invalid() {
        assert_eq!(Format(0).number(0x0a), None);
        assert_eq!(Format(0).number(0xa0), None);
        assert_eq!(Format(Format::BINARY).number(100), None);
    }
}
