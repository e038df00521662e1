//! Messages from the event sources to the supervisor.

/// A message from an event source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// An output queue has room again: wake the vCPUs that were held.
    Wake,
    /// The user typed one of the monitor's keys.
    Key(Key),
    /// A [`Commander`](crate::Commander) has queued a request.
    RequestsPending,
    /// The reader of our standard output has closed it.
    OutputClosed,
    /// The monitor received this signal, which asks it to end.
    Signal(i32),
    /// A virtio device has stopped or finished a reset, has a fault or log lines, or answered a request.
    DeviceNews,
    /// SIGTSTP: stop the process until SIGCONT, with the terminal as it was before.
    Stop,
    /// SIGCONT: the process was stopped, and its shell has used the terminal meanwhile.
    Continued,
    /// SIGWINCH: the terminal's size may have changed.
    Resized,
    /// SIGUSR1: write the devices' counters.
    Metrics,
    /// A job has finished.
    JobDone,
    /// A vCPU's thread has exited.
    VcpuEnded,
    /// The run's timeout has expired.
    RunTimedOut,
    /// The guest's timeout for shutting down has expired.
    ShutdownTimedOut,
    /// A driver should have found the devices on PCI by now.
    DriverDue,
}

/// A command key, typed after Ctrl-A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// `x`: quit the monitor.
    Quit,
    /// `b`: press the power button.
    PowerButton,
    /// `p`: pause or resume the machine.
    Pause,
    /// `s`: show the machine's status.
    Status,
}
