//! What a client is still to receive, within a bound.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde::Serialize;
use vmm_config::{Event, EventLine};

/// Bytes from which events are dropped, and no further request is read. A response is always kept: of a client's requests only so many are
/// in progress at a time.
const FULL: usize = 64 << 10;

/// The lines for one client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: VecDeque<u8>,
    /// Events dropped since the last that was kept.
    lost: u64,
}

impl Outbox {
    pub(crate) fn push(&mut self, line: &impl Serialize) {
        // Our types have text keys and no values that JSON lacks, so this can't fail; without it the client waits in vain.
        if let Ok(text) = serde_json::to_string(line) {
            self.bytes.extend(text.bytes());
            self.bytes.push_back(b'\n');
        }
    }

    /// Queues an event, or counts it as lost if the client reads too slowly. The last one of a monitor is always kept.
    pub(crate) fn push_event(&mut self, event: Event) {
        if self.is_full() && !matches!(event, Event::Ended { .. }) {
            self.lost += if let Event::Lost(count) = event { count } else { 1 };
            return;
        }
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.push(&EventLine { event: Event::Lost(lost) });
        }
        self.push(&EventLine { event });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The client has gone.
    pub(crate) fn send_to(&mut self, socket: impl AsFd) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match send(&socket, self.bytes.as_slices().0, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => drop(self.bytes.drain(..len)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.bytes.is_empty() {
            // Many idle clients shouldn't keep what one long response needed.
            self.bytes.shrink_to(4096);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn events_that_a_slow_client_has_no_room_for_are_counted_in_their_place() {
        let (client, ours) = UnixStream::pair().unwrap();
        let mut outbox = Outbox::default();
        while !outbox.is_full() {
            outbox.push_event(Event::Paused);
        }
        (0..3).for_each(|_| outbox.push_event(Event::Resumed));
        outbox.send_to(&ours).unwrap();
        assert!(outbox.is_empty(), "a socket takes more than {FULL} bytes");
        outbox.push_event(Event::Started);
        outbox.send_to(&ours).unwrap();
        drop(ours);
        let lines: Vec<_> = BufReader::new(client).lines().map(Result::unwrap).collect();
        let (last, paused) = lines.split_last_chunk::<2>().map(|(paused, last)| (last, paused)).unwrap();
        assert!(paused.iter().all(|line| line == r#"{"event":"paused"}"#));
        assert_eq!(last, &[r#"{"event":{"lost":3}}"#, r#"{"event":"started"}"#]);
    }

    #[test]
    fn last_event_is_kept_however_slow_the_client() {
        let mut outbox = Outbox::default();
        while !outbox.is_full() {
            outbox.push_event(Event::Paused);
        }
        outbox.push_event(Event::Ended { exit_code: 0, reason: "quit".to_owned() });
        let bytes: Vec<u8> = outbox.bytes.into();
        assert!(bytes.ends_with(b"\"reason\":\"quit\"}}}\n"));
    }
}
