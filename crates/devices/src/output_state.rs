//! The state of a machine's output queue.

use vmm_bus::Output;
use vmm_snapshot::{FieldReader, FieldWriter, State, StateError};

use crate::Stateful;

/// The bytes that the guest has written and the host hasn't taken. The devices of a machine share one queue, so they are saved once.
///
/// A machine that goes on after it was saved prints them too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputState {
    /// The bytes, oldest first.
    pub bytes: Vec<u8>,
}

impl State for OutputState {
    const KIND: &'static str = "dev.output";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.bytes(&self.bytes);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self { bytes: fields.bytes("bytes", Output::CAPACITY)?.to_vec() })
    }
}

/// A vCPU that is held because the queue is full isn't part of the state: its write has been carried out, and the next one holds it
/// again.
impl Stateful for Output {
    type State = OutputState;

    fn save(&self) -> OutputState {
        let mut bytes = vec![0; self.queued()];
        let len = self.peek(&mut bytes);
        bytes.truncate(len);
        OutputState { bytes }
    }

    fn load(&self, state: &OutputState) -> Result<(), StateError> {
        self.push(&state.bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{reload, saved};

    #[test]
    fn output_that_nobody_has_taken_is_there_after_a_load() {
        let output = Output::new().unwrap();
        output.push(b"login: ");
        let restored = Output::new().unwrap();
        reload(&output, &restored).unwrap();
        assert_eq!(restored.ready().read().unwrap(), 1, "the host is notified");
        let mut bytes = [0; 16];
        assert_eq!(restored.take(&mut bytes).len, 7);
        assert_eq!(&bytes[..7], b"login: ");
        assert_eq!(output.queued(), 7, "and here it still is");
    }

    #[test]
    fn output_beyond_a_queues_capacity_is_refused() {
        let mut bytes = saved(&Output::new().unwrap());
        bytes.copy_from_slice(&(Output::CAPACITY as u32 + 1).to_le_bytes());
        let error = OutputState::load(1, &mut FieldReader::new(&bytes)).unwrap_err().to_string();
        assert_eq!(error, "bytes: has 16842753 bytes, at most 16842752 are possible");
    }
}
