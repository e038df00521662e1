//! The state of a vsock device. Connections aren't in it: they end with a restore.

use vmm_virtio::{FieldReader, FieldWriter, Persistent, State, StateError};

use super::Sockets;
use super::flows::PORTS;
use super::kernel::Kernel;
use super::reset_event::ResetEvent;

/// Where the numbering of the host's ports continues, so that a new connection isn't mistaken for one that the guest still knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VsockState {
    next_port: u32,
}

impl State for VsockState {
    const KIND: &'static str = "virtio.vsock";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u32(self.next_port);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        let next_port = fields.u32("next_port")?;
        if next_port >= PORTS {
            return Err(StateError::new("next_port", format!("{next_port} isn't less than {PORTS}")));
        }
        Ok(Self { next_port })
    }
}

impl Persistent for Sockets {
    type State = VsockState;

    fn save(&mut self) -> Result<VsockState, String> {
        Ok(VsockState { next_port: self.flows.next_port() })
    }

    fn load(&mut self, state: VsockState) -> Result<(), StateError> {
        self.flows.set_next_port(state.next_port);
        self.reset_event = ResetEvent::Due;
        Ok(())
    }
}

/// The host's kernel numbers the ports, on all of the host.
impl Persistent for Kernel {
    type State = VsockState;

    fn save(&mut self) -> Result<VsockState, String> {
        Ok(VsockState { next_port: 0 })
    }

    fn load(&mut self, _state: VsockState) -> Result<(), StateError> {
        self.reset_event = ResetEvent::Due;
        Ok(())
    }
}
