//! A virtqueue as its device sees it, and the ritual around it.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{QueueOwnedT, QueueState, QueueT};
use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::chain::{Chain, Head, Walker};
use crate::{Counters, Fault, Interrupt};

/// How many rounds of a full queue one call of [`Queue::drain`] works off before the thread looks after other things, counted
/// in descriptors: with 256 of them that is below a millisecond, not counting what the device does with them.
const ROUNDS: u32 = 4;

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The device is done with it, and wrote so many bytes into it.
    Used(u32),
    /// The device keeps it, and gives it back by [`Queue::complete`].
    Kept,
    /// The device has no room now: the chain stays in the queue, and the device drains again when it has.
    Full,
}

/// A split virtqueue (virtio 1.2 §2.7) with everything that a device does to it. It belongs to its device's thread.
pub struct Queue {
    index: usize,
    inner: virtio_queue::Queue,
    ram: GuestRam,
    walker: Walker,
    indirect: bool,
    kick: Arc<EventFd>,
    interrupt: Arc<dyn Interrupt>,
    counters: Arc<Counters>,
    /// Chains were used that the driver hasn't been asked about.
    unannounced: bool,
    /// The chains that the device keeps, by their heads: how many bytes it may write at most.
    kept: Vec<Option<u64>>,
    in_flight: u32,
}

/// What all queues of a device have in common.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) ram: GuestRam,
    pub(crate) interrupt: Arc<dyn Interrupt>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) indirect: bool,
}

impl Queue {
    /// The queue that the driver set up, or that was stopped, as `state` says.
    ///
    /// # Errors
    /// Its rings aren't where they can be.
    pub(crate) fn new(
        index: usize,
        state: QueueState,
        kick: Arc<EventFd>,
        around: &Surroundings,
    ) -> Result<Self, Fault> {
        let inner = virtio_queue::Queue::try_from(state).map_err(|_| Fault::Rings { queue: index })?;
        if !inner.is_valid(around.ram.memory()) {
            return Err(Fault::Rings { queue: index });
        }
        Ok(Self {
            index,
            walker: Walker::new(inner.size()),
            kept: vec![None; inner.size().into()],
            inner,
            ram: around.ram.clone(),
            indirect: around.indirect,
            kick,
            interrupt: Arc::clone(&around.interrupt),
            counters: Arc::clone(&around.counters),
            unannounced: false,
            in_flight: 0,
        })
    }

    /// Its number of descriptors, which is the most chains that there can be at once.
    pub fn size(&self) -> u16 {
        self.inner.size()
    }

    /// Whether the device has taken chains from it since the driver set it up; for a device that must know whether it starts
    /// or goes on. Every 65,536 chains it seems to start.
    pub fn has_begun(&self) -> bool {
        self.inner.next_avail() != 0
    }

    /// Chains that the device keeps.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The whole ritual: keeps the driver from ringing, gives `each` the available chains one after the other, tells the
    /// driver what was used if it wants to know, lets it ring again, and looks once more for chains that came meanwhile.
    ///
    /// A driver that never stops giving chains gets its next turn when the device's other descriptors had theirs.
    ///
    /// # Errors
    /// The driver broke the rules, or `each` says that it did; the device must be reset then.
    pub fn drain(&mut self, mut each: impl FnMut(Chain<'_>) -> Result<Step, Fault>) -> Result<(), Fault> {
        let mut budget = u32::from(self.size()) * ROUNDS;
        loop {
            let rings = self.rings();
            self.inner.disable_notification(self.ram.memory()).map_err(|_| rings)?;
            let mut is_full = false;
            while let Some(head) = self.pop()? {
                // A device that kept one chain many times would hold more of them than the queue has descriptors.
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
            // A round costs something too: a driver can make the index move and be back when the next one looks. No test shows
            // it, for the driver has to win that race in each round.
            budget = budget.saturating_sub(1);
            if budget == 0 {
                // Non-blocking: at the counter's end the eventfd is readable anyway.
                let _ = self.kick.write(1);
                return Ok(());
            }
            if !self.inner.enable_notification(self.ram.memory()).map_err(|_| rings)? {
                return Ok(());
            }
        }
    }

    /// Gives back a chain that the device kept, with `len` bytes written into it. [`announce`](Self::announce) follows.
    /// One that it doesn't keep is nothing.
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

    /// Rings if chains were used since the last time and the driver wants to know.
    ///
    /// # Errors
    /// The rings can't be read.
    pub fn announce(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.unannounced) && self.driver_listens()? {
            self.ring();
        }
        Ok(())
    }

    /// Whether the driver wants an interrupt now (virtio 1.2 §2.7.7.2).
    fn driver_listens(&mut self) -> Result<bool, Fault> {
        if self.inner.event_idx_enabled() {
            let rings = self.rings();
            return self.inner.needs_notification(self.ram.memory()).map_err(|_| rings);
        }
        // The used index before the flags: the driver does it the other way round.
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
        // The walker has found that the head is in the table.
        self.kept[usize::from(head.0)] = Some(writable);
        self.in_flight += 1;
    }

    fn use_chain(&mut self, head: Head, len: u32, writable: u64) -> Result<(), Fault> {
        let rings = self.rings();
        // A device that says more than there is would let a driver read beyond its buffer.
        let len = u64::from(len).min(writable) as u32;
        self.inner.add_used(self.ram.memory(), head.0, len).map_err(|_| rings)?;
        self.unannounced = true;
        Ok(())
    }

    /// What it is, to go on later or elsewhere.
    pub(crate) fn state(&self) -> QueueState {
        self.inner.state()
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// What the driver rings.
    pub(crate) fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// Rings the driver on behalf of somebody else, who has asked whether it wants to know.
    pub(crate) fn ring(&self) {
        self.counters.interrupts.add(1);
        self.interrupt.queue(self.index);
    }

    /// Goes on where somebody else has stopped: behind `next_available`, with all that was taken used.
    pub(crate) fn go_on_at(&mut self, next_available: u16) {
        self.inner.set_next_avail(next_available);
        // Whoever served it wrote this index last; what a driver writes there is its own loss.
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
