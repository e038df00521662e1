//! The result of a check.

/// The result of a check.
pub(super) enum Verdict {
    /// No problems; the text says what was checked.
    Pass(String),
    /// The problems: each line says where it is and what to change.
    Fail(Vec<String>),
}

impl Verdict {
    /// Passes with `summary` if there are no `problems`.
    pub(super) fn from_problems(problems: Vec<String>, summary: impl FnOnce() -> String) -> Self {
        if problems.is_empty() { Self::Pass(summary()) } else { Self::Fail(problems) }
    }
}
