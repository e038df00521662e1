//! Saves and loads a device that is a PCI function.

use std::sync::atomic::Ordering;

use vmm_pci::{COMMAND_BUS_MASTER, CONFIG_LEN, PciConfigSpace};
use vmm_snapshot::StateError;

use super::PciTransport;
use super::state::PciState;
use crate::SaveError;

impl PciTransport {
    /// As [`MmioTransport::save`](crate::MmioTransport::save).
    ///
    /// # Errors
    /// As there.
    pub fn save(&self) -> Result<PciState, SaveError> {
        let control = self.control.save()?;
        let mut config = [0; CONFIG_LEN];
        self.function().config.read(0, &mut config);
        let (interrupt, vectors) = self.interrupt.registers();
        Ok(PciState {
            config,
            vectors,
            interrupt,
            device_feature_select: self.common.device_feature_select.load(Ordering::SeqCst),
            driver_feature_select: self.common.driver_feature_select.load(Ordering::SeqCst),
            queue_select: self.common.queue_select.load(Ordering::SeqCst),
            control,
        })
    }

    /// As [`MmioTransport::load`](crate::MmioTransport::load). Where the BAR is decoded isn't part of the state: that is the bus's.
    ///
    /// # Errors
    /// As there.
    pub fn load(&self, state: &PciState) -> Result<(), StateError> {
        let within = |error: StateError| error.within(self.control.name());
        let config = self.checked_config(&state.config).map_err(within)?;
        self.interrupt.check(&state.interrupt, &state.vectors).map_err(within)?;
        self.control.load(&state.control)?;
        let control = u16::from_le_bytes(config.array(self.capabilities.msix_control));
        let bus_master = config.command() & COMMAND_BUS_MASTER != 0;
        self.function().config = config;
        self.interrupt.restore(&state.interrupt, &state.vectors, (control, bus_master));
        self.common.device_feature_select.store(state.device_feature_select, Ordering::SeqCst);
        self.common.driver_feature_select.store(state.driver_feature_select, Ordering::SeqCst);
        self.common.queue_select.store(state.queue_select, Ordering::SeqCst);
        Ok(())
    }

    /// The configuration space with everything in it that a guest can write as in `saved`.
    fn checked_config(&self, saved: &[u8; CONFIG_LEN]) -> Result<PciConfigSpace, StateError> {
        let mut config = self.function().config.clone();
        config.write(0, saved);
        let loaded: [u8; CONFIG_LEN] = config.array(0);
        match loaded.iter().zip(saved).position(|(one, other)| one != other) {
            None => Ok(config),
            Some(at) => {
                let problem =
                    format!("byte {at:#x} is {:#x} in this function, not {:#x}", loaded[at], saved[at]);
                Err(StateError::new("config_space", problem))
            }
        }
    }
}
