//! The kinds of exits, as a trace names them.

/// What kind of exit it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitKind {
    /// `in` or `ins` at this port.
    PortIn(u16),
    /// `out` or `outs` at this port.
    PortOut(u16),
    /// A load from this guest-physical address.
    MmioRead(u64),
    /// A store to it.
    MmioWrite(u64),
    /// `hlt`.
    Halt,
    /// A triple fault.
    Shutdown,
    /// A breakpoint or a single step.
    Debug,
    /// The guest could take an interrupt.
    InterruptWindow,
    /// An access to the local APIC's task priority register, or CR8 lowered.
    TaskPriority,
    /// One that no call-back saw: an interruption of ours, or an instruction that KVM can't emulate.
    Other,
}

impl ExitKind {
    /// The kind alone, without the place.
    pub fn name(self) -> &'static str {
        match self {
            Self::PortIn(_) => "in",
            Self::PortOut(_) => "out",
            Self::MmioRead(_) => "read",
            Self::MmioWrite(_) => "write",
            Self::Halt => "halt",
            Self::Shutdown => "shutdown",
            Self::Debug => "debug",
            Self::InterruptWindow => "window",
            Self::TaskPriority => "tpr",
            Self::Other => "other",
        }
    }

    /// Where it was: a port or a guest-physical address.
    pub fn place(self) -> Option<u64> {
        match self {
            Self::PortIn(port) | Self::PortOut(port) => Some(port.into()),
            Self::MmioRead(gpa) | Self::MmioWrite(gpa) => Some(gpa),
            Self::Halt
            | Self::Shutdown
            | Self::Debug
            | Self::InterruptWindow
            | Self::TaskPriority
            | Self::Other => None,
        }
    }
}
