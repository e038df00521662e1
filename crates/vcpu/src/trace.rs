//! What a trace is told of each exit, and who is told.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use crate::{ExitKind, Flow};

/// Bytes of an exit's data that are kept: a line's worth. A string instruction has up to a page.
const DATA_MAX_LEN: usize = 16;

/// One exit, when it has been answered.
#[derive(Clone, Debug)]
pub struct TracedExit {
    /// Time since the trace began, when the guest left.
    pub at: Duration,
    /// Time in the guest, and in KVM, in front of it.
    pub inside: Duration,
    /// Time that the answer took.
    pub outside: Duration,
    /// Number of the vCPU.
    pub vcpu: u32,
    /// What it was.
    pub kind: ExitKind,
    /// Bytes per access; 0 where there was none.
    pub width: usize,
    /// Number of accesses: more than 1 for a string instruction.
    pub count: usize,
    /// The instruction pointer, where it is wanted and can be read.
    pub ip: Option<u64>,
    data: [u8; DATA_MAX_LEN],
    data_len: usize,
}

impl TracedExit {
    /// The first bytes of what was written or read.
    pub fn data(&self) -> &[u8] {
        &self.data[..self.data_len]
    }

    /// Of the vCPU number `vcpu`, before there was one.
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

/// Who is told of exits.
pub trait Trace: Send {
    /// An exit was answered. A [`Flow::Hold`] keeps the guest out until there is room for more.
    fn exit(&mut self, exit: &TracedExit) -> Flow<Infallible>;

    /// Whether a guest that it holds must stay out: there is still no room.
    fn is_holding(&mut self) -> bool {
        false
    }

    /// Whether the exits' instruction pointers are wanted. To read one takes a system call.
    fn wants_instruction_pointer(&self) -> bool {
        true
    }
}
