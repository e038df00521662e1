//! Message-signalled interrupts, sent by KVM.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_bus::EventFd;
use vmm_kvm::{FIRST_MSI_GSI, MESSAGE_CALLS, MsiRoute, Vm};
use vmm_pci::Message;
use vmm_virtio::{Allow, MessageLine, MessageSender};

/// Sends messages to the local APICs: those of the devices' threads by KVM_SIGNAL_MSI, those of other servers by irqfds, each at a
/// GSI of its own.
#[derive(Clone)]
pub(crate) struct LocalApics {
    vm: Arc<Vm>,
    routes: Arc<Mutex<Routes>>,
}

/// The messages of GSIs that have a line; `None` until the guest has set one.
type Routes = BTreeMap<u32, Option<Message>>;

impl LocalApics {
    pub(crate) fn new(vm: Arc<Vm>) -> Self {
        Self { vm, routes: Arc::default() }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().expect("no panic while it is held")
    }

    /// Changes the message of a GSI. It replaces KVM's whole table, so it is only called when a message changes.
    fn set_route(&self, gsi: u32, message: Message) -> Result<(), vmm_kvm::Error> {
        let mut routes = self.routes();
        routes.insert(gsi, Some(message));
        let route = |(gsi, message): (&u32, &Option<Message>)| {
            message.map(|Message { address, data }| MsiRoute { gsi: *gsi, address, data })
        };
        let table: Vec<MsiRoute> = routes.iter().filter_map(route).collect();
        self.vm.set_msi_routes(&table)
    }
}

impl MessageSender for LocalApics {
    fn calls(&self) -> &'static [Allow] {
        MESSAGE_CALLS
    }

    fn send(&self, message: Message) {
        // KVM refuses a message that isn't an interrupt, which hardware would ignore.
        let _ = self.vm.signal_msi(message.address, message.data);
    }

    fn line(&self) -> Option<Box<dyn MessageLine>> {
        let event = EventFd::new().ok()?;
        let mut routes = self.routes();
        let gsi = (FIRST_MSI_GSI..).find(|gsi| !routes.contains_key(gsi))?;
        routes.insert(gsi, None);
        drop(routes);
        let apics = self.clone();
        Some(Box::new(Line { apics, event: Arc::new(event), gsi, message: None, is_connected: false }))
    }
}

/// An irqfd, at a GSI that sends a message. The GSI is free again when it is dropped.
struct Line {
    apics: LocalApics,
    event: Arc<EventFd>,
    gsi: u32,
    /// The GSI's current route.
    message: Option<Message>,
    is_connected: bool,
}

impl Line {
    fn disconnect(&mut self) {
        if self.is_connected {
            // It fails only for an irqfd that isn't connected.
            let _ = self.apics.vm.disconnect_irq(&self.event, self.gsi);
            self.is_connected = false;
        }
    }

    /// The route comes first: KVM resolves it when the irqfd is connected.
    fn connect(&mut self, message: Message) -> Result<(), vmm_kvm::Error> {
        if self.message != Some(message) {
            self.disconnect();
            self.apics.set_route(self.gsi, message)?;
            self.message = Some(message);
        }
        if !self.is_connected {
            self.apics.vm.connect_irq(&self.event, self.gsi)?;
            self.is_connected = true;
        }
        Ok(())
    }
}

impl MessageLine for Line {
    fn event(&self) -> &Arc<EventFd> {
        &self.event
    }

    /// KVM refuses a message that isn't an interrupt. Then nothing is sent, as on real hardware.
    fn route(&mut self, message: Option<Message>) {
        match message {
            None => self.disconnect(),
            Some(message) => drop(self.connect(message)),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.disconnect();
        self.apics.routes().remove(&self.gsi);
    }
}
