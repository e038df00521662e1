//! The PCI transport (virtio 1.2 §4.1): the device's control side as a PCI function with MSI-X.

mod common;
mod interrupt;
mod layout;
mod saved;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_bus::{BusDevice, Outcome};
use vmm_pci::{
    Bar, BarMove, COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, Decoded, Effect, Function, PciConfigSpace,
    STATUS, STATUS_INTERRUPT, touches,
};

use crate::control::{Control, ControlParams};
use crate::{Notices, StartError, VirtioDevice};
use common::Common;
use interrupt::PciInterrupt;
pub use interrupt::{MessageLine, MessageSender};
use layout::Capabilities;
pub use layout::{PCI_BAR, PCI_BAR_LEN, PCI_NOTIFY, PCI_NOTIFY_STRIDE};
pub use state::PciState;

/// A virtio device that is a PCI function.
#[derive(Debug)]
pub struct PciTransport {
    control: Control,
    interrupt: Arc<PciInterrupt>,
    common: Common,
    /// Addresses that the BAR may have.
    window: Range<u64>,
    function: Mutex<FunctionState>,
    capabilities: Capabilities,
}

/// The function's registers in configuration space, and where its BAR is decoded.
#[derive(Debug)]
struct FunctionState {
    config: PciConfigSpace,
    decoded: Decoded,
}

impl PciTransport {
    /// Starts the thread of `device`, whose interrupts go to `sender`. Its registers are at `address` when the guest switches memory
    /// accesses on, unless it moves them inside `window`.
    ///
    /// # Errors
    /// The host is out of descriptors or threads.
    pub fn new(
        params: ControlParams,
        device: Box<dyn VirtioDevice>,
        sender: Box<dyn MessageSender>,
        address: u64,
        window: Range<u64>,
    ) -> Result<Self, StartError> {
        let id = params.id;
        let interrupt = Arc::new(PciInterrupt::new(device.queue_sizes().len(), sender));
        let (mut config, capabilities) = match layout::config_space(id, interrupt.vectors()) {
            Ok(space) => space,
            Err(error) => return Err(StartError { error: io::Error::other(error), device }),
        };
        config.set_bar_address(PCI_BAR, address);
        let control = Control::new(params, device, Arc::clone(&interrupt) as _)?;
        let function = Mutex::new(FunctionState { config, decoded: Decoded::default() });
        Ok(Self { control, interrupt, common: Common::default(), window, function, capabilities })
    }

    /// [`Control::into_device`].
    pub fn into_device(self) -> Option<(Box<dyn VirtioDevice>, Notices)> {
        self.control.into_device()
    }

    /// The device's control side.
    pub fn control(&self) -> &Control {
        &self.control
    }

    fn function(&self) -> MutexGuard<'_, FunctionState> {
        self.function.lock().expect("no panic while it is held")
    }

    /// The access that the driver has set up in the window's capability: offset and length in the BAR.
    fn window_access(&self, config: &PciConfigSpace) -> Option<(u64, usize)> {
        let at = self.capabilities.window;
        let [bar] = config.array(at + 4);
        let offset = u64::from(u32::from_le_bytes(config.array(at + 8)));
        let len = u32::from_le_bytes(config.array(at + 12));
        let is_inside = offset.checked_add(len.into()).is_some_and(|end| end <= PCI_BAR_LEN);
        let is_access = matches!(len, 1 | 2 | 4) && offset.is_multiple_of(len.into());
        (usize::from(bar) == PCI_BAR && is_inside && is_access).then_some((offset, len as usize))
    }

    /// The window's data register.
    fn window_data(&self) -> Range<usize> {
        self.capabilities.window + 16..self.capabilities.window + 20
    }
}

/// Whether an access lies in a structure as a whole. One that crosses its end reads as zeros and has no effect.
fn is_inside(range: &Range<u64>, offset: u64, len: usize) -> bool {
    range.start <= offset && offset.checked_add(len as u64).is_some_and(|end| end <= range.end)
}

impl BusDevice for PciTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let vectors = self.interrupt.vectors();
        let inside = |range: &Range<u64>| is_inside(range, offset, data.len());
        let (table, pending) = (layout::table(vectors), layout::pending(vectors));
        if inside(&layout::COMMON) {
            self.common.read(&self.control, &self.interrupt, offset - layout::COMMON.start, data);
        } else if inside(&layout::ISR) {
            data.fill(0);
            if offset == layout::ISR.start {
                data[0] = self.interrupt.take_isr();
            }
        } else if inside(&layout::DEVICE) {
            self.control.config().read(offset - layout::DEVICE.start, data);
        } else if inside(&table) {
            self.interrupt.read(|msix| msix.read_table(offset - table.start, data));
        } else if inside(&pending) {
            self.interrupt.read(|msix| msix.read_pending(offset - pending.start, data));
        } else {
            data.fill(0);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        let inside = |range: &Range<u64>| is_inside(range, offset, data.len());
        let table = layout::table(self.interrupt.vectors());
        if inside(&layout::COMMON) {
            return self.common.write(&self.control, &self.interrupt, offset - layout::COMMON.start, data);
        }
        if inside(&layout::DEVICE) {
            self.control.write_config(offset - layout::DEVICE.start, data);
        } else if inside(&layout::NOTIFY) {
            // Only where there is no ioeventfd. The offset identifies the queue; the value repeats it.
            self.control.kick(((offset - layout::NOTIFY.start) / PCI_NOTIFY_STRIDE) as u32);
        } else if inside(&table) {
            self.interrupt.change(|msix| msix.write_table(offset - table.start, data));
        }
        Outcome::Done
    }

    fn is_holding(&self) -> bool {
        self.control.is_resetting()
    }
}

impl Function for PciTransport {
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let window = self.window_data();
        if touches(offset, data.len(), window.clone()) {
            let access = self.window_access(&self.function().config);
            if let Some((at, len)) = access {
                let mut value = [0; 4];
                // Without the lock: it may be an access to any register.
                BusDevice::read(self, at, &mut value[..len]);
                self.function().config.put(window.start, &value[..len]);
            }
        }
        self.function().config.read(offset, data);
        if touches(offset, data.len(), STATUS..STATUS + 1) && self.interrupt.has_status() {
            data[STATUS - offset] |= STATUS_INTERRUPT;
        }
    }

    fn write_config(&self, offset: usize, data: &[u8]) -> Effect {
        let touched = |registers| touches(offset, data.len(), registers);
        let mut function = self.function();
        function.config.write(offset, data);
        let (command, control_at) = (function.config.command(), self.capabilities.msix_control);
        let control = u16::from_le_bytes(function.config.array(control_at));
        let access = self.window_access(&function.config).filter(|_| touched(self.window_data()));
        let value: [u8; 4] = function.config.array(self.window_data().start);
        let address = function.config.bar_address(PCI_BAR);
        let is_decoded = command & COMMAND_MEMORY != 0;
        // A move that the bus refused isn't asked for again until the guest writes one of them.
        let wanted = (touched(COMMAND) || touched(layout::BAR_REGISTERS))
            .then(|| function.decoded.wanted(PCI_BAR, PCI_BAR_LEN, address, is_decoded, &self.window))
            .flatten();
        drop(function);
        if touched(COMMAND) || touched(control_at..control_at + 2) {
            self.interrupt.change(|msix| {
                msix.set_control(control);
                msix.bus_master = command & COMMAND_BUS_MASTER != 0;
            });
        }
        if let Some((at, len)) = access {
            return match BusDevice::write(self, at, &value[..len]) {
                Outcome::Hold => Effect::Hold,
                Outcome::Done | Outcome::End(_) => Effect::Done,
            };
        }
        wanted.map_or(Effect::Done, Effect::Move)
    }

    fn moved(&self, made: BarMove) {
        self.function().decoded.set(made);
    }

    fn can_decode(&self, bar: usize, address: u64) -> bool {
        bar == PCI_BAR && Bar::new(PCI_BAR_LEN).can_be_at(address, &self.window)
    }

    fn is_holding(&self) -> bool {
        self.control.is_resetting()
    }
}
