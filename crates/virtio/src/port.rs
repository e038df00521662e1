//! Where a console device and the host's side of it meet.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use vmm_bus::{Output, Overflow};
use vmm_sys_util::eventfd::EventFd;

use crate::ConfigSpace;

mod bell;
mod input;

use bell::bell;
use input::Input;

/// What the user wants at the host's end of a line. It prints as the program's `--serial` is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEnd {
    /// Standard input and output of the monitor.
    Stdio,
    /// A new pseudo-terminal.
    Pty,
    /// Nothing: output is dropped, and there is no input.
    None,
    /// A file for the output; no input.
    File(PathBuf),
    /// A unix socket that clients connect to.
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

/// How large a terminal is, in characters. Zeros where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters of a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// A line between a device, on its thread, and whoever shows it to the host, on another. Each has its half.
///
/// ```text
///   guest --chain--> DevicePort::push --64 KiB--> HostPort::take --> terminal, file, pty or socket
///   guest <--chain-- DevicePort::take <--4 KiB--- HostPort::send <--
/// ```
///
/// Both ways are bounded, and nothing is lost while somebody reads: who finds no room is told by an eventfd when there is.
/// Input is taken only while the driver has given room for it. While nobody reads the output, the newest 64 KiB are kept.
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

/// Columns and rows, two bytes each, as the configuration of a console has them (virtio 1.2 §5.3.4).
type SizeBytes = [u8; 4];

#[derive(Debug)]
struct Shared {
    output: Output,
    input: Input,
    /// Readable when the device should look: input, room, another size.
    bell: EventFd,
    size: ConfigSpace,
    is_resized: AtomicBool,
}

impl Shared {
    fn ring(&self) {
        // Can't be full: the counter would have to reach 2^64 - 1.
        let _ = self.bell.write(1);
    }

    fn resize(&self, size: TerminalSize) {
        let [[c0, c1], [r0, r1]] = [size.columns.to_le_bytes(), size.rows.to_le_bytes()];
        self.size.update(|bytes| bytes.copy_from_slice(&[c0, c1, r0, r1]));
        self.is_resized.store(true, Ordering::Release);
        self.ring();
    }
}

/// The device's half. Its methods are for the device's thread.
#[derive(Debug)]
pub struct DevicePort(Arc<Shared>);

impl DevicePort {
    /// Readable when there may be input, room or another size. [`answer`](Self::answer) comes first, then a look at each.
    pub fn bell(&self) -> &EventFd {
        &self.0.bell
    }

    /// Takes note of the bell.
    pub fn answer(&self) {
        // Non-blocking; how often it rang doesn't matter.
        let _ = self.0.bell.read();
    }

    /// Has the bell ring, so that the device goes on when its other descriptors had their turn.
    pub fn ring(&self) {
        self.0.ring();
    }

    /// Room for the first of `len` bytes, which [`push`](Self::push) will take. All of them if they fit at once, else at
    /// least 32 KiB of more than 64 KiB, else 0, and the bell tells when it's worth another try.
    pub fn reserve(&self, len: u64) -> usize {
        self.0.output.reserve(len)
    }

    /// Gives the host bytes for which room is reserved.
    pub fn push(&self, bytes: &[u8]) {
        self.0.output.push(bytes);
    }

    /// Whether the guest has given output that isn't pushed yet, so that who waits for the last of it goes on waiting.
    pub fn set_backlog(&self, has_backlog: bool) {
        self.0.output.set_backlog(has_backlog);
    }

    /// Moves the oldest input into `into`, and returns how many bytes that were.
    pub fn take(&self, into: &mut [u8]) -> usize {
        self.0.input.take(into)
    }

    /// Whether the driver has given room for input, so that the host shall read some.
    pub fn set_wanted(&self, is_wanted: bool) {
        self.0.input.set_wanted(is_wanted);
    }

    /// The terminal's size as a configuration space: columns and rows, 16 bits each, which the host's side changes.
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

    /// Sets the size as [`HostPort::resize`] does.
    pub fn resize(&self, size: TerminalSize) {
        self.0.resize(size);
    }

    /// Whether it has changed since the last call.
    pub fn take_resized(&self) -> bool {
        self.0.is_resized.swap(false, Ordering::AcqRel)
    }
}

/// The host's half.
#[derive(Debug)]
pub struct HostPort {
    shared: Arc<Shared>,
    end: HostEnd,
}

impl HostPort {
    /// What the user wants there.
    pub fn end(&self) -> &HostEnd {
        &self.end
    }

    /// Readable when output has come, or none will come of what there was. Read it, then [`take`](Self::take) until nothing
    /// comes.
    pub fn output_ready(&self) -> &EventFd {
        self.shared.output.ready()
    }

    /// Moves the oldest output into `into`, and returns how many bytes that were.
    pub fn take(&self, into: &mut [u8]) -> usize {
        let taken = self.shared.output.take(into);
        if taken.wake {
            self.shared.ring();
        }
        taken.len
    }

    /// Somebody reads from now on: the guest waits instead of losing something.
    pub fn reader_came(&self) {
        // Nobody who waits is to be woken: there is no more room than before.
        let _ = self.shared.output.set_overflow(Overflow::Hold);
    }

    /// Nobody reads: the guest goes on, and the newest 64 KiB are kept.
    pub fn reader_left(&self) {
        if self.shared.output.set_overflow(Overflow::DropOldest) {
            self.shared.ring();
        }
    }

    /// Whether all that the guest wrote has been taken.
    pub fn is_drained(&self) -> bool {
        self.shared.output.is_drained()
    }

    /// Bytes of output that nobody will ever see.
    pub fn lost(&self) -> u64 {
        self.shared.output.lost()
    }

    /// Says something about the guest, between what it says; as much as there is room for.
    pub fn say(&self, text: &[u8]) {
        self.shared.output.push_what_fits(text);
    }

    /// Bytes that [`send`](Self::send) would take now. If 0, [`wants_input`](Self::wants_input) tells when it's worth
    /// another look.
    pub fn room(&self) -> usize {
        self.shared.input.room()
    }

    /// Types `bytes` at the guest and returns how many were taken. If not all, [`wants_input`](Self::wants_input) tells when
    /// to go on.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let (len, is_first) = self.shared.input.send(bytes);
        if is_first {
            self.shared.ring();
        }
        len
    }

    /// Readable when there is room for input again.
    pub fn wants_input(&self) -> &EventFd {
        self.shared.input.wanted()
    }

    /// The terminal has another size now.
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

    /// What the bell said since the last look.
    fn rang(device: &DevicePort) -> bool {
        device.bell().read().is_ok()
    }

    #[test]
    fn size_is_what_the_driver_reads_and_rings() {
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
    fn input_rings_when_it_is_the_first() {
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
    fn reader_that_makes_room_rings_for_a_device_that_waits() {
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
    fn reader_that_leaves_rings_for_a_device_that_waits() {
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
