//! Splits a number and its unit.

use crate::value_error::ValueError;

/// Splits `text` into its leading digits, at least one, and the unit after them, which may be empty. `what`
/// (with an article) and the example `like` are for messages.
pub(crate) fn digits_and_unit<'a>(
    text: &'a str,
    what: &'static str,
    like: &'static str,
) -> Result<(&'a str, &'a str), ValueError> {
    let owned = || text.to_owned();
    if text.chars().any(char::is_whitespace) {
        return Err(ValueError::WhiteSpace { text: owned(), like });
    }
    let (digits, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    if digits.is_empty() {
        let negative =
            text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        return Err(match negative {
            true => ValueError::Negative { text: owned() },
            false => ValueError::NotANumber { text: owned(), what, like },
        });
    }
    if unit.starts_with(['.', ',']) {
        return Err(ValueError::Fraction { text: owned(), has_unit: true });
    }
    Ok((digits, unit))
}
