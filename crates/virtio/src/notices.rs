//! What a device wants said in the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use vmm_sys_util::eventfd::EventFd;

/// Texts that wait at most: in one burst a network card names 256 destinations that it refused. A guest that makes its device
/// say more than this, before somebody takes them, says it for nobody.
const WAITING: usize = 512;

/// What a device said since somebody asked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notices {
    /// In their order, at most 512.
    pub texts: Vec<String>,
    /// How many more there were, which nobody kept.
    pub lost: u64,
}

/// The way from a device's thread to who logs.
#[derive(Debug)]
pub(crate) struct NoticeQueue {
    waiting: Mutex<(VecDeque<String>, u64)>,
    /// Written when there is something.
    news: Arc<EventFd>,
}

impl NoticeQueue {
    pub(crate) fn new(news: Arc<EventFd>) -> Self {
        Self { waiting: Mutex::default(), news }
    }

    pub(crate) fn push(&self, text: String) {
        let mut waiting = self.waiting.lock().expect("no panic while it is held");
        if waiting.0.len() == WAITING {
            waiting.1 += 1;
            return;
        }
        waiting.0.push_back(text);
        drop(waiting);
        // Non-blocking; at its counter's end it can be read anyway.
        let _ = self.news.write(1);
    }

    pub(crate) fn take(&self) -> Notices {
        let (texts, lost) = std::mem::take(&mut *self.waiting.lock().expect("no panic while it is held"));
        Notices { texts: texts.into(), lost }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    fn queue() -> NoticeQueue {
        NoticeQueue::new(Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()))
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
    fn notices_beyond_the_queue_are_counted_and_those_behind_are_kept_again() {
        let queue = queue();
        (0..518).for_each(|number| queue.push(number.to_string()));
        let taken = queue.take();
        assert_eq!((taken.texts.len(), taken.texts[511].as_str(), taken.lost), (512, "511", 6));
        queue.push("again".to_owned());
        assert_eq!(queue.take(), Notices { texts: vec!["again".to_owned()], lost: 0 });
    }
}
