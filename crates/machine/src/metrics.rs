//! What the devices have counted, for whoever asks.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::virtio::VirtioDevices;

/// The file that a machine writes its counters to, as JSON: when it ends, and on every SIGUSR1. Each time replaces what was
/// there.
///
/// ```json
/// {
///   "uptime_ms": 5210,
///   "devices": {"root": {"requests": 812, "bytes_in": 4096, "bytes_out": 0, "errors": 0, "refused": 0, "kicks": 80,
///                        "interrupts": 75, "faults": 0}}
/// }
/// ```
#[derive(Debug)]
pub struct MetricsFile(File);

impl MetricsFile {
    /// Creates the file, for its user alone, or empties it.
    ///
    /// # Errors
    /// It can't be created, or is no regular file.
    pub fn create(path: &Path) -> io::Result<Self> {
        // Before opening: to open a pipe would wait for its reader.
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(io::Error::other("is no regular file; name one, or a new one"));
        }
        File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map(Self)
    }

    /// Another handle of the same file, for the machine that comes after a reset.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    pub(crate) fn write(&mut self, uptime: Duration, devices: &VirtioDevices) -> io::Result<()> {
        let text = format!("{:#}\n", counters(uptime, devices));
        self.0.rewind()?;
        self.0.write_all(text.as_bytes())?;
        self.0.set_len(text.len() as u64)
    }
}

fn counters(uptime: Duration, devices: &VirtioDevices) -> Value {
    let each = |counters: &vmm_virtio::Counters| -> Map<String, Value> {
        counters.each().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect()
    };
    let devices: Map<String, Value> =
        devices.counters().map(|(id, counters)| (id.to_owned(), each(counters).into())).collect();
    json!({"uptime_ms": uptime.as_millis() as u64, "devices": devices})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_a_directory_is_refused() {
        let error = MetricsFile::create(Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "is no regular file; name one, or a new one");
    }
}
