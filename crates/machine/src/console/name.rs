//! What consoles are called.

/// What the user calls a console.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// In messages, and in front of its pty.
    pub(super) line: String,
    /// The field of the config that says where it goes.
    pub(super) field: String,
}
