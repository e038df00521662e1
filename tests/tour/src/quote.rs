//! Code on the page, which is that of a file.

use crate::blocks::Block;

/// The kinds of blocks that are quotes.
const KINDS: [&str; 3] = ["rust", "c", "asm"];

/// Lines of a file. Between its parts lines are left out, which the page marks by a comment of three dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Relative to the workspace.
    pub path: String,
    parts: Vec<Vec<String>>,
}

impl Quote {
    /// `None` if the block is of another kind.
    pub(crate) fn of(block: &Block<'_>) -> Option<Self> {
        if !KINDS.contains(&block.kind) {
            return None;
        }
        let (path, code) = block.lines.split_first()?;
        let parts = code.split(|line| comment(line) == Some("..."));
        let parts = parts.map(|part| part.iter().map(|line| (*line).to_owned()).collect());
        Some(Self { path: comment(path).unwrap_or(path).to_owned(), parts: parts.collect() })
    }

    /// Whether `file` has the parts in this order, indented as on the page or further.
    pub fn is_in(&self, file: &str) -> bool {
        let mut rest: Vec<&str> = file.lines().collect();
        self.parts.iter().all(|part| {
            let at = (!part.is_empty())
                .then(|| rest.windows(part.len()).position(|lines| is_same_code(part, lines)))
                .flatten();
            at.map(|at| rest.drain(..at + part.len())).is_some()
        })
    }
}

/// The text of a line that is only a comment.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim();
    ["// ", "# "].iter().find_map(|mark| line.strip_prefix(mark))
}

fn is_same_code(quoted: &[String], lines: &[&str]) -> bool {
    let indent = lines.iter().zip(quoted).find_map(|(line, quoted)| line.strip_suffix(quoted.as_str()));
    let is_same = |(line, quoted): (&&str, &String)| match indent {
        Some(indent) if !quoted.is_empty() => line.strip_prefix(indent) == Some(quoted),
        Some(_) => line.is_empty(),
        None => false,
    };
    indent.is_some_and(|indent| indent.trim().is_empty()) && lines.iter().zip(quoted).all(is_same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::blocks;

    const FILE: &str = "fn a() {\n    one();\n    if two {\n        three();\n    }\n\n    four();\n}\n";

    fn quote(code: &str) -> Quote {
        Quote::of(&blocks(&format!("```rust\n// src/a.rs\n{code}\n```\n"))[0]).unwrap()
    }

    #[test]
    fn quote_names_its_file() {
        assert_eq!(quote("one();").path, "src/a.rs");
    }

    #[test]
    fn quote_may_be_indented_less() {
        assert!(quote("if two {\n    three();\n}\n\nfour();").is_in(FILE));
        assert!(quote("    one();\n    if two {").is_in(FILE));
    }

    #[test]
    fn quote_with_other_code_is_not_in_the_file() {
        assert!(!quote("one()").is_in(FILE));
        assert!(!quote("();").is_in(FILE));
        assert!(!quote("one();\nfour();").is_in(FILE));
        assert!(!quote("if two {\nthree();").is_in(FILE));
    }

    #[test]
    fn quote_leaves_lines_out_where_it_says_so() {
        assert!(quote("one();\n// ...\nfour();").is_in(FILE));
        assert!(!quote("four();\n// ...\none();").is_in(FILE));
    }

    #[test]
    fn quote_of_nothing_is_in_no_file() {
        assert!(!quote("// ...\none();").is_in(FILE));
    }

    #[test]
    fn block_of_another_kind_is_no_quote() {
        assert_eq!(Quote::of(&blocks("```console\n$ a\n```\n")[0]), None);
    }
}
