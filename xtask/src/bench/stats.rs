//! Computes and formats medians and ratios.

/// The middle value, or the mean of the two in the middle; `None` without values.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

pub(super) fn ratio(value: Option<f64>, first: Option<f64>) -> Option<f64> {
    Some(value? / first?)
}

/// Formats a value with so many decimals, or as a dash if it is missing.
pub(super) fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_odd_is_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 4.0]), Some(4.0));
    }

    #[test]
    fn median_even_is_the_mean_of_two() {
        assert_eq!(median(vec![9.0, 1.0, 4.0, 6.0]), Some(5.0));
    }

    #[test]
    fn median_nothing_is_none() {
        assert_eq!(median(vec![]), None);
    }
}
