//! MSI-X for a device: the vectors of its queues and its configuration.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_bus::EventFd;
use vmm_pci::{Message, Msix, Vector};
use vmm_sandbox::Allow;
use vmm_snapshot::StateError;

use crate::Interrupt;

/// No vector: there is no interrupt.
pub(super) const NO_VECTOR: u16 = 0xffff;
/// ISR status: chains were used.
const ISR_QUEUE: u8 = 1;
/// ISR status: the configuration has changed.
const ISR_CONFIG: u8 = 2;

/// Sends message-signalled interrupts to the guest.
pub trait MessageSender: Send + Sync {
    /// The system calls of a thread that sends.
    fn calls(&self) -> &'static [Allow] {
        &[]
    }

    /// Sends one. It doesn't block. The guest chose the message: one that no interrupt controller takes is dropped.
    fn send(&self, message: Message);

    /// Creates a line for servers outside of this process. `None` if the host is out of resources.
    fn line(&self) -> Option<Box<dyn MessageLine>> {
        None
    }
}

/// An eventfd that sends a message when it is written.
pub trait MessageLine: Send + Sync {
    /// The eventfd.
    fn event(&self) -> &Arc<EventFd>;

    /// Sets the message. With `None`, writes wait in the eventfd for the next message.
    fn route(&mut self, message: Option<Message>);
}

/// A function's interrupts.
pub(super) struct PciInterrupt {
    vectors: Mutex<Vectors>,
    sender: Box<dyn MessageSender>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    isr: AtomicU8,
}

/// The registers of a function's interrupts besides the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InterruptRegisters {
    pub(super) isr: u8,
    pub(super) config_vector: u16,
    pub(super) queue_vectors: Vec<u16>,
}

struct Vectors {
    msix: Msix,
    /// Of queues that other servers use.
    lines: Vec<Option<Box<dyn MessageLine>>>,
}

impl PciInterrupt {
    /// A vector for each queue, and one for the configuration.
    pub(super) fn new(queues: usize, sender: Box<dyn MessageSender>) -> Self {
        let no_vector = |_| AtomicU16::new(NO_VECTOR);
        Self {
            vectors: Mutex::new(Vectors {
                msix: Msix::new(queues + 1),
                lines: (0..queues).map(|_| None).collect(),
            }),
            sender,
            config_vector: no_vector(0),
            queue_vectors: (0..queues).map(no_vector).collect(),
            isr: AtomicU8::new(0),
        }
    }

    pub(super) fn vectors(&self) -> usize {
        self.queue_vectors.len() + 1
    }

    /// The vector of the configuration, or of a queue.
    pub(super) fn vector(&self, queue: Option<u16>) -> u16 {
        self.register(queue).map_or(NO_VECTOR, |vector| vector.load(Ordering::SeqCst))
    }

    /// Sets it. A vector that doesn't exist reads back as [`NO_VECTOR`], which tells the driver that it failed.
    pub(super) fn set_vector(&self, queue: Option<u16>, vector: u16) {
        let vector = if usize::from(vector) < self.vectors() { vector } else { NO_VECTOR };
        if let Some(register) = self.register(queue) {
            register.store(vector, Ordering::SeqCst);
            self.route(&mut self.lock());
        }
    }

    fn register(&self, queue: Option<u16>) -> Option<&AtomicU16> {
        match queue {
            None => Some(&self.config_vector),
            Some(queue) => self.queue_vectors.get(usize::from(queue)),
        }
    }

    /// The ISR status, which reading clears.
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    /// Whether the cause of an interrupt is left to ISR status (virtio 1.2 §4.1.4.5.1, for STATUS).
    pub(super) fn has_status(&self) -> bool {
        !self.lock().msix.enabled && self.isr.load(Ordering::SeqCst) != 0
    }

    /// The registers, and the table with its pending bits.
    pub(super) fn registers(&self) -> (InterruptRegisters, Vec<Vector>) {
        let vectors = self.lock();
        let queue_vectors = self.queue_vectors.iter().map(|vector| vector.load(Ordering::SeqCst)).collect();
        let isr = self.isr.load(Ordering::SeqCst);
        let registers = InterruptRegisters { isr, config_vector: self.vector(None), queue_vectors };
        (registers, vectors.msix.vectors.clone())
    }

    /// Whether the function can have these.
    ///
    /// # Errors
    /// The register that it can't have.
    pub(super) fn check(&self, registers: &InterruptRegisters, table: &[Vector]) -> Result<(), StateError> {
        let InterruptRegisters { isr, config_vector, queue_vectors } = registers;
        let lens = [
            ("vectors", table.len(), self.vectors()),
            ("queue_vectors", queue_vectors.len(), self.queue_vectors.len()),
        ];
        for (field, len, ours) in lens {
            if len != ours {
                return Err(StateError::new(field, format!("has {len}, this function {ours}")));
            }
        }
        let exists = |vector: &u16| *vector == NO_VECTOR || usize::from(*vector) < self.vectors();
        if let Some(vector) = queue_vectors.iter().chain([config_vector]).find(|vector| !exists(vector)) {
            return Err(StateError::new("queue_vectors", format!("there is no vector {vector}")));
        }
        if isr & !(ISR_QUEUE | ISR_CONFIG) != 0 {
            return Err(StateError::new("isr", format!("{isr:#x} has unknown bits")));
        }
        Ok(())
    }

    /// Sets registers and table that were [checked](Self::check), Message Control, and whether the function may send messages.
    pub(super) fn restore(
        &self,
        registers: &InterruptRegisters,
        table: &[Vector],
        (control, bus_master): (u16, bool),
    ) {
        self.isr.store(registers.isr, Ordering::SeqCst);
        self.config_vector.store(registers.config_vector, Ordering::SeqCst);
        for (into, vector) in self.queue_vectors.iter().zip(&registers.queue_vectors) {
            into.store(*vector, Ordering::SeqCst);
        }
        self.change(|msix| {
            msix.vectors.copy_from_slice(table);
            msix.set_control(control);
            msix.bus_master = bus_master;
        });
    }

    /// Calls `look` with the vectors.
    pub(super) fn read<R>(&self, look: impl FnOnce(&Msix) -> R) -> R {
        look(&self.lock().msix)
    }

    /// Changes the vectors, and sends the messages that this has made deliverable.
    pub(super) fn change(&self, change: impl FnOnce(&mut Msix)) {
        let mut vectors = self.lock();
        change(&mut vectors.msix);
        // Under the lock: after a mask is set, nothing is sent any more.
        vectors.msix.take_deliverable().for_each(|message| self.sender.send(message));
        self.route(&mut vectors);
    }

    /// Gives each line its queue's message, if that can be sent.
    fn route(&self, vectors: &mut Vectors) {
        let Vectors { msix, lines } = vectors;
        for (line, vector) in lines.iter_mut().zip(&self.queue_vectors) {
            if let Some(line) = line {
                line.route(msix.message(vector.load(Ordering::SeqCst).into()));
            }
        }
    }

    /// An interrupt of the configuration, or of a queue.
    fn fire(&self, queue: Option<u16>) {
        let mut vectors = self.lock();
        // virtio 1.2 §4.1.4.5.1: the queue bit is only used without MSI-X, the configuration bit always.
        match queue {
            None => _ = self.isr.fetch_or(ISR_CONFIG, Ordering::SeqCst),
            Some(_) if !vectors.msix.enabled => _ = self.isr.fetch_or(ISR_QUEUE, Ordering::SeqCst),
            Some(_) => {}
        }
        // Under the lock: after a reset no vector is mapped. The table has no entry for NO_VECTOR.
        if let Some(message) = vectors.msix.fire(self.vector(queue).into()) {
            self.sender.send(message);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vectors> {
        self.vectors.lock().expect("no panic while it is held")
    }
}

impl Interrupt for PciInterrupt {
    fn calls(&self) -> &'static [Allow] {
        self.sender.calls()
    }

    fn queue(&self, index: usize) {
        // A queue that doesn't exist has no vector.
        self.fire(Some(u16::try_from(index).unwrap_or(u16::MAX)));
    }

    fn config(&self) {
        self.fire(None);
    }

    fn line(&self, index: usize) -> Option<Arc<EventFd>> {
        let mut vectors = self.lock();
        let slot = vectors.lines.get_mut(index)?;
        if slot.is_none() {
            *slot = self.sender.line();
        }
        let event = slot.as_ref().map(|line| Arc::clone(line.event()));
        self.route(&mut vectors);
        event
    }

    /// The table is unchanged, because a virtio reset doesn't reset the function. But nothing is pending any
    /// more (PCI Local Bus 3.0 §6.8.3.5): a driver that unmasks a vector later would be interrupted for nothing.
    fn reset(&self) {
        let mut vectors = self.lock();
        self.isr.store(0, Ordering::SeqCst);
        self.config_vector.store(NO_VECTOR, Ordering::SeqCst);
        self.queue_vectors.iter().for_each(|vector| vector.store(NO_VECTOR, Ordering::SeqCst));
        vectors.msix.vectors.iter_mut().for_each(|vector| vector.pending = false);
        self.route(&mut vectors);
        for line in vectors.lines.iter().flatten() {
            // Interrupts that waited are dropped.
            let _ = line.event().read();
        }
    }
}

impl std::fmt::Debug for PciInterrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PciInterrupt").field("vectors", &self.vectors()).finish_non_exhaustive()
    }
}
