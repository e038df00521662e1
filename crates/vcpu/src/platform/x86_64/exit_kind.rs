//! The kinds of exits in traces.

/// The kind of an exit, with its port or address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExitKind {
    /// `in` or `ins` at this port.
    PortIn(u16),
    /// `out` or `outs` at this port.
    PortOut(u16),
    /// A load from this guest-physical address.
    MmioRead(u64),
    /// A store to this guest-physical address.
    MmioWrite(u64),
    /// `hlt`.
    Halt,
    /// A triple fault.
    Shutdown,
    /// A breakpoint or a single step.
    Debug,
    /// The guest has become ready for an interrupt.
    InterruptWindow,
    /// An access to the local APIC's task priority register, or a decrease of CR8.
    TaskPriority,
    /// An exit without a call-back, such as an interruption by a signal, or an instruction that KVM can't emulate.
    Other,
}

impl ExitKind {
    /// Name of the kind in traces, without the port or address.
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

    /// The port or guest-physical address, if there is one.
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
