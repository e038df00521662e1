//! Log messages of a device.

use std::sync::{Arc, Mutex};

use vmm_bus::EventFd;

/// Maximum number of queued messages. In one burst a network card reports 256 refused destinations. Messages
/// beyond the limit are dropped and counted.
const WAITING: usize = 512;

/// Messages of a device since the last call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// In order, at most 512.
    pub texts: Vec<String>,
    /// Destinations that a rule has refused, each also the subject of a text; at most 512.
    pub refused: Vec<String>,
    /// Number of messages dropped since then.
    pub lost: u64,
}

/// Queue from a device's thread to the logging thread.
#[derive(Debug)]
pub(crate) struct NoticeQueue {
    waiting: Mutex<Notices>,
    /// Written when messages are available.
    news: Arc<EventFd>,
}

impl NoticeQueue {
    pub(crate) fn new(news: Arc<EventFd>) -> Self {
        Self { waiting: Mutex::default(), news }
    }

    pub(crate) fn push(&self, text: String) {
        let mut waiting = self.waiting.lock().expect("no panic while it is held");
        if waiting.texts.len() == WAITING {
            waiting.lost += 1;
            return;
        }
        waiting.texts.push(text);
        drop(waiting);
        // Non-blocking; if the counter is at its maximum the eventfd is readable anyway.
        let _ = self.news.write(1);
    }

    /// Queues a destination beside the text about it.
    pub(crate) fn push_refused(&self, destination: String) {
        let mut waiting = self.waiting.lock().expect("no panic while it is held");
        if waiting.refused.len() < WAITING {
            waiting.refused.push(destination);
        }
    }

    pub(crate) fn take(&self) -> Notices {
        std::mem::take(&mut *self.waiting.lock().expect("no panic while it is held"))
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn queue() -> NoticeQueue {
        NoticeQueue::new(Arc::new(EventFd::new().unwrap()))
    }

    #[test]
    fn notices_are_taken_once_in_their_order() {
        let queue = queue();
        queue.push("first".to_owned());
        queue.push("second".to_owned());
        assert_eq!(queue.news.read().unwrap(), 2);
        assert_eq!(queue.take().texts, ["first", "second"]);
        assert_eq!(queue.take(), Notices::default());
    }

    #[test]
    fn notices_beyond_the_queue_are_counted_and_later_ones_are_kept_again() {
        let queue = queue();
        (0..518).for_each(|number| queue.push(number.to_string()));
        let taken = queue.take();
        assert_eq!((taken.texts.len(), taken.texts[511].as_str(), taken.lost), (512, "511", 6));
        queue.push("again".to_owned());
        assert_eq!(queue.take(), Notices { texts: vec!["again".to_owned()], ..Notices::default() });
    }
}
