//! Changes of a disk while its machine exists.

use std::io;

use serde::Deserialize;
use serde_json::Value;
use vmm_config::{ByteSize, read_update};
use vmm_virtio::{DeviceError, Session};

use super::request::SECTOR_LEN;
use super::{Block, Disk};
use crate::limits::Limits;

/// What can be changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    size: Option<ByteSize>,
    limits: Option<Limits>,
}

impl Block {
    /// Replaces the limits, and makes the file longer. A driver that isn't told of the new size here is told at its start.
    pub(super) fn apply(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        let Update { size, limits } = read_update(fields)?;
        let limiter = limits.map(|limits| limits.limiter()).transpose()?;
        if let Some(size) = size {
            self.grow(size)?;
            if let Some(session) = session {
                self.look(session);
            }
        }
        if let Some(limiter) = limiter {
            self.pace.limit(limiter);
        }
        Ok(())
    }

    fn grow(&mut self, size: ByteSize) -> Result<(), DeviceError> {
        let wrong = |problem: String| Err(DeviceError::config("size", problem));
        let Disk::Raw(raw) = &self.disk else {
            return wrong(
                "only a raw disk without an overlay can be resized while a guest uses it".to_owned(),
            );
        };
        if self.face.read_only {
            return wrong("the disk is read-only, and so is its size".to_owned());
        }
        let host = |error: io::Error| {
            DeviceError::host("size", format!("the file can't be made {size} long: {error}"))
        };
        if !raw.is_regular_file().map_err(host)? {
            return wrong(
                "the disk is a block device of the host: resize that, and the guest is told within a second"
                    .to_owned(),
            );
        }
        let (len, now) = (size.bytes(), raw.len().map_err(host)?);
        if !len.is_multiple_of(SECTOR_LEN) {
            let whole = ByteSize::from_bytes(len.next_multiple_of(SECTOR_LEN));
            return wrong(format!("{size} isn't a whole number of sectors of 512 bytes: try {whole}"));
        }
        if len < now {
            let now = ByteSize::from_bytes(now);
            return wrong(format!(
                "{size} is less than the disk's {now}: a disk that a guest uses can only grow"
            ));
        }
        raw.grow(len).map_err(host)
    }
}
