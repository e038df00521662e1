//! What a trace records of each exit, and the interface that receives it.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::{ExitKind, Flow};

/// Maximum number of data bytes recorded per exit, to fit in a line. A string instruction may have up to a page.
const DATA_MAX_LEN: usize = 16;

/// An exit that has been handled.
#[derive(Clone, Debug)]
pub struct TracedExit {
    /// Time of the exit, since the start of the trace.
    pub at: Duration,
    /// Time spent in the guest and in KVM before the exit.
    pub inside: Duration,
    /// Time spent on handling the exit.
    pub outside: Duration,
    /// Index of the vCPU.
    pub vcpu: u32,
    /// Kind of the exit, with its port or address.
    pub kind: ExitKind,
    /// Bytes per access, or 0 for an exit without an access.
    pub width: usize,
    /// Number of accesses: more than 1 for a string instruction.
    pub count: usize,
    /// The instruction pointer, or `None` if it isn't wanted or can't be read.
    pub ip: Option<u64>,
    data: [u8; DATA_MAX_LEN],
    data_len: usize,
}

impl TracedExit {
    /// The bytes written or read, at most 16.
    pub fn data(&self) -> &[u8] {
        &self.data[..self.data_len]
    }

    /// The value for vCPU `vcpu` before its first exit.
    pub(crate) fn none(vcpu: u32) -> Self {
        Self {
            at: Duration::ZERO,
            inside: Duration::ZERO,
            outside: Duration::ZERO,
            vcpu,
            kind: ExitKind::Other,
            width: 0,
            count: 0,
            ip: None,
            data: [0; DATA_MAX_LEN],
            data_len: 0,
        }
    }

    pub(crate) fn set_access(&mut self, kind: ExitKind, width: usize, data: &[u8]) {
        (self.kind, self.width, self.count) = (kind, width, data.len() / width.max(1));
        self.data_len = data.len().min(DATA_MAX_LEN);
        self.data[..self.data_len].copy_from_slice(&data[..self.data_len]);
    }
}

/// One line: time in seconds, vCPU, kind with port or address, width and count, data, instruction pointer.
impl fmt::Display for TracedExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:11.6} vcpu{} {:<8}", self.at.as_secs_f64(), self.vcpu, self.kind.name())?;
        if let Some(place) = self.kind.place() {
            write!(f, " {place:#06x} width {} count {} data", self.width, self.count)?;
            self.data().iter().try_for_each(|byte| write!(f, " {byte:02x}"))?;
            if self.width * self.count > self.data_len {
                write!(f, " ..")?;
            }
        }
        match self.ip {
            Some(ip) => write!(f, " ip {ip:#x}"),
            None => Ok(()),
        }
    }
}

/// Receives the exits of a [`Traced`](crate::Traced) handler.
pub trait Trace: Send {
    /// Called after an exit has been handled. [`Flow::Hold`] holds the vCPU until there is room for more.
    fn exit(&mut self, exit: &TracedExit) -> Flow<Infallible>;

    /// Whether the vCPU must keep waiting after [`exit`](Self::exit) returned [`Flow::Hold`]. Called when it is woken.
    fn is_holding(&mut self) -> bool {
        false
    }

    /// Whether to record instruction pointers. Reading one takes a system call.
    fn wants_instruction_pointer(&self) -> bool {
        true
    }
}
