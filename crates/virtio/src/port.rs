//! Connects a console device and its host backend.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use vmm_bus::EventFd;
use vmm_bus::{Output, Overflow};

use crate::ConfigSpace;

mod bell;
mod input;

use bell::bell;
pub use input::INPUT_MAX;
use input::Input;

/// Where the user wants a console on the host. Displayed in the notation of `--serial`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// Standard input and output of the monitor.
    Stdio,
    /// A new pseudo-terminal.
    Pty,
    /// Nowhere: output is dropped, and there is no input.
    None,
    /// A file for output; no input.
    File(PathBuf),
    /// A Unix socket to which clients connect.
    Socket(PathBuf),
}

impl fmt::Display for HostEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdio => f.write_str("stdio"),
            Self::Pty => f.write_str("pty"),
            Self::None => f.write_str("none"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Socket(path) => write!(f, "socket:{}", path.display()),
        }
    }
}

/// Size of a terminal in characters; 0 if unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters per line.
    pub columns: u16,
    /// Number of lines.
    pub rows: u16,
}

/// Creates a bidirectional byte pipe between a device and its host backend, which run on different threads.
///
/// ```text
///   guest --chain--> DevicePort::push --64 KiB--> HostPort::take --> terminal, file, pty or socket
///   guest <--chain-- DevicePort::take <--4 KiB--- HostPort::send <--
/// ```
///
/// Both directions are bounded, and nothing is lost while a reader is attached: a side that finds no room is
/// woken by an eventfd when there is. Input is accepted only while the driver has provided buffers. Without a
/// reader, the newest 64 KiB of output are kept.
///
/// # Errors
/// The host is out of descriptors.
pub fn port(end: HostEnd) -> io::Result<(DevicePort, HostPort)> {
    let output = Output::new()?;
    // Nobody has written anything yet, so nobody waits.
    let _ = output.set_overflow(Overflow::DropOldest);
    let shared = Arc::new(Shared {
        output,
        input: Input::new()?,
        bell: bell()?,
        size: ConfigSpace::read_only(SizeBytes::default()),
        is_resized: AtomicBool::new(false),
    });
    Ok((DevicePort(Arc::clone(&shared)), HostPort { shared, end }))
}

/// Columns and rows, two bytes each, as in the configuration of a console (virtio 1.2 §5.3.4).
type SizeBytes = [u8; 4];

#[derive(Debug)]
struct Shared {
    output: Output,
    input: Input,
    /// Readable when the device should check for input, room or a new size.
    bell: EventFd,
    size: ConfigSpace,
    is_resized: AtomicBool,
}

impl Shared {
    fn ring(&self) {
        // It can't block: the counter would have to reach 2^64 - 1.
        let _ = self.bell.write(1);
    }

    fn resize(&self, size: TerminalSize) {
        let [[c0, c1], [r0, r1]] = [size.columns.to_le_bytes(), size.rows.to_le_bytes()];
        self.size.update(|bytes| bytes.copy_from_slice(&[c0, c1, r0, r1]));
        self.is_resized.store(true, Ordering::Release);
        self.ring();
    }
}

/// The device's end, used on the device's thread.
#[derive(Debug)]
pub struct DevicePort(Arc<Shared>);

impl DevicePort {
    /// A non-blocking eventfd, readable when there may be input, room or a new size. Call [`answer`](Self::answer) first, then check
    /// each.
    pub fn bell(&self) -> &EventFd {
        &self.0.bell
    }

    /// Clears the bell.
    pub fn answer(&self) {
        // Non-blocking; the count doesn't matter.
        let _ = self.0.bell.read();
    }

    /// Makes the bell readable, so that the device continues after its other events.
    pub fn ring(&self) {
        self.0.ring();
    }

    /// Reserves room for the first of `len` bytes. Returns `len` if it fits; otherwise at least 32 KiB if
    /// `len` exceeds 64 KiB and they are free; otherwise 0, and the bell becomes readable when a retry is
    /// worthwhile.
    pub fn reserve(&self, len: u64) -> usize {
        self.0.output.reserve(len)
    }

    /// Sends bytes to the host, for which room must be reserved.
    pub fn push(&self, bytes: &[u8]) {
        self.0.output.push(bytes);
    }

    /// Whether the guest has output that hasn't been pushed yet, so that [`HostPort::is_drained`] is false
    /// until it is.
    pub fn set_backlog(&self, has_backlog: bool) {
        self.0.output.set_backlog(has_backlog);
    }

    /// Moves the oldest input into `into` and returns the number of bytes.
    pub fn take(&self, into: &mut [u8]) -> usize {
        self.0.input.take(into)
    }

    /// A copy of the input that hasn't been taken.
    pub fn input(&self) -> Vec<u8> {
        self.0.input.copy()
    }

    /// Adds input after what there is, as far as there is room: up to [`INPUT_MAX`] bytes.
    pub fn put_input(&self, bytes: &[u8]) {
        self.0.input.put(bytes);
    }

    /// Whether the driver has provided buffers for input.
    pub fn set_wanted(&self, is_wanted: bool) {
        self.0.input.set_wanted(is_wanted);
    }

    /// The terminal's size as a configuration space: columns and rows, 16 bits each. The host's end updates
    /// it.
    pub fn size_space(&self) -> &ConfigSpace {
        &self.0.size
    }

    /// The terminal's size.
    pub fn size(&self) -> TerminalSize {
        let mut bytes = SizeBytes::default();
        self.0.size.read(0, &mut bytes);
        let [c0, c1, r0, r1] = bytes;
        TerminalSize { columns: u16::from_le_bytes([c0, c1]), rows: u16::from_le_bytes([r0, r1]) }
    }

    /// Sets the size, as [`HostPort::resize`] does.
    pub fn resize(&self, size: TerminalSize) {
        self.0.resize(size);
    }

    /// Whether the size has changed since the last call.
    pub fn take_resized(&self) -> bool {
        self.0.is_resized.swap(false, Ordering::AcqRel)
    }
}

/// The host's end.
#[derive(Debug)]
pub struct HostPort {
    shared: Arc<Shared>,
    end: HostEnd,
}

impl HostPort {
    /// Where the user wants the console.
    pub fn end(&self) -> &HostEnd {
        &self.end
    }

    /// A non-blocking eventfd, readable when output has arrived, or when the guest's backlog is gone. Read it, then call
    /// [`take`](Self::take) until it returns 0.
    pub fn output_ready(&self) -> &EventFd {
        self.shared.output.ready()
    }

    /// Moves the oldest output into `into` and returns the number of bytes.
    pub fn take(&self, into: &mut [u8]) -> usize {
        let taken = self.shared.output.take(into);
        if taken.wake {
            self.shared.ring();
        }
        taken.len
    }

    /// A reader is attached: when the buffer is full, the guest waits and no output is lost.
    pub fn reader_came(&self) {
        // Nobody who waits is to be woken: there is no more room than before.
        let _ = self.shared.output.set_overflow(Overflow::Hold);
    }

    /// No reader is attached: the guest doesn't wait, and only the newest 64 KiB are kept.
    pub fn reader_left(&self) {
        if self.shared.output.set_overflow(Overflow::DropOldest) {
            self.shared.ring();
        }
    }

    /// Whether all of the guest's output has been taken.
    pub fn is_drained(&self) -> bool {
        self.shared.output.is_drained()
    }

    /// Bytes of output that haven't been taken.
    pub fn queued(&self) -> usize {
        self.shared.output.queued()
    }

    /// Bytes of output that were dropped.
    pub fn lost(&self) -> u64 {
        self.shared.output.lost()
    }

    /// Inserts a message from the monitor into the output, as far as it fits.
    pub fn say(&self, text: &[u8]) {
        self.shared.output.push_what_fits(text);
    }

    /// Number of bytes that [`send`](Self::send) would accept now. If it is 0,
    /// [`wants_input`](Self::wants_input) becomes readable when there is room.
    pub fn room(&self) -> usize {
        self.shared.input.room()
    }

    /// Sends input to the guest and returns how many bytes were accepted. If not all,
    /// [`wants_input`](Self::wants_input) becomes readable when there is room.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let (len, is_first) = self.shared.input.send(bytes);
        if is_first {
            self.shared.ring();
        }
        len
    }

    /// A non-blocking eventfd, readable when there is room for input again.
    pub fn wants_input(&self) -> &EventFd {
        self.shared.input.wanted()
    }

    /// Sets the terminal's size.
    pub fn resize(&self, size: TerminalSize) {
        self.shared.resize(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (DevicePort, HostPort) {
        port(HostEnd::None).unwrap()
    }

    /// Whether the bell was readable; clears it.
    fn rang(device: &DevicePort) -> bool {
        device.bell().read().is_ok()
    }

    #[test]
    fn size_is_what_the_driver_reads_and_wakes_the_device() {
        let (device, host) = pair();
        assert_eq!(device.size(), TerminalSize::default());
        host.resize(TerminalSize { columns: 132, rows: 300 });
        assert_eq!(device.size(), TerminalSize { columns: 132, rows: 300 });
        let mut bytes = [0; 4];
        device.size_space().read(0, &mut bytes);
        assert_eq!(bytes, [132, 0, 0x2c, 1]);
        assert!(rang(&device) && device.take_resized() && !device.take_resized());
    }

    #[test]
    fn first_input_wakes_the_device() {
        let (device, host) = pair();
        device.set_wanted(true);
        assert_eq!(host.send(b"ab"), 2);
        assert!(rang(&device));
        assert_eq!(host.send(b"c"), 1);
        assert!(!rang(&device), "the device takes it with the rest");
        let mut bytes = [0; 8];
        assert_eq!(device.take(&mut bytes), 3);
        assert_eq!(&bytes[..3], b"abc");
    }

    #[test]
    fn reader_that_makes_room_wakes_a_waiting_device() {
        let (device, host) = pair();
        host.reader_came();
        assert_eq!(device.reserve(64 << 10), 64 << 10);
        device.push(&vec![7; 64 << 10]);
        assert_eq!(device.reserve(1), 0);
        assert!(!rang(&device));
        assert_eq!(host.take(&mut vec![0; 32 << 10]), 32 << 10);
        assert!(rang(&device));
        assert_eq!(device.reserve(1), 1);
    }

    #[test]
    fn reader_that_leaves_wakes_a_waiting_device() {
        let (device, host) = pair();
        host.reader_came();
        assert_eq!(device.reserve(64 << 10), 64 << 10);
        device.push(&vec![7; 64 << 10]);
        assert_eq!(device.reserve(1), 0);
        host.reader_left();
        assert!(rang(&device));
        assert_eq!(device.reserve(1), 1);
    }
}
