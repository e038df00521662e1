//! The kinds of devices with ports.

use std::fmt;

/// The devices with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Prints what is written to it.
    DebugConsole,
    /// Ends the monitor.
    DebugExit,
    /// Sends what is written to it.
    PseudoSerial,
    /// The reset line.
    I8042,
    /// ACPI's power button and soft off.
    PowerManagement,
    /// Where a guest says that it has panicked.
    PvPanic,
    /// The real-time clock.
    Rtc,
    /// The serial port.
    Uart,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DebugConsole => "debug console",
            Self::DebugExit => "debug exit",
            Self::PseudoSerial => "pseudo serial port",
            Self::PowerManagement => "power management",
            Self::I8042 => "i8042 reset",
            Self::PvPanic => "pvpanic",
            Self::Rtc => "real-time clock",
            Self::Uart => "uart com1",
        })
    }
}
