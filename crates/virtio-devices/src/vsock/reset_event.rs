//! The event by which a restored guest learns that its connections are gone (virtio 1.2 §5.10.6.7).
//!
//! ```text
//!   none --load--> due --the guest has a buffer--> sent --it gives a buffer back--> none
//! ```
//!
//! Linux resets all connections when it handles the event. One from the host that it accepted just before would be among them, so packets
//! for the guest wait until it has handled it.

use std::time::{Duration, Instant};

use vmm_virtio::{Fault, Session, Step};

use super::properties::EVENTQ;

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, le32.
const TRANSPORT_RESET: [u8; 4] = [0; 4];
/// How long packets wait for a guest that doesn't give its buffer back. Linux does at once; ten seconds are for one that hardly runs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the guest has to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ResetEvent {
    /// No.
    #[default]
    None,
    /// It will be, as soon as it has a buffer for the event.
    Due,
    /// It was, when it had made this number of buffers available, and packets for it wait until then at the latest.
    Sent { available: u16, until: Instant },
}

impl ResetEvent {
    /// Whether packets for the guest have to wait.
    pub(super) fn is_holding(&self) -> bool {
        matches!(self, Self::Sent { .. })
    }

    /// Sends the event if it is due and there is a buffer, or notices that the guest has handled it.
    ///
    /// # Errors
    /// The guest has violated the specification.
    pub(super) fn proceed(&mut self, session: &mut Session) -> Result<(), Fault> {
        let now = Instant::now();
        match *self {
            Self::None => {}
            Self::Due => {
                if send(session)? {
                    *self = Self::Sent { available: available(session)?, until: now + PATIENCE };
                }
            }
            Self::Sent { available: before, until } => {
                if available(session)? != before || now >= until {
                    *self = Self::None;
                }
            }
        }
        Ok(())
    }

    /// The machine resumes: the guest has all its time again.
    pub(super) fn refresh(&mut self) {
        if let Self::Sent { until, .. } = self {
            *until = Instant::now() + PATIENCE;
        }
    }
}

fn available(session: &mut Session) -> Result<u16, Fault> {
    session.queue(EVENTQ).map_or(Ok(0), |queue| queue.available_index())
}

/// Whether there was a buffer for the event.
fn send(session: &mut Session) -> Result<bool, Fault> {
    let mut is_sent = false;
    session.drain(EVENTQ, |chain| {
        if is_sent {
            return Ok(Step::Full);
        }
        // A chain that is too short is returned, so that it doesn't block the next one.
        let Some((event, _)) = chain.writable().split_at(TRANSPORT_RESET.len() as u64) else {
            return Ok(Step::Used(0));
        };
        event.write(&TRANSPORT_RESET)?;
        is_sent = true;
        Ok(Step::Used(TRANSPORT_RESET.len() as u32))
    })?;
    Ok(is_sent)
}
