//! The main thread's event loop and its sources.
//!
//! A source handles its own descriptors. Events that concern the whole machine go to the supervisor as [`Message`]s, which it
//! reads after each turn of the loop; no source calls another.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use vmm_bus::EventFd;

use crate::Error;
use crate::console::Console;
use crate::deadline::Deadline;
use crate::diagnostics::MessageWriter;
use crate::keeper_watch::KeeperWatch;
use crate::message::Message;
use crate::signals::Signals;
use crate::watched::Watched;

/// Sources and the epoll that watches their descriptors.
pub(crate) struct EventLoop(EventManager<Subscriber>);

impl EventLoop {
    /// # Errors
    /// The host is out of descriptors.
    pub(crate) fn new() -> Result<Self, Error> {
        EventManager::new().map(Self).map_err(epoll_error)
    }

    /// Adds a source, whose descriptors are watched from now on.
    ///
    /// # Errors
    /// The host is out of watches or memory. The source is dropped: without its events the monitor would wait for ever.
    pub(crate) fn add(&mut self, source: Source) -> Result<SubscriberId, Error> {
        let id = self.subscribe(source);
        match self.take_failure(id) {
            None => Ok(id),
            Some(error) => {
                self.remove(id);
                Err(error)
            }
        }
    }

    /// Adds consoles. If one can't be watched they stay in the loop, from which the caller removes them: a console isn't dropped
    /// on this thread, since closing its file may block.
    pub(crate) fn add_consoles(&mut self, consoles: Vec<Console>) -> (Vec<SubscriberId>, Result<(), Error>) {
        let sources = consoles.into_iter().map(|console| Source::Console(Box::new(console)));
        let ids: Vec<SubscriberId> = sources.map(|source| self.subscribe(source)).collect();
        let failure = ids.iter().find_map(|id| self.take_failure(*id));
        (ids, failure.map_or(Ok(()), Err))
    }

    fn subscribe(&mut self, source: Source) -> SubscriberId {
        self.0.add_subscriber(Subscriber { source, failure: None })
    }

    fn take_failure(&mut self, id: SubscriberId) -> Option<Error> {
        self.0.subscriber_mut(id).ok()?.failure.take().map(epoll_error)
    }

    /// Removes a source.
    pub(crate) fn remove(&mut self, id: SubscriberId) -> Option<Source> {
        self.0.remove_subscriber(id).ok().map(|subscriber| subscriber.source)
    }

    /// The console with this id.
    pub(crate) fn console(&mut self, id: SubscriberId) -> Option<&mut Console> {
        match self.0.subscriber_mut(id) {
            Ok(Subscriber { source: Source::Console(console), .. }) => Some(console),
            _ => None,
        }
    }

    /// Waits for events, at most for `time`, and has their sources handle them. Returns the number of events.
    ///
    /// # Errors
    /// epoll failed.
    pub(crate) fn turn(&mut self, time: Option<Duration>) -> Result<usize, Error> {
        let millis = time.map_or(-1, |time| time.as_millis().try_into().unwrap_or(i32::MAX));
        self.0.run_with_timeout(millis).map_err(Error::EventLoop)
    }
}

fn epoll_error(error: event_manager::Error) -> Error {
    match error {
        event_manager::Error::Epoll(errno) => Error::Epoll(io::Error::from_raw_os_error(errno.errno())),
        error => Error::EventLoop(error),
    }
}

/// An event source.
#[derive(Debug)]
pub(crate) enum Source {
    Console(Box<Console>),
    Signals(Signals),
    EventFd(EventFdSource),
    MessageWriter(MessageWriter),
    Deadline(Deadline),
    KeeperWatch(KeeperWatch),
}

impl Source {
    fn watched(&mut self) -> &mut dyn Watched {
        match self {
            Self::Console(source) => &mut **source,
            Self::Signals(source) => source,
            Self::EventFd(source) => source,
            Self::MessageWriter(source) => source,
            Self::Deadline(source) => source,
            Self::KeeperWatch(source) => source,
        }
    }
}

/// A source, and why it couldn't be watched, which [`MutEventSubscriber::init`] can't return.
struct Subscriber {
    source: Source,
    failure: Option<event_manager::Error>,
}

impl MutEventSubscriber for Subscriber {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.failure = self.source.watched().watch(ops).err();
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        self.source.watched().process(events, ops);
    }
}

/// An eventfd that other threads write, turned into a [`Message`].
#[derive(Debug)]
pub(crate) struct EventFdSource {
    event: Arc<EventFd>,
    message: Message,
    messages: Sender<Message>,
}

impl EventFdSource {
    /// Sends `message` when `event` has been written; several writes may cause one message.
    pub(crate) fn new(event: Arc<EventFd>, message: Message, messages: Sender<Message>) -> Self {
        Self { event, message, messages }
    }
}

impl Watched for EventFdSource {
    fn watch(&mut self, ops: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        ops.add(Events::new(&*self.event, EventSet::IN))
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        // Non-blocking. The count doesn't matter.
        let _ = self.event.read();
        // The supervisor owns the receiver and this source; the send can't fail while both exist.
        let _ = self.messages.send(self.message);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use vmm_bus::IrqLine;
    use vmm_config::Serial;
    use vmm_devices::Uart;

    use super::*;
    use crate::console::{Lines, open_now};

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn eventfd(event: &Arc<EventFd>, messages: &Sender<Message>) -> Source {
        Source::EventFd(EventFdSource::new(Arc::clone(event), Message::Wake, messages.clone()))
    }

    /// The loop refuses a descriptor that it watches already, as the kernel does if there are no more watches.
    #[test]
    fn source_that_cannot_be_watched_is_an_error_and_leaves_the_others() {
        let (messages, received) = channel();
        let event = Arc::new(EventFd::new().unwrap());
        let mut events = EventLoop::new().unwrap();
        events.add(eventfd(&event, &messages)).unwrap();
        let refused = events.add(eventfd(&event, &messages));
        assert!(matches!(refused, Err(Error::EventLoop(_))), "{refused:?}");
        event.write(1).unwrap();
        assert_eq!(events.turn(NOW).unwrap(), 1);
        assert_eq!(received.try_iter().count(), 1);
    }

    #[test]
    fn console_whose_descriptor_cannot_be_watched_is_an_error_and_can_be_removed() {
        let (messages, _received) = channel();
        let uart = Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap());
        let open = || {
            let lines = Lines { serial: Serial::None, uart: uart.clone(), consoles: vec![] };
            open_now(lines, vec![], &messages).unwrap().remove(0)
        };
        let mut events = EventLoop::new().unwrap();
        let (ids, watched) = events.add_consoles(vec![open(), open()]);
        assert!(matches!(watched, Err(Error::EventLoop(_))), "{watched:?}");
        let removed = ids.into_iter().filter_map(|id| events.remove(id));
        assert_eq!(removed.count(), 2);
    }

    #[test]
    fn error_of_a_limit_on_watches_names_it_and_is_the_hosts() {
        let error = Error::Epoll(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(
            error.to_string(),
            "epoll: No space left on device (os error 28); all programs of this user watch too many descriptors: \
             raise /proc/sys/fs/epoll/max_user_watches"
        );
        assert_eq!(error.blame(), crate::error::Blame::Host);
    }
}
