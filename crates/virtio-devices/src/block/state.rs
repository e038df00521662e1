//! The state of a disk. Its contents stay in its files, of which the state has stamps; the driver's choice of the cache mode is in the
//! configuration, which the transport saves.

use vmm_virtio::{FieldReader, FieldWriter, Persistent, State, StateError};

use super::Block;
use super::config::Cache;
use super::image::BACKING_MAX;
use super::request::SERIAL_LEN;
use super::stamp::{self, Stamp};

/// The properties of the disk on which its driver relies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockState {
    sectors: u64,
    block_len: u32,
    serial: [u8; SERIAL_LEN],
    /// The cache mode of a driver that doesn't choose it is write-back.
    is_writeback: bool,
    /// Of the image and its backing files; none in version 1.
    stamps: Vec<Stamp>,
}

impl State for BlockState {
    const KIND: &'static str = "virtio.block";
    /// Version 1 has no stamps, so its disk isn't checked. A reader of version 1 can't ignore them: it would restore onto any disk.
    const VERSION: u16 = 2;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u64(self.sectors);
        fields.u32(self.block_len);
        fields.array(&self.serial);
        fields.bool(self.is_writeback);
        fields.list(&self.stamps, |fields, stamp| stamp.save(fields));
    }

    fn load(version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            sectors: fields.u64("sectors")?,
            block_len: fields.u32("block_len")?,
            serial: fields.array("serial")?,
            is_writeback: fields.bool("writeback")?,
            stamps: if version >= 2 { load_stamps(fields)? } else { Vec::new() },
        })
    }
}

fn load_stamps(fields: &mut FieldReader<'_>) -> Result<Vec<Stamp>, StateError> {
    let stamps = fields.list("stamps", 1 + BACKING_MAX, Stamp::load)?;
    // A disk without would be one that isn't checked.
    if stamps.is_empty() { Err(StateError::new("stamps", "is empty")) } else { Ok(stamps) }
}

impl Block {
    /// With the stamps of the last save or load.
    fn own_state(&self) -> BlockState {
        BlockState {
            sectors: self.properties.sectors,
            block_len: self.properties.shape.block_len,
            serial: self.serial,
            is_writeback: self.properties.cache == Cache::Writeback,
            stamps: self.stamps.clone(),
        }
    }
}

impl Persistent for Block {
    type State = BlockState;

    /// Flushes everything that the guest has written, so that a copy of the file has it, and takes the files' stamps. The disk is
    /// stopped, which has removed an image's mark, so nothing is written until it is resumed.
    fn save(&mut self) -> Result<BlockState, String> {
        if self.disk.is_temporary() {
            return Err("a disk with a temporary overlay can't be saved, as its contents end here".to_owned());
        }
        let flushed = if self.properties.read_only { Ok(()) } else { self.flush() };
        if let Some(failure) = self.disk.failure() {
            return Err(failure.loss());
        }
        flushed.map_err(|error| format!("can't be flushed: {error}"))?;
        let stamps = stamp::take(&self.disk.files())?;
        // What has been restored onto a copy and hasn't been written since is saved as it was loaded.
        if !stamp::agree(&stamps, &self.stamps) {
            self.stamps = stamps;
        }
        Ok(self.own_state())
    }

    /// A temporary overlay, which is empty yet, can have the state of the disk below it.
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
        if !state.stamps.is_empty() {
            stamp::check(&self.disk.files(), &state.stamps)?;
        }
        self.stamps = state.stamps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of 1 MiB in blocks of 512 bytes, "disk0", write-back.
    const VERSION_1: &[u8; 33] = b"\x00\x08\0\0\0\0\0\0\x00\x02\0\0disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01";

    /// The same, and the stamps of an image on 8:1 and of a block device 7:0 below it.
    const VERSION_2: &[u8; 95] = b"\x00\x08\0\0\0\0\0\0\x00\x02\0\0disk0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
        \x02\0\0\0\
        \x00\x01\x08\0\0\0\0\0\0\xd2\x04\0\0\0\0\0\0\x00\x00\x10\0\0\0\0\0\
        \x00\x05\x59\x8e\x70\x55\xb8\x17\0\0\0\0\0\0\0\0\
        \x01\x00\x07\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0";

    fn state(stamps: Vec<Stamp>) -> BlockState {
        let mut serial = [0; SERIAL_LEN];
        serial[..5].copy_from_slice(b"disk0");
        BlockState { sectors: 2048, block_len: 512, serial, is_writeback: true, stamps }
    }

    /// mtime is 1709210000.5 s.
    fn stamps() -> Vec<Stamp> {
        vec![
            Stamp::Regular { dev: 0x801, ino: 1234, len: 1 << 20, mtime_ns: 1_709_210_000_500_000_000 },
            Stamp::Device { rdev: 0x700, len: 512 },
        ]
    }

    /// Reads a whole section.
    fn load(version: u16, bytes: &[u8]) -> Result<BlockState, StateError> {
        let mut fields = FieldReader::new(bytes);
        let state = BlockState::load(version, &mut fields)?;
        fields.finish()?;
        Ok(state)
    }

    #[test]
    fn state_of_version_1_is_read_without_stamps() {
        assert_eq!(load(1, VERSION_1), Ok(state(Vec::new())));
    }

    #[test]
    fn state_of_version_2_is_read_and_written() {
        assert_eq!(load(2, VERSION_2), Ok(state(stamps())));
        let mut fields = FieldWriter::new();
        state(stamps()).save(&mut fields);
        assert_eq!(fields.into_bytes(), VERSION_2, "other bytes need version 3");
    }

    /// A reader of version 1 would restore onto any disk.
    #[test]
    fn state_of_version_2_needs_its_reader() {
        assert_eq!((BlockState::VERSION, BlockState::MIN_READER), (2, 2));
    }

    #[test]
    fn state_of_version_2_without_a_stamp_is_refused() {
        let none = [&VERSION_1[..], &[0; 4]].concat();
        assert_eq!(load(2, &none).unwrap_err().to_string(), "stamps: is empty");
    }
}
