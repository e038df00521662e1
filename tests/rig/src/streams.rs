//! Threads that copy between QEMU's pipes and the outside.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::run_dir::RunDir;
use crate::terminal;

/// Capacity of a pipe.
const CHUNK_LEN: usize = 64 << 10;
/// File in the run directory with the terminal's size for the outer machine.
const SIZE_FILE: &str = "size";
/// Polling interval of the terminal's size.
const SIZE_INTERVAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// How long the end of a pipe's data is awaited after the process has ended.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Source of the command's input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing: /dev/null.
    #[default]
    Null,
    /// This process's standard input, until its end.
    Inherit,
    /// These bytes.
    Bytes(Vec<u8>),
}

/// Copies QEMU's output to `sink` unmodified and immediately, until its end.
pub(crate) fn copy_output(mut output: ChildStdout, sink: &mut dyn Write) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        match output.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                sink.write_all(&chunk[..len])?;
                sink.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Like [`copy_output`] to a terminal, but never stops reading, because QEMU's console device drops unread
/// output.
pub(crate) fn copy_to_terminal(mut output: ChildStdout) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            let mut stdout = io::stdout().lock();
            receiver.iter().try_for_each(|piece| {
                stdout.write_all(&piece)?;
                stdout.flush()
            })
        });
        let mut chunk = vec![0; CHUNK_LEN];
        while let Ok(len @ 1..) = output.read(&mut chunk) {
            if sender.send(chunk[..len].to_vec()).is_err() {
                break;
            }
        }
        drop(sender);
        writer.join().unwrap_or(Ok(()))
    })
}

/// Copies our standard input to the command until its end, or until the other end of `stop` is closed. With
/// `run_dir`, also keeps the terminal's size there up to date.
pub(crate) fn copy_stdin(mut into: ChildStdin, stop: io::PipeReader, run_dir: Option<&RunDir>) {
    let stdin = io::stdin();
    let mut chunk = vec![0; CHUNK_LEN];
    let mut size = None;
    loop {
        if let Some(run_dir) = run_dir {
            publish_size(run_dir, &mut size);
        }
        let mut fds =
            [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        if poll(&mut fds, Some(&SIZE_INTERVAL)).is_err() {
            // Interrupted by a signal: look again.
            continue;
        }
        let [input, stopped] = fds.map(|fd| fd.revents());
        if !stopped.is_empty() {
            return;
        }
        if input.is_empty() {
            continue;
        }
        // Bypasses the standard library's buffer, which poll doesn't know.
        match rustix::io::read(&stdin, &mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(len) if into.write_all(&chunk[..len]).is_err() => return,
            Ok(_) => {}
        }
    }
}

fn publish_size(run_dir: &RunDir, last: &mut Option<(u16, u16)>) {
    let size = terminal::size();
    if *last != Some(size) {
        *last = Some(size);
        // If it fails, the old size remains.
        let _ = run_dir.write(SIZE_FILE, format!("{} {}\n", size.0, size.1).as_bytes());
    }
}
