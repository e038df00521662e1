//! The fenced blocks of a page.

/// A block with the paragraph before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// `console`, `rust`, ..
    pub(crate) kind: &'a str,
    pub(crate) lines: Vec<&'a str>,
    /// The lines of text since the last empty line, or since the last block.
    pub(crate) before: String,
}

pub(crate) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut before: Vec<&str> = Vec::new();
    let mut ended = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(kind) = line.strip_prefix("```") {
            let body = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block { kind, lines: body, before: before.join(" ") });
            before.clear();
        } else if line.is_empty() {
            ended = true;
        } else {
            if std::mem::take(&mut ended) {
                before.clear();
            }
            before.push(line);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_has_its_kind_and_the_paragraph_before_it() {
        let text = "far\n\nnear,\nin two lines\n\n```sh\na\n\nb\n```\n```c\n```\n";
        let expected = [
            Block { kind: "sh", lines: vec!["a", "", "b"], before: "near, in two lines".to_owned() },
            Block { kind: "c", lines: vec![], before: String::new() },
        ];
        assert_eq!(blocks(text), expected);
    }
}
