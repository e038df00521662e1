//! Finds paths in tokens that syn doesn't parse: the arguments of macros and attributes.

use proc_macro2::{TokenStream, TokenTree};

/// The segments of a path, such as `crate`, `plan`, `PlanError`.
pub(super) type Path = Vec<String>;

/// The paths in `tokens`, and in string literals that consist of a path with several segments, as in serde's attributes.
pub(super) fn paths_in(tokens: TokenStream) -> Vec<Path> {
    let mut found = Vec::new();
    let mut path = Path::new();
    // What precedes the next identifier: `::` continues a path, `.` is followed by a method or a field.
    let mut before = PrecedingToken::Other;
    let mut colons = 0;
    for token in tokens {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                if colons == 2 {
                    before = PrecedingToken::Colons;
                }
                continue;
            }
            TokenTree::Ident(ident) => {
                if before != PrecedingToken::Colons {
                    found.push(std::mem::take(&mut path));
                }
                if before != PrecedingToken::Dot && (before != PrecedingToken::Colons || !path.is_empty()) {
                    path.push(ident.to_string());
                }
                before = PrecedingToken::Other;
            }
            other => {
                found.push(std::mem::take(&mut path));
                before = if is_dot(other) { PrecedingToken::Dot } else { PrecedingToken::Other };
                found.extend(within(other));
            }
        }
        colons = 0;
    }
    found.push(path);
    found.retain(|path| !path.is_empty());
    found
}

/// The token before a path, which decides whether the path starts there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PrecedingToken {
    Colons,
    Dot,
    Other,
}

fn is_dot(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == '.')
}

fn within(token: &TokenTree) -> Vec<Path> {
    match token {
        TokenTree::Group(group) => paths_in(group.stream()),
        TokenTree::Literal(literal) => quoted_path(&literal.to_string()).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn quoted_path(literal: &str) -> Option<Path> {
    let path: syn::Path = syn::parse_str(literal.strip_prefix('"')?.strip_suffix('"')?).ok()?;
    let is_path = path.segments.len() > 1;
    is_path.then(|| path.segments.iter().map(|segment| segment.ident.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        paths_in(text.parse().unwrap()).into_iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn tokens_paths_are_found_at_any_depth() {
        assert_eq!(paths("a, crate::b::C { d: [super::e(f)] }"), ["a", "crate::b::C", "d", "super::e", "f"]);
    }

    #[test]
    fn tokens_methods_and_fields_are_no_paths() {
        assert_eq!(paths("x.plan.load(y)"), ["x", "y"]);
    }

    #[test]
    fn tokens_absolute_path_of_another_crate_is_none() {
        assert_eq!(paths("::std::fmt"), Vec::<String>::new());
    }

    #[test]
    fn tokens_quoted_path_is_one_and_a_word_is_not() {
        assert_eq!(
            paths(r#"with = "crate::strict::word", rename = "kernel""#),
            ["with", "crate::strict::word", "rename"]
        );
    }
}
