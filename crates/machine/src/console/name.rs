//! Names of consoles.

/// The names of a console that users see.
#[derive(Clone, Debug)]
pub(super) struct ConsoleName {
    /// Its name in messages: `serial`, or the id of a virtio console.
    pub(super) label: String,
    /// JSON path of its target in the config.
    pub(super) field: String,
}
