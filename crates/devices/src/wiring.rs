//! What a device is built from, and the result.

use std::fmt;
use std::io;
use std::sync::Arc;

use vmm_bus::{BusDevice, IrqLine, Output};

use crate::{DeviceState, PowerButton, SavedDevice, SerialLine};

/// The connections available to a device while it is built.
#[derive(Debug)]
pub struct Wiring {
    output: Arc<Output>,
    interrupt: Option<IrqLine>,
}

impl Wiring {
    /// Wiring for one device, in a machine whose devices print to `output`.
    pub fn new(output: Arc<Output>) -> Self {
        Self { output, interrupt: None }
    }

    /// The machine's output queue. All devices share it, so that output stays in the guest's order. The config's `serial` sets
    /// its destination.
    pub fn output(&self) -> Arc<Output> {
        Arc::clone(&self.output)
    }

    /// The device's interrupt line, created by the first call. It is connected to the global system interrupt of the device's
    /// place, or to nothing on a machine without interrupt controllers.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn interrupt(&mut self) -> io::Result<IrqLine> {
        let line = match self.interrupt.take() {
            Some(line) => line,
            None => IrqLine::new()?,
        };
        Ok(self.interrupt.insert(line).clone())
    }

    /// The interrupt line, if the device requested it.
    pub fn into_interrupt(self) -> Option<IrqLine> {
        self.interrupt
    }
}

/// A device and its interfaces towards the host. If several devices of a machine offer the same interface, the first is used.
pub struct BuiltDevice {
    /// The device's registers.
    pub device: Arc<dyn BusDevice>,
    /// Serial line to connect to the machine's console.
    pub serial: Option<Arc<dyn SerialLine>>,
    /// Power button for the machine to press.
    pub power_button: Option<Arc<dyn PowerButton>>,
    /// What a snapshot contains of it.
    pub state: DeviceState,
}

impl BuiltDevice {
    /// A device without interfaces towards the host, by value. To add interfaces, pass a clone of the device's `Arc`. A machine
    /// with it can't be saved unless [`with_state`](Self::with_state) or [`without_state`](Self::without_state) is called too.
    pub fn new(device: impl BusDevice + 'static) -> Self {
        Self { device: Arc::new(device), serial: None, power_button: None, state: DeviceState::Unknown }
    }

    /// Offers the host's end of a serial line.
    pub fn with_serial(self, serial: Arc<dyn SerialLine>) -> Self {
        Self { serial: Some(serial), ..self }
    }

    /// Has a snapshot contain the device's state.
    pub fn with_state(self, device: Arc<dyn SavedDevice>) -> Self {
        Self { state: DeviceState::Saved(device), ..self }
    }

    /// For a device that has nothing to save: after a restore it is as it was built.
    pub fn without_state(self) -> Self {
        Self { state: DeviceState::None, ..self }
    }

    /// Offers a power button.
    pub fn with_power_button(self, power_button: Arc<dyn PowerButton>) -> Self {
        Self { power_button: Some(power_button), ..self }
    }
}

impl fmt::Debug for BuiltDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device: _, serial, power_button, state } = self;
        f.debug_struct("BuiltDevice")
            .field("serial", serial)
            .field("power_button", power_button)
            .field("state", state)
            .finish_non_exhaustive()
    }
}
