//! The devices' counters, and the file that they are written to.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Map, Value, json};
use vmm_config::describe_file_type;

use crate::file_writer::{FileWriter, PATIENCE};
use crate::output_file::{NewFile, open_output};
use crate::virtio::VirtioDevices;

/// The file for a machine's counters as JSON. It is rewritten when the machine ends and on each SIGUSR1.
///
/// ```json
/// {
///   "uptime_ms": 5210,
///   "devices": {"root": {"requests": 812, "bytes_in": 4096, "bytes_out": 0, "errors": 0, "refused": 0, "kicks": 80,
///                        "interrupts": 75, "faults": 0}}
/// }
/// ```
#[derive(Clone, Debug)]
pub struct MetricsFile {
    path: Arc<Path>,
    writer: Arc<FileWriter>,
    /// The last write failed, and that has been reported.
    is_failing: Arc<AtomicBool>,
    made: Arc<Option<NewFile>>,
}

impl MetricsFile {
    /// Creates the file with mode 0600, or opens an existing one, whose contents are kept until the first write. Clones share the
    /// file. Call it after the [`Inputs`](crate::Inputs) are open: only then is it certain that the file isn't one of them. A
    /// new file that was never written is removed with the last clone.
    ///
    /// # Errors
    /// It can't be created, isn't a regular file, or is in use, for example as a disk, a kernel or another monitor's console.
    pub fn create(path: &Path) -> io::Result<Self> {
        refuse_other_than_file(path)?;
        let (mut file, made) = open_output(path)?;
        let writer = FileWriter::with_sink(Box::new(move |text| {
            replace(&mut file, text)
                .map(|()| text.len())
                .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        }))?;
        let (writer, made) = (Arc::new(writer), Arc::new(made));
        Ok(Self { path: path.into(), writer, is_failing: Arc::default(), made })
    }

    /// The new file that is removed if it was never written.
    pub(crate) fn removes(&self) -> Option<PathBuf> {
        (*self.made).as_ref().map(|made| made.path().to_owned())
    }

    /// Starts the thread that writes. Before that, a write is only queued.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn start(&self) -> io::Result<()> {
        self.writer.start()
    }

    /// Records the result of a write. Returns whether it is an error that must be reported: not if the previous write failed too,
    /// or a guest that resets forever would fill the log.
    pub(crate) fn must_report(&self, written: &io::Result<()>) -> bool {
        let is_failing = written.is_err();
        !self.is_failing.swap(is_failing, Ordering::Relaxed) && is_failing
    }

    /// Has the file's thread write, because the disk may be slow.
    ///
    /// # Errors
    /// The previous write failed or isn't finished. The error names the file.
    pub(crate) fn write(&self, counters: &Value) -> io::Result<()> {
        self.begin(counters).map_err(|error| self.unwritten(&error))
    }

    fn begin(&self, counters: &Value) -> io::Result<()> {
        let before = self.writer.take_outcome();
        if let Some(made) = &*self.made {
            made.keep();
        }
        // At most 17 devices of some 200 bytes each: less than the writer's 64 KiB.
        let text = format!("{counters:#}\n");
        if !self.writer.hand_over(text.as_bytes()) {
            return Err(io::Error::other("the previous write isn't finished"));
        }
        before.map_or(Ok(()), |outcome| outcome.map(drop).map_err(io::Error::from))
    }

    /// Waits at most [`PATIENCE`] for the write in progress.
    ///
    /// # Errors
    /// It failed or takes longer. The error names the file.
    pub(crate) fn finish(&self) -> io::Result<()> {
        if !self.writer.wait(PATIENCE) {
            return Err(self.unwritten(&io::ErrorKind::TimedOut.into()));
        }
        let outcome = self.writer.take_outcome();
        outcome.map_or(Ok(()), |outcome| outcome.map(drop).map_err(|errno| self.unwritten(&errno.into())))
    }

    fn unwritten(&self, error: &io::Error) -> io::Error {
        io::Error::other(format!("--metrics {}: can't write the counters: {error}", self.path.display()))
    }
}

/// Refuses anything but a regular or a new file. Checked before opening, which a pipe's reader would notice.
///
/// # Errors
/// It exists and isn't a regular file.
pub(crate) fn refuse_other_than_file(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path).map(|found| found.file_type()) {
        Ok(kind) if !kind.is_file() => Err(io::Error::other(format!(
            "it is {}; name a regular file, or a new one",
            describe_file_type(kind)
        ))),
        _ => Ok(()),
    }
}

fn replace(file: &mut File, text: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text)?;
    file.set_len(text.len() as u64)
}

/// The counters of all devices, by id.
pub(crate) fn counters(uptime: Duration, devices: &VirtioDevices) -> Value {
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

    /// As on a full disk.
    #[test]
    fn counters_that_cannot_be_written_name_the_file() {
        let sink = Box::new(|_: &[u8]| Err(Errno::ENOSPC));
        let writer = Arc::new(FileWriter::with_sink(sink).unwrap());
        writer.start().unwrap();
        let path = Path::new("m.json").into();
        let file = MetricsFile { path, writer, is_failing: Arc::default(), made: Arc::default() };
        assert!(file.writer.hand_over(b"{}"));
        let error = file.finish().unwrap_err();
        let reason = io::Error::from(Errno::ENOSPC);
        assert_eq!(error.to_string(), format!("--metrics m.json: can't write the counters: {reason}"));
    }

    #[test]
    fn file_that_is_a_directory_is_refused() {
        let error = MetricsFile::create(Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "it is a directory; name a regular file, or a new one");
    }
}
