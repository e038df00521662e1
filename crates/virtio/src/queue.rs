//! A virtqueue as its device sees it.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{QueueOwnedT, QueueState, QueueT};
use vmm_bus::EventFd;
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_snapshot::StateError;

use crate::chain::{Chain, Head, Walker};
use crate::{Counters, Fault, Interrupt};

/// How many queue sizes' worth of descriptors one call of [`Queue::drain`] processes before the thread
/// handles other events. With 256 descriptors that takes less than a millisecond, not counting the device's
/// own work.
const ROUNDS: u32 = 4;

/// What the device did with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The device is done with the chain and wrote this many bytes into it.
    Used(u32),
    /// The device keeps the chain and returns it by [`Queue::complete`].
    Kept,
    /// The device has no room now. The chain stays in the queue; when there is room the device drains again.
    Full,
}

/// A split virtqueue (virtio 1.2 §2.7) with all operations of its device. It belongs to the device's thread.
pub struct Queue {
    index: usize,
    inner: virtio_queue::Queue,
    ram: GuestRam,
    walker: Walker,
    indirect: bool,
    kick: Arc<EventFd>,
    interrupt: Arc<dyn Interrupt>,
    counters: Arc<Counters>,
    /// Chains were used since the last check whether the driver wants an interrupt.
    unannounced: bool,
    /// Chains that the device keeps, indexed by head: their length of the writable part.
    kept: Vec<Option<u64>>,
    in_flight: u32,
}

/// How far a device has come in a queue's rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RingPosition {
    /// Index in the available ring of the next chain to take.
    pub(crate) available: u16,
    /// Index in the used ring of the next chain to return.
    pub(crate) used: u16,
}

/// Whether a device can continue in rings of this state, which must be ready: they are memory, and fit the position in them.
///
/// # Errors
/// They don't belong to this state, or their driver has broken them.
pub(crate) fn check_rings(state: QueueState, ram: &GuestRam) -> Result<(), StateError> {
    let outside = |_| StateError::new("rings", "aren't in memory or are misaligned");
    let queue = virtio_queue::Queue::try_from(state).map_err(outside)?;
    let memory = ram.memory();
    if !queue.is_valid(memory) {
        return Err(outside(virtio_queue::Error::QueueNotReady));
    }
    let available = queue.avail_idx(memory, Ordering::Acquire).map_err(outside)?.0;
    let used = queue.used_idx(memory, Ordering::Acquire).map_err(outside)?.0;
    let ahead = available.wrapping_sub(state.next_avail);
    if ahead > state.size {
        let problem = format!("{} is {ahead} behind the available ring in memory", state.next_avail);
        return Err(StateError::new("next_available", problem));
    }
    if used != state.next_used {
        let problem = format!("{} isn't the used ring's index in memory, {used}", state.next_used);
        return Err(StateError::new("next_used", problem));
    }
    Ok(())
}

/// What the queues of a device share.
#[derive(Clone)]
pub(crate) struct QueueContext {
    pub(crate) ram: GuestRam,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) indirect: bool,
}

impl Queue {
    /// A queue that the driver has set up, or that was stopped, in the given state.
    ///
    /// # Errors
    /// [`Fault::Rings`] if the rings are misaligned or not in RAM.
    pub(crate) fn new(
        index: usize,
        state: QueueState,
        kick: Arc<EventFd>,
        context: &QueueContext,
    ) -> Result<Self, Fault> {
        let inner = virtio_queue::Queue::try_from(state).map_err(|_| Fault::Rings { queue: index })?;
        if !inner.is_valid(context.ram.memory()) {
            return Err(Fault::Rings { queue: index });
        }
        Ok(Self {
            index,
            walker: Walker::new(inner.size()),
            kept: vec![None; inner.size().into()],
            inner,
            ram: context.ram.clone(),
            indirect: context.indirect,
            kick,
            interrupt: Arc::clone(&context.interrupt),
            counters: Arc::clone(&context.counters),
            unannounced: false,
            in_flight: 0,
        })
    }

    /// Number of descriptors, and thus the maximum number of chains at a time.
    pub fn size(&self) -> u16 {
        self.inner.size()
    }

    /// Whether the device has taken chains from it since the driver set it up, for devices that need to
    /// distinguish a start from a resume. It is false again after every 65,536 chains.
    pub fn has_begun(&self) -> bool {
        self.inner.next_avail() != 0
    }

    /// Number of chains that the driver has made available since it set the queue up, modulo 2^16.
    ///
    /// # Errors
    /// The rings can't be read.
    pub fn available_index(&self) -> Result<u16, Fault> {
        let index = self.inner.avail_idx(self.ram.memory(), Ordering::Acquire);
        index.map(|index| index.0).map_err(|_| self.rings())
    }

    /// Number of chains that the device keeps.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Processes the queue: suppresses notifications, calls `each` with every available chain, interrupts the
    /// driver if chains were used and it wants to know, enables notifications again, and checks for chains
    /// that became available meanwhile.
    ///
    /// If the driver keeps adding chains, this returns after some rounds and continues after the device's
    /// other events.
    ///
    /// # Errors
    /// The driver violated the specification, or `each` reports that it did; the device must then be reset.
    pub fn drain(&mut self, mut each: impl FnMut(Chain<'_>) -> Result<Step, Fault>) -> Result<(), Fault> {
        let mut budget = u32::from(self.size()) * ROUNDS;
        loop {
            let rings = self.rings();
            self.inner.disable_notification(self.ram.memory()).map_err(|_| rings)?;
            let mut is_full = false;
            while let Some(head) = self.pop()? {
                // A device that kept a chain several times would hold more chains than the queue has
                // descriptors.
                if self.kept.get(usize::from(head.0)).is_some_and(Option::is_some) {
                    return Err(Fault::InUse { head: head.0 });
                }
                let table = self.inner.desc_table();
                let chain = self.walker.walk(&self.ram, table, head.0, self.indirect)?;
                let writable = chain.writable().len();
                budget = budget.saturating_sub(chain.descriptors);
                match each(chain)? {
                    Step::Used(len) => self.use_chain(head, len, writable)?,
                    Step::Kept => self.keep(head, writable),
                    Step::Full => {
                        self.inner.go_to_previous_position();
                        is_full = true;
                        break;
                    }
                }
                if budget == 0 {
                    break;
                }
            }
            self.announce()?;
            if is_full {
                return Ok(());
            }
            // An empty round counts, too: a driver can move the available index and restore it before the
            // next look. No test covers this, because the driver would have to win that race in every round.
            budget = budget.saturating_sub(1);
            if budget == 0 {
                // Non-blocking; if the counter is at its maximum the eventfd is readable anyway.
                let _ = self.kick.write(1);
                return Ok(());
            }
            if !self.inner.enable_notification(self.ram.memory()).map_err(|_| rings)? {
                return Ok(());
            }
        }
    }

    /// Returns a chain that the device kept, with `len` bytes written into it. [`announce`](Self::announce)
    /// must follow. A chain that isn't kept is ignored.
    ///
    /// # Errors
    /// The rings can't be written.
    pub fn complete(&mut self, head: Head, len: u32) -> Result<(), Fault> {
        let kept = self.kept.get_mut(usize::from(head.0)).and_then(Option::take);
        debug_assert!(kept.is_some(), "the device doesn't keep chain {}", head.0);
        let Some(writable) = kept else { return Ok(()) };
        self.in_flight -= 1;
        self.use_chain(head, len, writable)
    }

    /// Interrupts the driver if chains were used since the last call and it wants to know.
    ///
    /// # Errors
    /// The rings can't be read.
    pub fn announce(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.unannounced) && self.wants_interrupt()? {
            self.interrupt_driver();
        }
        Ok(())
    }

    /// Whether the driver wants an interrupt now (virtio 1.2 §2.7.7.2).
    fn wants_interrupt(&mut self) -> Result<bool, Fault> {
        if self.inner.event_idx_enabled() {
            let rings = self.rings();
            return self.inner.needs_notification(self.ram.memory()).map_err(|_| rings);
        }
        // Store the used index before loading the flags; the driver does the opposite.
        fence(Ordering::SeqCst);
        let flags: u16 = self
            .ram
            .memory()
            .load(GuestAddress(self.inner.avail_ring()), Ordering::Relaxed)
            .map_err(|_| self.rings())?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    fn pop(&mut self) -> Result<Option<Head>, Fault> {
        match self.inner.iter(self.ram.memory()) {
            Ok(mut heads) => Ok(heads.next().map(|chain| Head(chain.head_index()))),
            Err(virtio_queue::Error::InvalidAvailRingIndex) => Err(Fault::AvailableIndex),
            Err(_) => Err(self.rings()),
        }
    }

    fn keep(&mut self, head: Head, writable: u64) {
        // The walker has checked that the head is in the table.
        self.kept[usize::from(head.0)] = Some(writable);
        self.in_flight += 1;
    }

    fn use_chain(&mut self, head: Head, len: u32, writable: u64) -> Result<(), Fault> {
        let rings = self.rings();
        // A driver that got a length beyond its buffers would read past them.
        let len = u64::from(len).min(writable) as u32;
        self.inner.add_used(self.ram.memory(), head.0, len).map_err(|_| rings)?;
        self.unannounced = true;
        Ok(())
    }

    /// The state, from which [`new`](Self::new) continues.
    pub(crate) fn state(&self) -> QueueState {
        self.inner.state()
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// The eventfd of the driver's notifications.
    pub(crate) fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Interrupts the driver on behalf of another server, which has checked that it wants an interrupt.
    pub(crate) fn interrupt_driver(&self) {
        self.counters.interrupts.add(1);
        self.interrupt.queue(self.index);
    }

    /// The eventfd by which another server interrupts the driver itself, if there is one ([`Interrupt::line`]).
    pub(crate) fn line(&self) -> Option<Arc<EventFd>> {
        self.interrupt.line(self.index)
    }

    /// Continues where another server has stopped: at `next_available`, with all earlier chains used.
    pub(crate) fn continue_at(&mut self, next_available: u16) {
        self.inner.set_next_avail(next_available);
        // The other server wrote this index last. A driver that overwrites it only harms itself.
        if let Ok(next_used) = self.inner.used_idx(self.ram.memory(), Ordering::Acquire) {
            self.inner.set_next_used(next_used.0);
        }
    }

    fn rings(&self) -> Fault {
        Fault::Rings { queue: self.index }
    }
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("index", &self.index)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
