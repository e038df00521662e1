//! The state of a balloon. Which pages are in it is a matter of the guest's memory; `actual` and `poison_val` are in the configuration,
//! which the transport saves.

use vmm_virtio::{FieldReader, FieldWriter, Persistent, State, StateError};

use super::statistics::Statistics;
use super::{Balloon, TARGET};

/// The size that the user wants, which may have changed since the start, and the latest statistics. Their chain isn't kept while the
/// device is stopped: its driver sends new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalloonState {
    target_pages: u32,
    statistics: Statistics,
}

impl State for BalloonState {
    const KIND: &'static str = "virtio.balloon";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u32(self.target_pages);
        self.statistics.save(fields);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self { target_pages: fields.u32("target_pages")?, statistics: Statistics::load(fields)? })
    }
}

impl Persistent for Balloon {
    type State = BalloonState;

    fn save(&mut self) -> Result<BalloonState, String> {
        let mut target = [0; 4];
        self.config.read(TARGET.start as u64, &mut target);
        Ok(BalloonState { target_pages: u32::from_le_bytes(target), statistics: self.statistics.clone() })
    }

    fn load(&mut self, state: BalloonState) -> Result<(), StateError> {
        self.set_target(state.target_pages);
        self.statistics = state.statistics;
        Ok(())
    }
}
