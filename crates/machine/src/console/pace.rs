//! How often a console looks for more of what the guest prints.

use std::io;
use std::time::Duration;

use event_manager::{EventOps, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use crate::watch::Watch;

/// The time between two looks at a guest that prints a little at a time. Nobody sees it at a terminal.
const PAUSE: Duration = Duration::from_millis(1);
/// Bytes for which it is worth waking up.
const WORTH_WAKING: usize = 512;

/// Lets the output of a guest that prints byte by byte gather.
///
/// The guest's word that it has printed wakes the main thread, which takes one byte and sleeps again: two changes of thread
/// for each byte, more than the byte's own exit costs where both threads share a processor. So after a few bytes, which are
/// written at once, the console doesn't look again for a moment. A guest that prints a lot is never kept waiting.
#[derive(Debug)]
pub(super) struct Pace {
    timer: TimerFd,
    watch: Watch,
    is_pausing: bool,
}

impl Pace {
    /// The end of a pause is an event with `token`.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new(token: u32) -> io::Result<Self> {
        Ok(Self { timer: TimerFd::new()?, watch: Watch::new(token, EventSet::IN), is_pausing: false })
    }

    /// Whether the guest's output is left alone for now.
    pub(super) fn is_pausing(&self) -> bool {
        self.is_pausing
    }

    /// So many bytes came. Whether a pause begins.
    pub(super) fn took(&mut self, len: usize, ops: &mut EventOps<'_>) -> bool {
        // A timer that can't be set is no pause.
        self.is_pausing = len < WORTH_WAKING && self.timer.reset(PAUSE, None).is_ok();
        if self.is_pausing {
            self.watch.arm(&self.timer, ops);
        }
        self.is_pausing
    }

    /// The pause is over, by its event.
    pub(super) fn over(&mut self) {
        // It has expired, so this doesn't wait.
        let _ = self.timer.wait();
        self.is_pausing = false;
    }

    /// Ends the pause at once: its event comes.
    pub(super) fn hurry(&mut self) {
        if self.is_pausing {
            // If it fails, the pause just takes its time.
            let _ = self.timer.reset(Duration::from_nanos(1), None);
        }
    }

    /// The event loop that waited is no more, and no pause is under way.
    pub(super) fn forget(&mut self) {
        self.watch.forget();
        self.is_pausing = false;
        // One that can't be stopped expires unseen, or ends a later pause too early.
        let _ = self.timer.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, mpsc};

    use event_manager::{EventManager, SubscriberId, SubscriberOps};
    use vmm_bus::{BusDevice, IrqLine};
    use vmm_config::Serial;
    use vmm_devices::Uart;

    use super::*;
    use crate::console::{Console, open_all};
    use crate::event_loop::Source;

    /// For what happens at once on a machine that isn't busy.
    const DEADLINE_MS: i32 = 10_000;

    /// COM1 at a socket with a client, and nothing printed yet.
    struct Machine {
        uart: Arc<Uart>,
        events: EventManager<Source>,
        console: SubscriberId,
        client: UnixStream,
        _directory: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("console.sock");
            let uart = Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap());
            let serial: Serial = serde_json::from_value(serde_json::json!({"socket": path})).unwrap();
            let (messages, _) = mpsc::channel();
            let mut opened = open_all(&serial, Arc::clone(&uart), vec![], vec![], &messages).unwrap();
            let mut events = EventManager::new().unwrap();
            let console = events.add_subscriber(Source::Console(Box::new(opened.remove(0))));
            let client = UnixStream::connect(&path).unwrap();
            client.set_nonblocking(true).unwrap();
            events.run().unwrap();
            Self { uart, events, console, client, _directory: directory }
        }

        fn console(&mut self) -> &mut Console {
            match self.events.subscriber_mut(self.console).unwrap() {
                Source::Console(console) => console,
                _ => unreachable!("it is the only subscriber"),
            }
        }

        fn print(&self, text: &[u8]) {
            text.iter().for_each(|byte| _ = self.uart.write(0, &[*byte]));
        }

        /// Lets the event loop do what is to be done now; whether that was anything.
        fn turn(&mut self) -> bool {
            self.events.run_with_timeout(0).unwrap() > 0
        }

        /// Lets it wait for something to do.
        fn wait(&mut self) {
            assert_ne!(self.events.run_with_timeout(DEADLINE_MS).unwrap(), 0, "nothing has happened");
        }

        fn heard(&mut self) -> Vec<u8> {
            let mut bytes = [0; 1024];
            let len = self.client.read(&mut bytes).unwrap_or(0);
            bytes[..len].to_vec()
        }
    }

    /// The first byte comes at once, and what follows gathers without a turn of the event loop for each.
    #[test]
    fn console_lets_what_is_printed_after_a_byte_gather_until_the_pause_is_over() {
        let mut machine = Machine::new();
        machine.print(b"a");
        assert!(machine.turn());
        assert_eq!(machine.heard(), b"a");
        // Time stands still.
        machine.console().pace().timer.clear().unwrap();
        machine.print(b"bc");
        assert!(!machine.turn());
        machine.console().pace().timer.reset(Duration::from_nanos(1), None).unwrap();
        machine.wait();
        assert_eq!(machine.heard(), b"bc");
    }

    #[test]
    fn console_whose_guest_has_ended_waits_for_no_pause() {
        let mut machine = Machine::new();
        machine.print(b"a");
        assert!(machine.turn());
        machine.console().pace().timer.clear().unwrap();
        machine.print(b"b");
        machine.console().hurry();
        machine.wait();
        assert_eq!(machine.heard(), b"ab");
        assert!(machine.console().is_drained());
    }

    #[test]
    fn console_listens_again_once_a_pause_has_brought_nothing() {
        let mut machine = Machine::new();
        machine.print(b"a");
        assert!(machine.turn());
        machine.wait();
        assert!(!machine.console().pace().is_pausing());
        machine.print(b"b");
        assert!(machine.turn());
        assert_eq!(machine.heard(), b"ab");
    }

    #[test]
    fn console_of_a_guest_that_prints_a_lot_makes_no_pause() {
        let mut machine = Machine::new();
        machine.print(&[b'x'; WORTH_WAKING]);
        assert!(machine.turn());
        machine.print(b"y");
        assert!(machine.turn());
        assert_eq!(machine.heard().len(), WORTH_WAKING + 1);
    }
}
