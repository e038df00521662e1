//! Errors of a section's fields.

use std::fmt;

/// Why a section can't be loaded: the field, and what is wrong with it.
///
/// ```
/// use vmm_snapshot::StateError;
///
/// let error = StateError::new("size", "70000 is not a power of two");
/// assert_eq!(error.within("queue 3").to_string(), "queue 3: size: 70000 is not a power of two");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateError {
    field: String,
    message: String,
}

impl StateError {
    /// An error of `field`. The message follows the field's name and a colon.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same error of a field within `outer`.
    #[must_use]
    pub fn within(self, outer: impl fmt::Display) -> Self {
        Self { field: format!("{outer}: {}", self.field), message: self.message }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for StateError {}
