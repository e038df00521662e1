//! The flags of the command line that stand for fields of the config.

use std::fmt;

use crate::device::Device;

/// A flag that sets a field, or adds to a list of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flag {
    /// `--kernel`, over `boot.kernel`.
    Kernel,
    /// `--flat`, over `boot.flat.image`.
    Flat,
    /// `--initrd`, over `boot.initrd`.
    Initrd,
    /// `--cmdline`, over `boot.cmdline`.
    Cmdline,
    /// `--protocol`, over `boot.protocol`.
    Protocol,
    /// `--memory`, over `memory.size`.
    Memory,
    /// `--cpus`, over `cpus.count`.
    Cpus,
    /// `--serial`, over `serial`, as `stdio`, `pty`, `none`, `file:PATH` or `socket:PATH`.
    Serial,
    /// `--irqchip`, over `irqchip`, as `true` or `false`.
    Irqchip,
    /// `--mode`, over `boot.flat.mode`.
    Mode,
    /// `--load-address`, over `boot.flat.load_address`.
    LoadAddress,
    /// `--entry`, over `boot.flat.entry`.
    Entry,
    /// `--stack`, over `boot.flat.stack`.
    Stack,
    /// `--debug-console`: its port, of one more of `devices`.
    DebugConsole,
    /// `--debug-exit`: its port, of one more of `devices`.
    DebugExit,
    /// `--pseudo-serial`: its port, of one more of `devices`.
    PseudoSerial,
    /// `--expect`: `rax=VALUE`, over `expect.rax`; `ADDRESS=VALUE`, which is 64 bits, or `ADDRESS:WIDTH=VALUE` with a width such
    /// as `u8`, which is one more of `expect.memory`.
    Expect,
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flag::Kernel => "--kernel",
            Flag::Flat => "--flat",
            Flag::Initrd => "--initrd",
            Flag::Cmdline => "--cmdline",
            Flag::Protocol => "--protocol",
            Flag::Memory => "--memory",
            Flag::Cpus => "--cpus",
            Flag::Serial => "--serial",
            Flag::Irqchip => "--irqchip",
            Flag::Mode => "--mode",
            Flag::LoadAddress => "--load-address",
            Flag::Entry => "--entry",
            Flag::Stack => "--stack",
            Flag::DebugConsole => "--debug-console",
            Flag::DebugExit => "--debug-exit",
            Flag::PseudoSerial => "--pseudo-serial",
            Flag::Expect => "--expect",
        })
    }
}

impl Flag {
    /// The flag that adds such a device; `None` for a virtio device, which only a file can have.
    pub(crate) fn adding(device: &Device) -> Option<Flag> {
        match device {
            Device::DebugConsole { .. } => Some(Flag::DebugConsole),
            Device::DebugExit { .. } => Some(Flag::DebugExit),
            Device::PseudoSerial { .. } => Some(Flag::PseudoSerial),
            Device::Virtio(_) => None,
        }
    }
}
