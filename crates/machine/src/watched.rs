//! What the event loop calls of each source.

use event_manager::{EventOps, Events};

/// A source of events.
pub(crate) trait Watched {
    /// Has the source's descriptors watched.
    ///
    /// # Errors
    /// One of them can't be.
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error>;

    /// Handles an event.
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>);
}
