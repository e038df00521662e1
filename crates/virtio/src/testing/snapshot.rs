//! A driver whose device is saved and restored, as a machine's snapshot does it.

use std::sync::Arc;

use vmm_bus::EventFd;
use vmm_snapshot::StateError;

use super::Driver;
use super::wait::Waiter;
use crate::{ControlParams, SaveError, VirtioDevice};

impl Driver {
    /// The state of the [suspended](Self::suspend) device with its transport, as the bytes of a section.
    ///
    /// # Errors
    /// The device can't be saved.
    pub fn save(&self) -> Result<Vec<u8>, SaveError> {
        self.port.save()
    }

    /// Loads a section into a device that [no driver has touched](Self::beside).
    ///
    /// # Errors
    /// The device can't have this state.
    pub fn load(&self, section: &[u8]) -> Result<(), StateError> {
        self.port.load(section)
    }

    /// Another machine over the same memory, with this driver in its current state, `device`, and a fresh transport. After
    /// [`load`](Self::load), the driver continues there.
    ///
    /// # Panics
    /// As for [`new`](Self::new).
    pub fn beside(&self, device: Box<dyn VirtioDevice>) -> Self {
        let news = Arc::new(EventFd::new().expect("a descriptor"));
        let params = ControlParams {
            id: self.control().id(),
            name: "test".to_owned(),
            ram: self.arena.ram.clone(),
            news: Arc::clone(&news),
        };
        let port = self.port.unprobed(params, device);
        let (interrupt, news) = (Waiter::new(port.interrupt()), Waiter::new(&news));
        Self {
            port,
            attach: self.attach,
            arena: self.arena.clone(),
            rings: self.rings.clone(),
            features: self.features,
            interrupt,
            news,
            config_changed: false,
            interrupts: 0,
        }
    }

    /// Suspends and saves the device, and ends the machine; `device`, which is a fresh one, continues with the state.
    ///
    /// # Panics
    /// The device can't be saved, or `device` can't have its state.
    pub fn move_to(self, device: Box<dyn VirtioDevice>) -> Self {
        self.suspend();
        let section = self.save().expect("it can be saved");
        let restored = self.beside(device);
        drop(self);
        restored.load(&section).expect("the device is of the same kind");
        restored.resume();
        restored.control().rouse();
        restored
    }

    /// All registers that can be read without a side effect, with each value of the selectors, and the configuration space. The
    /// selectors are left at their last values.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.port.image(self.rings.len() as u32)
    }
}
