//! Text in messages: quoting input and suggesting corrections.

use std::borrow::Cow;

/// Maximum number of characters quoted from input: enough to recognise it on one line.
const SHOWN_CHARS: usize = 48;

/// `text` in double quotes, with control characters escaped so that it can't control a terminal, and
/// truncated if long.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}... ({} bytes)", &text[..cut], text.len()),
    }
}

/// `text` with control characters, line separators and bidirectional formatting marks escaped as in quoted
/// text, so that it can't control a terminal or imitate other lines. For unquoted paths and other input.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_bad) {
        return Cow::Borrowed(text);
    }
    let escaped = text.chars().flat_map(|c| {
        let (bad, good) = if is_bad(c) { (Some(c.escape_debug()), None) } else { (None, Some(c)) };
        bad.into_iter().flatten().chain(good)
    });
    Cow::Owned(escaped.collect())
}

/// What to write instead of `given`: the nearest of `names` as a question, or a list of all of them.
pub fn hint(given: &str, names: &[&str]) -> String {
    match nearest(given, names) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => expected(names),
    }
}

/// `expected "a"` or `expected one of "a", "b"`.
pub(crate) fn expected(names: &[&str]) -> String {
    format!("expected {}", one_of(names))
}

/// `"a"` or `one of "a", "b"`.
pub(crate) fn one_of(names: &[&str]) -> String {
    match names {
        [name] => format!("\"{name}\""),
        _ => format!("one of {}", quoted(names)),
    }
}

/// `"a", "b"`.
pub(crate) fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    quoted.join(", ")
}

/// The one of `names` that `given` probably stands for: an abbreviation or extension of it, or similar up to
/// a few typing errors.
fn nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    // The cost is the product of the lengths, and none of our names is this long.
    if given.len() > SHOWN_CHARS {
        return None;
    }
    let given = given.to_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&given, name);
    // Two letters are too few for an abbreviation.
    let shortened = |name: &&&str| given.len() > 2 && (name.starts_with(&given) || given.starts_with(**name));
    // One error per three letters: "kernal" and "linux46" are near, "efi" is not near "pvh".
    let near = |name: &&&str| distance(name) * 3 <= name.len().max(given.len());
    names
        .iter()
        .filter(near)
        .min_by_key(|name| distance(name))
        .or_else(|| names.iter().find(shortened))
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[&str] = &["kernel", "initrd", "cmdline", "protocol"];

    #[test]
    fn hint_one_wrong_letter_names_the_field() {
        assert_eq!(hint("kernal", FIELDS), "did you mean \"kernel\"?");
    }

    #[test]
    fn hint_swapped_letters_names_the_field() {
        assert_eq!(hint("intird", FIELDS), "did you mean \"initrd\"?");
    }

    #[test]
    fn hint_other_case_names_the_field() {
        assert_eq!(hint("KERNEL", FIELDS), "did you mean \"kernel\"?");
    }

    #[test]
    fn hint_abbreviation_names_the_field() {
        assert_eq!(hint("cmd", FIELDS), "did you mean \"cmdline\"?");
    }

    #[test]
    fn hint_extension_names_the_field() {
        assert_eq!(hint("kernel_path", FIELDS), "did you mean \"kernel\"?");
    }

    #[test]
    fn hint_nothing_near_lists_all() {
        assert_eq!(hint("disk", FIELDS), "expected one of \"kernel\", \"initrd\", \"cmdline\", \"protocol\"");
    }

    #[test]
    fn hint_single_name_lists_it_alone() {
        assert_eq!(hint("x", &["size"]), "expected \"size\"");
    }

    #[test]
    fn hint_empty_name_lists_all() {
        assert_eq!(hint("", &["size", "file"]), "expected one of \"size\", \"file\"");
    }

    #[test]
    fn quote_escape_sequence_is_defused() {
        assert_eq!(quote("\u{1b}[2J"), r#""\u{1b}[2J""#);
    }

    #[test]
    fn printable_leaves_what_is_printed_as_it_is() {
        assert_eq!(printable("dir/a b \"c\" \\n é 😀"), "dir/a b \"c\" \\n é 😀");
    }

    #[test]
    fn printable_escapes_what_drives_a_terminal_or_ends_a_line() {
        assert_eq!(printable("a\nerror: b\x1b[2J\r\t\x7f\0"), r"a\nerror: b\u{1b}[2J\r\t\u{7f}\0");
        assert_eq!(printable("é\u{9b}1m \u{202e}gpj.\u{2066}"), r"é\u{9b}1m \u{202e}gpj.\u{2066}");
    }

    #[test]
    fn quote_long_text_is_cut_at_a_character() {
        assert_eq!(quote(&"é".repeat(100)), format!("\"{}\"... (200 bytes)", "é".repeat(48)));
    }
}
