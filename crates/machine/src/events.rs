//! What happens to the machines, for whoever wants to know.

use std::fmt;
use std::sync::Arc;

use vmm_config::Event;

/// Receives the events of a run. Clones call the same function. By default nobody is told.
#[derive(Clone, Default)]
pub struct EventSink(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl EventSink {
    /// Calls `tell` with each event, on the supervisor's thread, which it must not block.
    pub fn new(tell: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Some(tell) = &self.0 {
            tell(event);
        }
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventSink").field(&self.0.is_some()).finish()
    }
}
