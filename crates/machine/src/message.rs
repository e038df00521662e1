//! What sources of the event loop, and keys, ask for.

/// What a source asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// The UART has room again: wake the vCPUs that were held.
    Wake,
    /// The user has typed a key of the monitor's.
    Key(Key),
    /// A program asks for something.
    Requested,
    /// Nobody reads our standard output any more.
    OutputGone,
    /// The monitor was sent this signal.
    Signal(i32),
    /// A virtio device has finished a reset, or its driver broke the rules, or it says something.
    DeviceNews,
    /// The process was stopped and goes on: its shell had the terminal meanwhile.
    Continued,
    /// The terminal may have another size.
    Resized,
    /// Somebody wants to know what the devices have counted.
    Metrics,
    /// A job is done.
    JobDone,
    /// A vCPU runs no more.
    VcpuEnded,
    /// The run's time is over.
    TimeIsUp,
    /// The guest has had the time that it was given to shut down.
    ShutdownTimeIsUp,
}

/// A key that is a command, behind Ctrl-A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// End the machine.
    Quit,
    /// Press the power button.
    PowerButton,
    /// Pause or resume the machine.
    Pause,
    /// Say how the machine is.
    Status,
}
