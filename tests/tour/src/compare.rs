//! What is printed, beside what the page shows.

/// Whether `printed` is what `expected` describes: `[..]` stands for any text in a line, a line `...` for any lines.
pub fn agrees(expected: &[String], printed: &[&str]) -> bool {
    match (expected.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "..." => {
            (0..=printed.len()).any(|skipped| agrees(rest, &printed[skipped..]))
        }
        (Some((first, rest)), Some((line, others))) => line_agrees(first, line) && agrees(rest, others),
        _ => false,
    }
}

/// As [`agrees`], but numbers and the width of gaps may differ: for figures that are different each time.
pub fn resembles(expected: &[String], printed: &[&str]) -> bool {
    let expected: Vec<String> = expected.iter().map(|line| without_numbers(line)).collect();
    let printed: Vec<String> = printed.iter().map(|line| without_numbers(line)).collect();
    agrees(&expected, &printed.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The line with `0` for each decimal number, and one space for each gap.
fn without_numbers(line: &str) -> String {
    let word = |word: &str| {
        let mut text = String::new();
        for c in word.chars() {
            match c {
                // A number that goes on, with its decimal point.
                '0'..='9' | '.' if text.ends_with('0') => {}
                '0'..='9' => text.push('0'),
                c => text.push(c),
            }
        }
        text
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

fn line_agrees(expected: &str, line: &str) -> bool {
    match expected.split_once("[..]") {
        None => expected == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices()
                .map(|(at, _)| at)
                .chain([rest.len()])
                .any(|skipped| line_agrees(after, &rest[skipped..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn output_that_differs_disagrees() {
        assert!(agrees(&lines("a\nb"), &["a", "b"]));
        assert!(!agrees(&lines("a\nb"), &["a"]));
        assert!(!agrees(&lines("a"), &["a", "b"]));
        assert!(!agrees(&lines("a"), &["b"]));
    }

    #[test]
    fn wildcard_in_a_line_is_any_text_and_nothing_else() {
        assert!(agrees(&lines("x [..] ms of [..]"), &["x 17 ms of 20"]));
        assert!(!agrees(&lines("x [..] ms"), &["x 17 s"]));
    }

    #[test]
    fn figures_may_differ_and_words_may_not() {
        assert!(resembles(&lines("out  0x03f8  11  47746 11.7%"), &["out 0x03f8 11 9 8%"]));
        assert!(!resembles(&lines("out 0x03f8 11"), &["in 0x03f8 11"]));
        assert!(!resembles(&lines("out 0x03f8 11"), &["out 0x03f8"]));
    }

    #[test]
    fn wildcard_line_is_any_lines() {
        assert!(agrees(&lines("a\n...\nd"), &["a", "b", "c", "d"]));
        assert!(agrees(&lines("a\n..."), &["a"]));
        assert!(!agrees(&lines("a\n...\nd"), &["a", "b"]));
    }
}
