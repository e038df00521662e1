//! Command line flags that correspond to fields of the config.

use std::fmt;

use crate::device::Device;

/// A flag that sets a field or adds to a list of the config. Each is documented with what it replaces or adds
/// to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flag {
    /// `--kernel`, replaces `boot.kernel`.
    Kernel,
    /// `--flat`, replaces `boot.flat.image`.
    Flat,
    /// `--initrd`, replaces `boot.initrd`.
    Initrd,
    /// `--cmdline`, replaces `boot.cmdline`.
    Cmdline,
    /// `--protocol`, replaces `boot.protocol`.
    Protocol,
    /// `--memory`, replaces `memory.size`.
    Memory,
    /// `--cpus`, replaces `cpus.count`.
    Cpus,
    /// `--serial`, replaces `serial`: `stdio`, `pty`, `none`, `file:PATH` or `socket:PATH`.
    Serial,
    /// `--irqchip`, replaces `irqchip`: `true` or `false`.
    Irqchip,
    /// `--control`, replaces `control`.
    Control,
    /// `--sandbox`, replaces `sandbox`: `on`, `required`, `off` or `log`.
    Sandbox,
    /// `--uid`, replaces `user.uid`.
    Uid,
    /// `--gid`, replaces `user.gid`.
    Gid,
    /// `--mode`, replaces `boot.flat.mode`.
    Mode,
    /// `--load-address`, replaces `boot.flat.load_address`.
    LoadAddress,
    /// `--entry`, replaces `boot.flat.entry`.
    Entry,
    /// `--stack`, replaces `boot.flat.stack`.
    Stack,
    /// `--debug-console`, with its port; adds to `devices`.
    DebugConsole,
    /// `--debug-exit`, with its port; adds to `devices`.
    DebugExit,
    /// `--pseudo-serial`, with its port; adds to `devices`.
    PseudoSerial,
    /// `--expect`: `rax=VALUE` replaces `expect.rax`; `ADDRESS=VALUE`, which has 64 bits, or
    /// `ADDRESS:WIDTH=VALUE` with a width such as `u8`, adds to `expect.memory`.
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
            Flag::Control => "--control",
            Flag::Sandbox => "--sandbox",
            Flag::Uid => "--uid",
            Flag::Gid => "--gid",
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
    /// The flag that adds such a device; `None` for virtio devices, which only a file can add.
    pub(crate) fn adding(device: &Device) -> Option<Flag> {
        match device {
            Device::DebugConsole { .. } => Some(Flag::DebugConsole),
            Device::DebugExit { .. } => Some(Flag::DebugExit),
            Device::PseudoSerial { .. } => Some(Flag::PseudoSerial),
            Device::Virtio(_) => None,
        }
    }
}
