//! Time limit of a run.

use std::{fmt, str::FromStr, time::Duration};

use crate::{digits::digits_and_unit, text::quote, value_error::ValueError};

/// The example in messages about times.
const LIKE: &str = "\"5s\"";

/// A time limit, written as digits and a unit: `"500ms"`, `"5s"`, `"2m"`, `"1h"`. From 1 ms to a year.
///
/// It is printed with the largest exact unit, and the output can be parsed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeout(Duration);

impl Timeout {
    /// 1 ms.
    pub const MIN: Timeout = Timeout(Duration::from_millis(1));
    /// A year of 365 days. Longer times are probably errors, and sums of a few can't overflow any clock.
    pub const MAX: Timeout = Timeout(Duration::from_secs(365 * 24 * 60 * 60));

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Validates the range of `timeout`, which messages show as `written`.
    fn checked(timeout: Timeout, written: &str) -> Result<Timeout, ValueError> {
        if timeout < Self::MIN {
            return Err(ValueError::TooSmall { value: quote(written), least: Self::MIN.to_string() });
        }
        if timeout > Self::MAX {
            return Err(ValueError::TooLarge { value: quote(written), most: Self::MAX.to_string() });
        }
        Ok(timeout)
    }
}

/// Units in milliseconds in descending order, so that printing uses the first one that divides the time.
const UNITS: [(&str, u64); 4] = [("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

impl FromStr for Timeout {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Timeout, ValueError> {
        let owned = || text.to_owned();
        let (digits, unit) = digits_and_unit(text, "a time", LIKE).map_err(|problem| match problem {
            ValueError::Negative { text } => {
                ValueError::NotANumber { text, what: "a positive time", like: "\"30s\"" }
            }
            other => other,
        })?;
        if unit.is_empty() {
            let instead = format!("{text}s");
            return Err(ValueError::Misspelt { text: owned(), problem: "has no unit", instead });
        }
        let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(|| {
            ValueError::UnknownUnit { text: owned(), unit: unit.to_owned(), known: "ms, s, m or h" }
        })?;
        // Only the range can be wrong now: u64::MAX stands for anything that overflows.
        let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).unwrap_or(u64::MAX);
        Timeout::checked(Timeout(Duration::from_millis(ms)), text)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let exact = UNITS.iter().find(|(_, scale)| ms.is_multiple_of(u128::from(*scale)));
        let (unit, scale) = exact.expect("every number of milliseconds is a multiple of one");
        write!(f, "{}{unit}", ms / u128::from(*scale))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Timeout>().unwrap_err().to_string()
    }

    #[test]
    fn timeout_every_unit_is_read() {
        let read = |text: &str| text.parse::<Timeout>().map(Timeout::get);
        assert_eq!(read("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(read("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(read("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(read("1h"), Ok(Duration::from_secs(3600)));
    }

    #[test]
    fn timeout_prints_the_largest_exact_unit() {
        let printed = |text: &str| text.parse::<Timeout>().map(|timeout| timeout.to_string());
        assert_eq!(printed("90s").as_deref(), Ok("90s"));
        assert_eq!(printed("120s").as_deref(), Ok("2m"));
        assert_eq!(printed("1500ms").as_deref(), Ok("1500ms"));
    }

    #[test]
    fn timeout_at_its_limits_is_accepted() {
        assert_eq!("1ms".parse(), Ok(Timeout::MIN));
        assert_eq!("8760h".parse(), Ok(Timeout::MAX));
    }

    #[test]
    fn timeout_zero_names_the_least() {
        assert_eq!(refusal("0s"), "\"0s\" is too small, at least 1ms");
    }

    #[test]
    fn timeout_above_a_year_names_the_most() {
        assert_eq!(refusal("8761h"), "\"8761h\" is too large, at most 8760h");
        assert_eq!(refusal("18446744073709551615h"), "\"18446744073709551615h\" is too large, at most 8760h");
        assert_eq!(refusal("18446744073709551616s"), "\"18446744073709551616s\" is too large, at most 8760h");
    }

    #[test]
    fn timeout_without_unit_is_shown_in_seconds() {
        assert_eq!(refusal("5"), "\"5\" has no unit, write \"5s\"");
    }

    #[test]
    fn timeout_fraction_asks_for_a_smaller_unit() {
        assert_eq!(refusal("1.5s"), "\"1.5s\" is a fraction, write a whole number of a smaller unit");
    }

    #[test]
    fn timeout_unknown_unit_lists_all() {
        assert_eq!(refusal("1d"), "\"1d\" has the unknown unit \"d\", use ms, s, m or h");
        assert_eq!(refusal("5S"), "\"5S\" has the unknown unit \"S\", use ms, s, m or h");
    }

    #[test]
    fn timeout_negative_is_refused() {
        assert_eq!(refusal("-5s"), "\"-5s\" is not a positive time, write one such as \"30s\"");
    }

    #[test]
    fn timeout_white_space_is_refused() {
        assert_eq!(refusal("5 s"), "\"5 s\" contains white space, write \"5s\" without any");
    }

    #[test]
    fn timeout_without_digits_shows_an_example() {
        assert_eq!(refusal(""), "\"\" is not a time, write one such as \"5s\"");
        assert_eq!(refusal("s"), "\"s\" is not a time, write one such as \"5s\"");
    }
}
