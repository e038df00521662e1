//! Saves and loads the control side of a device.

use std::fs::File;
use std::sync::atomic::Ordering;

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_queue::QueueState;
use vmm_snapshot::StateError;

use super::{Control, Registers, Suspension};
use crate::control_state::{ControlState, QueueRegisters};
use crate::queue::{RingPosition, check_rings};
use crate::status::{DRIVER_OK, FEATURES_OK};
use crate::{DeviceSection, DiskReport, Persistence, SaveError, VirtioDevice};

impl Control {
    /// The state of a device that [is at rest](Self::is_at_rest). Waits for the device, which may flush files.
    ///
    /// # Errors
    /// The device isn't at rest, can't be saved, or its driver has broken the rings and the device hasn't noticed yet.
    pub(crate) fn save(&self) -> Result<ControlState, SaveError> {
        let refusal = |reason: String| SaveError { device: self.name.clone(), reason };
        if !self.is_at_rest() {
            return Err(refusal("is running: pause the machine first".to_owned()));
        }
        let saved = self.worker.with_device(|device, _| save(device)).recv();
        let device = saved.map_err(|_| refusal(PANICKED.to_owned()))?.map_err(refusal)?;
        let state = self.state(device);
        self.check_queues(&state).map_err(|error| refusal(error.to_string()))?;
        Ok(state)
    }

    /// What a snapshot says of the disk that the device is, if it is one; after its state was saved.
    pub fn disk(&self) -> Option<DiskReport> {
        self.worker.with_device(|device, _| device.disk()).recv().ok().flatten()
    }

    /// See [`VirtioDevice::disk_file`].
    ///
    /// # Errors
    /// As there, with the device's name.
    pub fn disk_file(&self) -> Result<File, SaveError> {
        let file = self.worker.with_device(|device, _| device.disk_file()).recv();
        let refusal = |reason| SaveError { device: self.name.clone(), reason };
        file.unwrap_or_else(|_| Err(PANICKED.to_owned())).map_err(refusal)
    }

    fn state(&self, device: Option<DeviceSection>) -> ControlState {
        // Never two locks at once. Nothing changes meanwhile, as the vCPUs don't run.
        let (config, generation) = self.config.image();
        let registers = self.registers();
        let positions = match &registers.suspension {
            Suspension::Done(queues) => queues.as_slice(),
            Suspension::Not | Suspension::Begun(_) => &[],
        };
        let position = |index: usize| {
            let queue = positions.get(index)?.as_ref()?;
            Some(RingPosition { available: queue.next_avail, used: queue.next_used })
        };
        let queues = registers.queues.iter().enumerate();
        ControlState {
            device_id: self.id,
            offered: self.offered(),
            accepted: registers.features,
            status: registers.status,
            needs_reset: registers.has(DRIVER_OK) && self.shared.needs_reset(),
            was_driven: self.was_driven(),
            generation,
            config,
            queues: queues.map(|(index, queue)| QueueRegisters::of(queue, position(index))).collect(),
            device,
        }
    }

    /// Loads a state into this device, which no driver has touched, with the memory that belongs to it. If the state is of a driver
    /// that has started the device, the device is suspended now. If this fails, nothing has changed.
    ///
    /// # Errors
    /// The device can't have this state.
    pub(crate) fn load(&self, state: &ControlState) -> Result<(), StateError> {
        let device = state.device.clone();
        let within = |error: StateError| error.within(&self.name);
        self.check(state).map_err(within)?;
        let loaded = self.worker.with_device(move |live, _| load(live, device.as_ref()));
        loaded.recv().unwrap_or_else(|_| Err(StateError::new("device", PANICKED))).map_err(within)?;
        self.adopt(state);
        Ok(())
    }

    /// Whether this device, which no driver has touched, can have `state` over its memory.
    fn check(&self, state: &ControlState) -> Result<(), StateError> {
        let is_fresh = self.registers().status == 0 && self.worker.is_idle();
        if !is_fresh {
            return Err(StateError::new("status", "this device is in use already"));
        }
        if state.device_id != self.id {
            let problem = format!("{} is another device: this one is {}", state.device_id, self.id);
            return Err(StateError::new("device_id", problem));
        }
        let missing = state.offered & !self.offered();
        if missing != 0 {
            return Err(StateError::new("offered", format!("this device doesn't offer {missing:#x}")));
        }
        if state.offered & 1 << VIRTIO_F_VERSION_1 == 0 {
            return Err(StateError::new("offered", "is without VIRTIO_F_VERSION_1"));
        }
        state.check_status()?;
        let extra = state.accepted & !state.offered;
        if state.has(FEATURES_OK) && (extra != 0 || state.accepted & 1 << VIRTIO_F_VERSION_1 == 0) {
            let problem = format!("{:#x} weren't offered ({:#x})", state.accepted, state.offered);
            return Err(StateError::new("accepted", problem));
        }
        if state.config.len() != self.config.len() {
            let problem = format!("has {} bytes, this device {}", state.config.len(), self.config.len());
            return Err(StateError::new("config", problem));
        }
        if state.queues.len() != self.queue_sizes.len() {
            let problem = format!("has {}, this device {}", state.queues.len(), self.queue_sizes.len());
            return Err(StateError::new("queues", problem));
        }
        self.check_queues(state)
    }

    fn check_queues(&self, state: &ControlState) -> Result<(), StateError> {
        for (index, (registers, max_size)) in state.queues.iter().zip(&self.queue_sizes).enumerate() {
            self.check_queue(state, registers, *max_size)
                .map_err(|error| error.within(format!("queue {index}")))?;
        }
        Ok(())
    }

    fn check_queue(
        &self,
        state: &ControlState,
        registers: &QueueRegisters,
        max_size: u16,
    ) -> Result<(), StateError> {
        let size = registers.size;
        if !size.is_power_of_two() || size > max_size {
            let problem = format!("{size} isn't a power of two up to {max_size}");
            return Err(StateError::new("size", problem));
        }
        let has_begun = state.has(DRIVER_OK) && registers.ready;
        // A device that needs a reset for its rings has no position in them.
        let is_missing = state.is_served() && registers.ready && registers.position.is_none();
        if is_missing || registers.position.is_some() && !has_begun {
            return Err(StateError::new("position", "doesn't fit the status"));
        }
        match registers.position {
            Some(_) if state.is_served() => check_rings(state.queue(registers, max_size), &self.ram),
            _ => Ok(()),
        }
    }

    /// Takes over a state that was [checked](Self::check).
    fn adopt(&self, state: &ControlState) {
        self.offered.store(state.offered, Ordering::Relaxed);
        self.was_driven.store(state.was_driven, Ordering::Relaxed);
        self.config.restore(&state.config, state.generation);
        self.shared.set_needs_reset(state.needs_reset);
        let queues = || {
            let pairs = state.queues.iter().zip(&self.queue_sizes);
            pairs.map(|(registers, max_size)| (registers, state.queue(registers, *max_size)))
        };
        let begun = queues().map(|(registers, queue)| registers.position.map(|_| queue)).collect();
        let fresh = |queue| QueueState { next_avail: 0, next_used: 0, event_idx_enabled: false, ..queue };
        let set_up = queues().map(|(_, queue)| fresh(queue)).collect();
        let suspension = if state.has(DRIVER_OK) { Suspension::Done(begun) } else { Suspension::Not };
        *self.registers() = Registers {
            status: state.status,
            features: state.accepted,
            queues: set_up,
            resetting: false,
            suspension,
        };
    }

    /// Interrupts the driver for its configuration and for each queue, and notifies the device of each queue. To be called after a
    /// restored device was [resumed](Self::resume): interrupts and notifications that were on their way aren't in a snapshot, and
    /// those that weren't needed are harmless. Does nothing before DRIVER_OK.
    pub fn rouse(&self) {
        let ready: Vec<usize> = {
            let registers = self.registers();
            if !registers.has(DRIVER_OK) || registers.resetting {
                return;
            }
            let queues = registers.queues.iter().enumerate();
            queues.filter(|(_, queue)| queue.ready).map(|(index, _)| index).collect()
        };
        self.shared.raise_config();
        for index in ready {
            self.shared.raise_queue(index);
            self.kick(index as u32);
        }
    }
}

/// Why a device is neither saved nor loaded.
const PANICKED: &str = "its thread has panicked, which is a bug in the monitor";

/// The state of a device, if it has one; otherwise the reason why it can't be saved.
fn save(device: &mut dyn VirtioDevice) -> Result<Option<DeviceSection>, String> {
    match device.persistence() {
        Persistence::Stateless => Ok(None),
        Persistence::Own(own) => own.save().map(Some),
        Persistence::Refused(reason) => Err(reason),
    }
}

/// Gives a device its state. It is unchanged if that fails.
fn load(device: &mut dyn VirtioDevice, saved: Option<&DeviceSection>) -> Result<(), StateError> {
    match (device.persistence(), saved) {
        (Persistence::Stateless, None) => Ok(()),
        (Persistence::Own(own), Some(section)) => own.load(section),
        (Persistence::Own(_), None) => Err(StateError::new("device", "has no state, and this one needs it")),
        (Persistence::Stateless, Some(section)) => {
            let problem = format!("has a state of kind \"{}\", and this one has none", section.kind());
            Err(StateError::new("device", problem))
        }
        (Persistence::Refused(reason), _) => Err(StateError::new("device", reason)),
    }
}
