//! The transport-independent control side of a device: status, features, queues, configuration.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard};

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::QueueState;
use vmm_bus::EventFd;
use vmm_bus::Outcome;
use vmm_memory::GuestRam;

use crate::status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET};
use crate::worker::{QueueStates, Shared, Worker};
use crate::{ConfigSpace, Counters, Fault, Interrupt, Notices, Session, StartError, VirtioDevice};

mod saved;

/// Features that every device offers (virtio 1.2 §6).
const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// The control side of a device, which each transport exposes in its own way, and the device's thread.
///
/// ```text
///  reset --ACKNOWLEDGE--> --DRIVER--> --FEATURES_OK--> --DRIVER_OK--> running
///                           features      queues                      nothing but configuration and reset
/// ```
///
/// Writes in the wrong state are ignored (virtio 1.2 §3.1.1); in particular, queues don't change after
/// DRIVER_OK.
pub struct Control {
    id: u32,
    /// For messages.
    name: String,
    ram: GuestRam,
    /// Fewer than the device has only if it was restored from a state in which it had fewer.
    offered: AtomicU64,
    kicks: Vec<Arc<EventFd>>,
    queue_sizes: Vec<u16>,
    config: ConfigSpace,
    shared: Arc<Shared>,
    worker: Worker,
    registers: Mutex<Registers>,
    /// A driver has set DRIVER at least once.
    was_driven: AtomicBool,
}

struct Registers {
    status: u8,
    features: u64,
    queues: Vec<QueueState>,
    /// The driver has written a reset, and the device hasn't finished its requests.
    resetting: bool,
    suspension: Suspension,
}

/// Whether the machine has suspended the device.
enum Suspension {
    Not,
    /// The device is stopping; its queues will be sent.
    Begun(Receiver<QueueStates>),
    /// The device has stopped, with these queues.
    Done(QueueStates),
}

impl Registers {
    fn new(queue_sizes: &[u16]) -> Self {
        let queue = |size| QueueState { max_size: size, size, ..QueueState::default() };
        let queues = queue_sizes.iter().copied().map(queue).collect();
        Self { status: 0, features: 0, queues, resetting: false, suspension: Suspension::Not }
    }

    fn has(&self, bit: u8) -> bool {
        self.status & bit != 0
    }
}

/// A write to one of a queue's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueField {
    Size(u32),
    Ready(bool),
    Descriptors(Half),
    Driver(Half),
    Device(Half),
}

/// One half of a 64-bit value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Low(u32),
    High(u32),
}

impl Half {
    fn put(self, into: &mut u64) {
        *into = match self {
            Self::Low(low) => *into & !0xffff_ffff | u64::from(low),
            Self::High(high) => *into & 0xffff_ffff | u64::from(high) << 32,
        };
    }
}

/// Parameters of [`Control::new`] that don't depend on the transport.
pub struct ControlParams {
    /// The virtio device id (virtio 1.2 §5).
    pub id: u32,
    /// The name of the device, whose thread is called `vq-NAME`.
    pub name: String,
    /// The guest's memory.
    pub ram: GuestRam,
    /// Written when a reset that a vCPU waits for or a suspend is finished, and when [`Control::take_fault`]
    /// or [`Control::take_notices`] has something to return.
    pub news: Arc<EventFd>,
}

impl Control {
    /// Starts the thread of `device`.
    ///
    /// # Errors
    /// The host is out of descriptors or threads.
    pub fn new(
        params: ControlParams,
        device: Box<dyn VirtioDevice>,
        interrupt: Arc<dyn Interrupt>,
    ) -> Result<Self, StartError> {
        let (offered, queue_sizes) = (device.features() | RING_FEATURES, device.queue_sizes());
        let config = device.config_space();
        let kick = |_| EventFd::new().map(Arc::new);
        let kicks = match queue_sizes.iter().map(kick).collect::<io::Result<Vec<_>>>() {
            Ok(kicks) => kicks,
            Err(error) => return Err(StartError { error, device }),
        };
        let shared = Arc::new(Shared::new(interrupt, Arc::new(Counters::default()), params.news));
        let worker =
            Worker::spawn(&params.name, device, params.ram.clone(), kicks.clone(), Arc::clone(&shared))?;
        let registers = Mutex::new(Registers::new(&queue_sizes));
        Ok(Self {
            id: params.id,
            name: params.name,
            ram: params.ram,
            offered: AtomicU64::new(offered),
            kicks,
            queue_sizes,
            config,
            shared,
            worker,
            registers,
            was_driven: AtomicBool::new(false),
        })
    }

    /// Stops the device and returns it for another machine, after its
    /// [`power_cycle`](VirtioDevice::power_cycle), and its last log messages. `None` if its thread has
    /// panicked.
    pub fn into_device(self) -> Option<(Box<dyn VirtioDevice>, Notices)> {
        let mut device = self.worker.into_device()?;
        device.power_cycle();
        Some((device, self.shared.notices.take()))
    }

    /// One non-blocking eventfd per queue, for the machine to signal on the driver's notifications (ioeventfd).
    pub fn kicks(&self) -> &[Arc<EventFd>] {
        &self.kicks
    }

    /// The device's counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// The fault that made the device set DEVICE_NEEDS_RESET since the last call, if any.
    pub fn take_fault(&self) -> Option<Fault> {
        self.shared.take_fault()
    }

    /// The device's log messages since the last call.
    pub fn take_notices(&self) -> Notices {
        self.shared.notices.take()
    }

    /// Whether a driver has ever found the device (DRIVER, virtio 1.2 §2.1).
    pub fn was_driven(&self) -> bool {
        self.was_driven.load(Ordering::Relaxed)
    }

    /// Whether a vCPU that wrote a reset still has to wait.
    pub fn is_resetting(&self) -> bool {
        self.registers().resetting
    }

    /// Starts to suspend the device, which keeps its queues; the vCPUs don't run. When it has stopped, `news`
    /// is written and it [`is_at_rest`](Self::is_at_rest). That may take long, because the host's disk has to
    /// finish the pending requests.
    pub fn begin_suspend(&self) {
        let mut registers = self.registers();
        let runs = registers.has(DRIVER_OK) && !registers.resetting;
        if runs && matches!(registers.suspension, Suspension::Not) {
            registers.suspension = Suspension::Begun(self.worker.begin_stop());
        }
    }

    /// Whether it neither runs nor finishes requests.
    pub fn is_at_rest(&self) -> bool {
        let mut registers = self.registers();
        let Suspension::Begun(states) = &registers.suspension else {
            return !registers.resetting && self.worker.is_idle();
        };
        match states.try_recv() {
            Err(TryRecvError::Empty) => return false,
            Ok(states) => registers.suspension = Suspension::Done(states),
            // The thread has gone, and the queues with it.
            Err(TryRecvError::Disconnected) => {
                registers.suspension = Suspension::Done(QueueStates::default())
            }
        }
        true
    }

    /// Resumes a suspended device, which is at rest.
    pub fn resume(&self) {
        let mut registers = self.registers();
        if let Suspension::Done(queues) = std::mem::replace(&mut registers.suspension, Suspension::Not) {
            self.worker.start(registers.features, queues);
        }
    }

    /// Calls `act` on the device's thread, for example for [`VirtioDevice::update`], with the session if a
    /// driver uses the device. Returns at once; `news` is written when the result has been sent. If the
    /// device's thread has panicked, the channel is disconnected.
    pub fn with_device<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut dyn VirtioDevice, Option<&mut Session>) -> T + Send + 'static,
    ) -> Receiver<T> {
        self.worker.with_device(act)
    }

    /// The device's id, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn offered(&self) -> u64 {
        self.offered.load(Ordering::Relaxed)
    }

    pub(crate) fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// The device status register (virtio 1.2 §2.1).
    pub(crate) fn status(&self) -> u8 {
        let registers = self.registers();
        let broken = registers.has(DRIVER_OK) && self.shared.needs_reset();
        registers.status | if broken { NEEDS_RESET } else { 0 }
    }

    /// A write to the device status register. A reset holds the vCPU until the device has finished its
    /// requests.
    pub(crate) fn set_status(&self, value: u8) -> Outcome {
        if value == 0 {
            return self.reset();
        }
        let mut registers = self.registers();
        if registers.resetting {
            return Outcome::Hold;
        }
        let added = value & !registers.status;
        registers.status |= added & (ACKNOWLEDGE | FAILED);
        if registers.has(ACKNOWLEDGE) {
            registers.status |= added & DRIVER;
            self.was_driven.fetch_or(added & DRIVER != 0, Ordering::Relaxed);
        }
        if added & FEATURES_OK != 0 && registers.has(DRIVER) && self.accepts(registers.features) {
            registers.status |= FEATURES_OK;
            let features = registers.features;
            // Never two locks at once. Another vCPU may reset the device meanwhile, so the status is checked
            // again below.
            drop(registers);
            self.config.negotiate(features);
            registers = self.registers();
        }
        if added & DRIVER_OK != 0 && registers.has(FEATURES_OK) && !registers.has(DRIVER_OK) {
            registers.status |= DRIVER_OK;
            let event_idx = registers.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
            let queue = |queue: &QueueState| {
                queue.ready.then_some(QueueState { event_idx_enabled: event_idx, ..*queue })
            };
            let queues = registers.queues.iter().map(queue).collect();
            self.worker.start(registers.features, queues);
        }
        Outcome::Done
    }

    fn reset(&self) -> Outcome {
        let mut registers = self.registers();
        if registers.resetting {
            return Outcome::Hold;
        }
        if registers.has(DRIVER_OK) {
            registers.resetting = true;
            self.worker.begin_reset();
            return Outcome::Hold;
        }
        *registers = Registers::new(&self.queue_sizes);
        // Never two locks at once.
        drop(registers);
        self.shared.interrupt.reset();
        self.config.reset();
        Outcome::Done
    }

    fn accepts(&self, features: u64) -> bool {
        features & !self.offered() == 0 && features & (1 << VIRTIO_F_VERSION_1) != 0
    }

    /// Sets one half of the driver's features.
    pub(crate) fn set_features(&self, half: Half) {
        let mut registers = self.registers();
        if registers.has(DRIVER) && !registers.has(FEATURES_OK) {
            half.put(&mut registers.features);
        }
    }

    /// Maximum size of a queue in descriptors, 0 if there is no such queue.
    pub(crate) fn queue_max(&self, index: u32) -> u16 {
        self.queue_sizes.get(index as usize).copied().unwrap_or(0)
    }

    /// A queue's registers, as the driver has set them.
    pub(crate) fn queue(&self, index: u32) -> Option<QueueState> {
        self.registers().queues.get(index as usize).copied()
    }

    /// The features that the driver has written.
    pub(crate) fn accepted(&self) -> u64 {
        self.registers().features
    }

    pub(crate) fn queue_is_ready(&self, index: u32) -> bool {
        self.registers().queues.get(index as usize).is_some_and(|queue| queue.ready)
    }

    /// Writes to a queue's register, allowed between FEATURES_OK and DRIVER_OK. If the queue is ready, only
    /// `Ready` can be written.
    pub(crate) fn set_queue(&self, index: u32, field: QueueField) {
        let mut registers = self.registers();
        if !registers.has(FEATURES_OK) || registers.has(DRIVER_OK) {
            return;
        }
        let Some(queue) = registers.queues.get_mut(index as usize) else { return };
        match field {
            QueueField::Ready(ready) => queue.ready = ready,
            _ if queue.ready => {}
            QueueField::Size(size) => {
                let fits = |size: &u16| size.is_power_of_two() && *size <= queue.max_size;
                if let Some(size) = u16::try_from(size).ok().filter(fits) {
                    queue.size = size;
                }
            }
            QueueField::Descriptors(half) => half.put(&mut queue.desc_table),
            QueueField::Driver(half) => half.put(&mut queue.avail_ring),
            QueueField::Device(half) => half.put(&mut queue.used_ring),
        }
    }

    /// A notification that didn't arrive through an ioeventfd.
    pub(crate) fn kick(&self, index: u32) {
        if let Some(kick) = self.kicks.get(index as usize) {
            // Non-blocking; if the counter is at its maximum the eventfd is readable anyway.
            let _ = kick.write(1);
        }
    }

    pub(crate) fn write_config(&self, offset: u64, data: &[u8]) {
        if self.config.write(offset, data) && self.registers().has(DRIVER_OK) {
            self.worker.config_written();
        }
    }

    /// The registers, after completing a reset that the device has finished.
    fn registers(&self) -> MutexGuard<'_, Registers> {
        let mut registers = self.registers.lock().expect("no panic while it is held");
        if registers.resetting && self.worker.is_idle() {
            *registers = Registers::new(&self.queue_sizes);
        }
        registers
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_replaces_its_bits_and_keeps_the_others() {
        let mut address = 0x1111_2222_3333_4444;
        Half::Low(0x5555_6666).put(&mut address);
        assert_eq!(address, 0x1111_2222_5555_6666);
        Half::High(0x7777_8888).put(&mut address);
        assert_eq!(address, 0x7777_8888_5555_6666);
    }
}
