//! The state of a disk. What it contains is its file's; the driver's choice of the cache mode is in the configuration, which the transport
//! saves.

use vmm_virtio::{FieldReader, FieldWriter, Persistent, State, StateError};

use super::Block;
use super::config::Cache;
use super::request::SERIAL_LEN;

/// The properties of the disk on which its driver relies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockState {
    sectors: u64,
    block_len: u32,
    serial: [u8; SERIAL_LEN],
    /// The cache mode of a driver that doesn't choose it is write-back.
    is_writeback: bool,
}

impl State for BlockState {
    const KIND: &'static str = "virtio.block";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u64(self.sectors);
        fields.u32(self.block_len);
        fields.array(&self.serial);
        fields.bool(self.is_writeback);
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            sectors: fields.u64("sectors")?,
            block_len: fields.u32("block_len")?,
            serial: fields.array("serial")?,
            is_writeback: fields.bool("writeback")?,
        })
    }
}

impl Block {
    fn own_state(&self) -> BlockState {
        BlockState {
            sectors: self.properties.sectors,
            block_len: self.properties.shape.block_len,
            serial: self.serial,
            is_writeback: self.properties.cache == Cache::Writeback,
        }
    }

    /// Why the disk can't be saved, whatever its state.
    pub(super) fn refusal(&self) -> Option<String> {
        self.disk
            .is_temporary()
            .then(|| "a disk with a temporary overlay can't be saved, as its contents end here".to_owned())
    }
}

impl Persistent for Block {
    type State = BlockState;

    /// Flushes everything that the guest has written, so that a copy of the file has it.
    fn save(&mut self) -> Result<BlockState, String> {
        let flushed = if self.properties.read_only { Ok(()) } else { self.flush() };
        if let Some(failure) = self.disk.failure() {
            return Err(failure.loss());
        }
        flushed.map_err(|error| format!("can't be flushed: {error}"))?;
        Ok(self.own_state())
    }

    fn load(&mut self, state: BlockState) -> Result<(), StateError> {
        let own = self.own_state();
        let numbers = [
            ("sectors", own.sectors, state.sectors),
            ("block_len", own.block_len.into(), state.block_len.into()),
        ];
        for (field, ours, theirs) in numbers {
            if ours != theirs {
                return Err(StateError::new(field, format!("is {theirs}, that of this disk {ours}")));
            }
        }
        if own.serial != state.serial {
            let shown = |serial: [u8; SERIAL_LEN]| {
                let text = String::from_utf8_lossy(&serial).into_owned();
                text.trim_end_matches('\0').escape_default().to_string()
            };
            let problem =
                format!("is \"{}\", that of this disk \"{}\"", shown(state.serial), shown(own.serial));
            return Err(StateError::new("serial", problem));
        }
        if own.is_writeback != state.is_writeback {
            return Err(StateError::new("writeback", "differs from this disk's \"cache\""));
        }
        Ok(())
    }
}
