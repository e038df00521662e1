//! Changes to a disk at run time.

use std::io;

use serde::Deserialize;
use serde_json::Value;
use vmm_config::{ByteSize, read_update};
use vmm_virtio::{DeviceError, Session};

use super::{Block, Disk};
use crate::limits::Limits;

/// Fields that can be changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    size: Option<ByteSize>,
    limits: Option<Limits>,
}

impl Block {
    /// Replaces the limits, or extends the file. Without a session, the driver is notified of the new size at
    /// its start.
    pub(super) fn apply(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        let Update { size, limits } = read_update(fields)?;
        let limiter = limits.map(|limits| limits.limiter()).transpose()?;
        if let Some(size) = size {
            self.grow(size)?;
            let has_changed = self.follow_len();
            match session {
                Some(session) if has_changed => session.config_changed(),
                Some(_) => {}
                None => self.unannounced |= has_changed,
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
            return wrong("only a raw disk without an overlay can be resized at run time".to_owned());
        };
        if self.properties.read_only {
            return wrong("the disk is read-only, and so is its size".to_owned());
        }
        let host = |error: io::Error| {
            DeviceError::host("size", format!("the file can't be extended to {size}: {error}"))
        };
        if !raw.is_regular_file().map_err(host)? {
            return wrong(
                "the disk is a block device of the host: resize that, and the guest is notified within a second"
                    .to_owned(),
            );
        }
        let (len, now) = (size.bytes(), raw.len().map_err(host)?);
        let block_len = u64::from(self.properties.shape.block_len);
        if !len.is_multiple_of(block_len) {
            let whole = len.checked_next_multiple_of(block_len).map(ByteSize::from_bytes);
            let hint = whole.map_or_else(String::new, |whole| format!(": try {whole}"));
            return wrong(format!(
                "{size} isn't a whole number of the disk's blocks of {block_len} bytes{hint}"
            ));
        }
        if len < now {
            let now = ByteSize::from_bytes(now);
            return wrong(format!("{size} is less than the current {now}: a disk can only grow at run time"));
        }
        raw.grow(len).map_err(host)
    }
}
