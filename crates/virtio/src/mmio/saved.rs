//! Saves and loads a device with the MMIO transport.

use std::sync::atomic::Ordering;

use vmm_snapshot::StateError;

use super::state::MmioState;
use super::{CONFIGURATION_CHANGE, MmioTransport, USED_BUFFER, load, store};
use crate::SaveError;

impl MmioTransport {
    /// The state of a device that [is at rest](crate::Control::is_at_rest), of which it is a copy: the device goes on when it is
    /// resumed. Blocks until the device's thread has flushed what belongs to files.
    ///
    /// # Errors
    /// The device can't be saved, isn't at rest, or its driver has broken the rings and the device hasn't noticed yet.
    pub fn save(&self) -> Result<MmioState, SaveError> {
        let control = self.control.save()?;
        Ok(MmioState {
            device_features_sel: load(&self.device_features_sel),
            driver_features_sel: load(&self.driver_features_sel),
            queue_sel: load(&self.queue_sel),
            interrupt_status: load(&self.interrupt.status),
            control,
        })
    }

    /// Loads a state into a device that no driver has touched. The guest's memory must be that of the state. If a driver was using the
    /// device, it is suspended now: [`resume`](crate::Control::resume) starts it, and [`rouse`](crate::Control::rouse) must follow.
    /// Blocks while the device's thread loads its part.
    ///
    /// # Errors
    /// The field that this device can't have. Nothing has changed then.
    pub fn load(&self, state: &MmioState) -> Result<(), StateError> {
        if state.interrupt_status & !(USED_BUFFER | CONFIGURATION_CHANGE) != 0 {
            let problem = format!("{:#x} has unknown bits", state.interrupt_status);
            return Err(StateError::new("interrupt_status", problem).within(self.control.name()));
        }
        self.control.load(&state.control)?;
        store(&self.device_features_sel, state.device_features_sel);
        store(&self.driver_features_sel, state.driver_features_sel);
        store(&self.queue_sel, state.queue_sel);
        self.interrupt.status.store(state.interrupt_status, Ordering::SeqCst);
        Ok(())
    }
}
