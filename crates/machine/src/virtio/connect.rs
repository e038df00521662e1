//! Connects opened devices to a guest.

use std::ops::Range;
use std::sync::Arc;

use tracing::info;
use vmm_arch::layout;
use vmm_bus::{Bus, EventFd, IrqLine};
use vmm_kvm::{Vm, WriteAddress};
use vmm_memory::GuestRam;
use vmm_virtio::{ControlParams, MMIO_NOTIFY, MmioTransport, PciTransport, StartError, VirtioDevice};

use super::attached::{AttachedDevice, Transport, VirtioDevices};
use super::file_memory::MappedFile;
use super::messages::LocalApics;
use super::{OpenDevice, TransportPlan, VirtioPlan, pci};
use crate::Error;
use crate::error::HostContext;
use crate::platform::Buses;

/// What devices are connected to.
pub(crate) struct GuestSide<'a> {
    pub(crate) vm: &'a Arc<Vm>,
    pub(crate) buses: &'a Buses,
    pub(crate) ram: &'a GuestRam,
    /// Written by a device when it has a fault or log lines, has stopped, or has answered a request.
    pub(crate) news: Arc<EventFd>,
}

impl VirtioDevices {
    /// Starts each device's thread, and connects its registers, its ioeventfds and its interrupts to the guest.
    ///
    /// # Errors
    /// The host is out of descriptors, threads or memory. Once nothing else refers to the buses,
    /// [`into_open`](Self::into_open) still has all devices.
    pub(crate) fn connect(&mut self, plans: &[VirtioPlan], guest: &GuestSide<'_>) -> Result<(), Error> {
        let apics = LocalApics::new(Arc::clone(guest.vm));
        for plan in plans {
            self.start_next(plan, guest, &apics)?;
            if let Some(AttachedDevice { transport: Transport::Mmio(transport), .. }) = self.devices.last()
                && let TransportPlan::Mmio { registers, .. } = &plan.transport
            {
                expose(transport, registers, guest.vm, guest.buses.mmio())?;
            }
        }
        let function =
            |(plan, device): (&VirtioPlan, &AttachedDevice)| match (&plan.transport, &device.transport) {
                (TransportPlan::Pci { slot, .. }, Transport::Pci(function)) => {
                    Some((*slot, Arc::clone(function)))
                }
                _ => None,
            };
        let functions: Vec<_> = plans.iter().zip(&self.devices).filter_map(function).collect();
        if !functions.is_empty() {
            self.pci = Some(pci::connect(&functions, guest.vm, guest.buses)?);
        }
        Ok(())
    }

    /// Starts the thread of the first device that isn't connected.
    fn start_next(
        &mut self,
        plan: &VirtioPlan,
        guest: &GuestSide<'_>,
        apics: &LocalApics,
    ) -> Result<(), Error> {
        let Some(open) = self.unconnected.first_mut() else { return Ok(()) };
        let memory = match open.mapping.take().zip(plan.memory.as_ref()) {
            Some((mapping, at)) => {
                open.device.mapped(at.start);
                let news = Arc::clone(&guest.news);
                Some(MappedFile::new(mapping, at, guest.vm, guest.buses.mmio(), news)?)
            }
            None => None,
        };
        let interrupts = Interrupts::of(plan, guest.vm, apics)?;
        let OpenDevice { index, id, slot, kind, device_id, device, mapping, console, console_end } =
            self.unconnected.remove(0);
        let note = device.note().map(|note| format!(", {note}")).unwrap_or_default();
        info!("virtio {kind} \"{id}\" {}{note}", place(&plan.transport));
        let may_lose = device.may_lose();
        let params = ControlParams {
            id: device_id,
            name: id.clone(),
            ram: guest.ram.clone(),
            news: Arc::clone(&guest.news),
        };
        match interrupts.transport(params, device) {
            Ok(transport) => {
                self.devices.push(AttachedDevice {
                    transport,
                    index,
                    id,
                    slot,
                    kind,
                    device_id,
                    may_lose,
                    memory,
                    console_end,
                });
                Ok(())
            }
            Err(StartError { error, device }) => {
                let open =
                    OpenDevice { index, id, slot, kind, device_id, device, mapping, console, console_end };
                self.unconnected.insert(0, open);
                Err(error).context("thread of a device")
            }
        }
    }
}

fn place(transport: &TransportPlan) -> String {
    match transport {
        TransportPlan::Mmio { registers, .. } => format!("at {:#x}", registers.start),
        TransportPlan::Pci { slot, .. } => format!("in PCI slot {slot}"),
    }
}

/// How a device interrupts the guest.
enum Interrupts {
    Line(IrqLine),
    Messages { apics: Box<LocalApics>, bar: u64 },
}

impl Interrupts {
    fn of(plan: &VirtioPlan, vm: &Vm, apics: &LocalApics) -> Result<Self, Error> {
        match &plan.transport {
            TransportPlan::Mmio { gsi, .. } => {
                let line = IrqLine::new().context("eventfd of an interrupt")?;
                vm.connect_irq(line.event(), *gsi)?;
                Ok(Self::Line(line))
            }
            TransportPlan::Pci { bar, .. } => {
                Ok(Self::Messages { apics: Box::new(apics.clone()), bar: bar.start })
            }
        }
    }

    /// Starts the device's thread.
    fn transport(
        self,
        params: ControlParams,
        device: Box<dyn VirtioDevice>,
    ) -> Result<Transport, StartError> {
        Ok(match self {
            Self::Line(line) => Transport::Mmio(Arc::new(MmioTransport::new(params, device, line)?)),
            Self::Messages { apics, bar } => {
                let function = PciTransport::new(params, device, apics, bar, layout::PCI_WINDOW)?;
                Transport::Pci(Arc::new(function))
            }
        })
    }
}

/// Connects a device's registers and notifications to the guest by MMIO.
fn expose(transport: &Arc<MmioTransport>, registers: &Range<u64>, vm: &Vm, mmio: &Bus) -> Result<(), Error> {
    let notify = WriteAddress::Mmio(registers.start + MMIO_NOTIFY);
    for (queue, kick) in transport.control().kicks().iter().enumerate() {
        vm.connect_write(kick, notify, Some(queue as u32))?;
    }
    mmio.insert(registers.clone(), Arc::clone(transport))?;
    Ok(())
}
