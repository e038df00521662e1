//! The state of persistent memory. What it contains is the file's.

use vmm_virtio::{FieldReader, FieldWriter, Persistent, State, StateError};

use super::{CONFIG_LEN, Pmem, failure};

/// Where the guest has the file, and how long it is: the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PmemState {
    config: [u8; CONFIG_LEN],
    read_only: bool,
}

impl State for PmemState {
    const KIND: &'static str = "virtio.pmem";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.array(&self.config);
        fields.bool(self.read_only);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self { config: fields.array("config")?, read_only: fields.bool("read_only")? })
    }
}

impl Pmem {
    fn own_state(&self) -> PmemState {
        let mut config = [0; CONFIG_LEN];
        self.config.read(0, &mut config);
        PmemState { config, read_only: self.read_only }
    }
}

impl Persistent for Pmem {
    type State = PmemState;

    /// Flushes the file, so that a copy of it has all of the guest's stores.
    fn save(&mut self) -> Result<PmemState, String> {
        let is_flushed = self.read_only || self.state.check().is_ok();
        let flushed =
            if is_flushed && !self.read_only { self.state.note_flush(self.file.sync_data()) } else { Ok(()) };
        match flushed {
            Err(error) => Err(format!("{} can't be flushed: {error}", self.path.display())),
            Ok(()) if !is_flushed => Err(failure().loss()),
            Ok(()) => Ok(self.own_state()),
        }
    }

    fn load(&mut self, state: PmemState) -> Result<(), StateError> {
        let own = self.own_state();
        let number = |config: &[u8; CONFIG_LEN], at: usize| {
            u64::from_le_bytes(config[at..at + 8].try_into().expect("8 bytes"))
        };
        for (field, at) in [("start", 0), ("size", 8)] {
            let (ours, theirs) = (number(&own.config, at), number(&state.config, at));
            if ours != theirs {
                return Err(StateError::new(field, format!("is {theirs:#x}, that of this device {ours:#x}")));
            }
        }
        if own.read_only != state.read_only {
            return Err(StateError::new("read_only", "differs from this device's"));
        }
        Ok(())
    }
}
