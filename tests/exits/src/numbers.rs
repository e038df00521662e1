//! Statistics of measurements, and their format.

use serde::Serialize;

/// The median and the quartiles of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Quartiles {
    pub(crate) lower: f64,
    pub(crate) median: f64,
    pub(crate) upper: f64,
}

impl Quartiles {
    /// The quartiles of `values`, which must not be empty. A quartile between two values is interpolated linearly.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len() - 1) as f64;
            let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Self { lower: at(0.25), median: at(0.5), upper: at(0.75) }
    }

    /// All three multiplied by `factor`, which must be positive.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { lower: self.lower * factor, median: self.median * factor, upper: self.upper * factor }
    }
}

/// Formats a number with commas between thousands, as in 12,345.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_five_values_are_three_of_them() {
        let expected = Quartiles { lower: 2.0, median: 3.0, upper: 4.0 };
        assert_eq!(Quartiles::of([5.0, 1.0, 4.0, 2.0, 3.0]), expected);
    }

    #[test]
    fn quartiles_between_values_are_interpolated() {
        let expected = Quartiles { lower: 1.75, median: 2.5, upper: 3.25 };
        assert_eq!(Quartiles::of([4.0, 3.0, 2.0, 1.0]), expected);
    }

    #[test]
    fn quartiles_of_one_value_are_that_value() {
        assert_eq!(Quartiles::of([7.0]), Quartiles { lower: 7.0, median: 7.0, upper: 7.0 });
    }

    #[test]
    fn grouped_count_has_a_comma_before_each_three_digits() {
        let shown = [0.0, 999.0, 1000.0, 1_234_567.4].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
