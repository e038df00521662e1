//! Splits a command into words as a shell does, with quotes but without escapes and expansions.

/// Splits at white space outside single and double quotes. `None` if a quote isn't closed.
pub(super) fn split(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_quotes_keep_white_space() {
        assert_eq!(split("run --a='b c'  \"\" d").unwrap(), ["run", "--a=b c", "", "d"]);
    }

    #[test]
    fn split_open_quote_is_none() {
        assert_eq!(split("run 'x"), None);
    }
}
