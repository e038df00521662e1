//! What a check found.

/// Whether what was looked at is right.
pub(super) enum Verdict {
    /// Nothing wrong; the text says what was looked at.
    Pass(String),
    /// Each line says where and what to change.
    Fail(Vec<String>),
}

impl Verdict {
    /// Passes with `summary` if there are no `problems`.
    pub(super) fn from_problems(problems: Vec<String>, summary: impl FnOnce() -> String) -> Self {
        if problems.is_empty() { Self::Pass(summary()) } else { Self::Fail(problems) }
    }
}
