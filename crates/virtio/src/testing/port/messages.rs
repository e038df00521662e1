//! The interrupt controller of a PCI driver: it takes messages, one for each vector.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vmm_bus::EventFd;
use vmm_pci::Message;

use crate::MessageSender;

/// The vector of the configuration. Those of the queues follow.
pub(super) const CONFIG_VECTOR: u16 = 0;
/// Where local APICs take messages.
const ADDRESS: u64 = 0xfee0_1000;
/// The first vector's data.
const DATA: u32 = 0x4030;

/// What arrived.
pub(super) struct Messages {
    /// Written at each message.
    pub(super) event: EventFd,
    counts: Vec<AtomicU64>,
    /// Messages that the driver has set up for no vector.
    strays: AtomicU64,
    config_changed: AtomicBool,
}

impl Messages {
    /// For this number of vectors.
    pub(super) fn new(vectors: usize) -> Self {
        Self {
            event: EventFd::new().expect("a descriptor"),
            counts: (0..vectors).map(|_| AtomicU64::new(0)).collect(),
            strays: AtomicU64::new(0),
            config_changed: AtomicBool::new(false),
        }
    }

    /// The message to be set up for a vector.
    pub(super) fn of_vector(vector: usize) -> Message {
        Message { address: ADDRESS, data: DATA + vector as u32 }
    }

    /// Messages of a vector so far.
    pub(super) fn count(&self, vector: usize) -> u64 {
        self.counts.get(vector).map_or(0, |count| count.load(Ordering::SeqCst))
    }

    /// Messages of no vector so far.
    pub(super) fn strays(&self) -> u64 {
        self.strays.load(Ordering::SeqCst)
    }

    /// Whether the configuration's vector has fired since the last call.
    pub(super) fn take_config_change(&self) -> bool {
        self.config_changed.swap(false, Ordering::SeqCst)
    }
}

/// Sends to a [`Messages`].
pub(super) struct Sender(pub(super) Arc<Messages>);

impl MessageSender for Sender {
    fn send(&self, message: Message) {
        let vector = message.data.checked_sub(DATA).filter(|_| message.address == ADDRESS);
        match vector.and_then(|vector| self.0.counts.get(vector as usize)) {
            Some(count) => count.fetch_add(1, Ordering::SeqCst),
            None => self.0.strays.fetch_add(1, Ordering::SeqCst),
        };
        if vector == Some(CONFIG_VECTOR.into()) {
            self.0.config_changed.store(true, Ordering::SeqCst);
        }
        // It can't block: the counter would have to reach 2^64 - 1.
        let _ = self.0.event.write(1);
    }
}
