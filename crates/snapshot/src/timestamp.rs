//! When a snapshot was taken.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A second in UTC, from 1970 to 9999. In JSON it is there as a number and as a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Both", into = "Both")]
pub struct Timestamp(OffsetDateTime);

/// The two ways to write it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Both {
    seconds: u64,
    rfc3339: String,
}

impl Timestamp {
    /// The host's time, or the nearest that can be written.
    pub fn now() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self::from_seconds(seconds).unwrap_or(Self(OffsetDateTime::UNIX_EPOCH))
    }

    /// The time so many seconds after 1970 began, if it is before the year 10000.
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        let seconds = i64::try_from(seconds).ok()?;
        OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|time| time.year() <= 9999).map(Self)
    }

    /// Seconds since 1970 began.
    pub fn seconds(self) -> u64 {
        // Never negative.
        self.0.unix_timestamp().unsigned_abs()
    }
}

impl fmt::Display for Timestamp {
    /// As RFC 3339.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, (hour, minute, second)) = (self.0.date(), self.0.to_hms());
        let (year, month, day) = date.to_calendar_date();
        let month = u8::from(month);
        write!(formatter, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl From<Timestamp> for Both {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.seconds(), rfc3339: time.to_string() }
    }
}

impl TryFrom<Both> for Timestamp {
    type Error = String;

    fn try_from(Both { seconds, rfc3339 }: Both) -> Result<Self, String> {
        let time =
            Self::from_seconds(seconds).ok_or(format!("{seconds} seconds are beyond the year 9999"))?;
        if time.to_string() != rfc3339 {
            return Err(format!("{seconds} seconds are {time}, not {rfc3339:?}"));
        }
        Ok(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_of_a_leap_day() {
        let time = Timestamp::from_seconds(1_709_210_096).unwrap();
        assert_eq!(time.to_string(), "2024-02-29T12:34:56Z");
        assert_eq!(time.seconds(), 1_709_210_096);
    }

    #[test]
    fn timestamp_beyond_four_digits_of_year_is_refused() {
        // date -u -d 9999-12-31T23:59:59Z +%s
        assert_eq!(Timestamp::from_seconds(253_402_300_799).unwrap().to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::from_seconds(253_402_300_800), None);
        assert_eq!(Timestamp::from_seconds(u64::MAX), None);
    }

    #[test]
    fn timestamp_whose_text_differs_is_refused() {
        let json = r#"{"seconds": 0, "rfc3339": "1970-01-01T00:00:01Z"}"#;
        let error = serde_json::from_str::<Timestamp>(json).unwrap_err();
        assert_eq!(error.to_string(), "0 seconds are 1970-01-01T00:00:00Z, not \"1970-01-01T00:00:01Z\"");
    }
}
