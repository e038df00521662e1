//! Fields set on the command line.

use std::{ffi::OsStr, str::FromStr};

use crate::{
    cmdline::CommandLine, count::CpuCount, device::Device, error::ConfigError, expect::Expect, flag::Flag,
    flat::FlatMode, number::Address, path::FilePath, protocol::Protocol, sandbox::Sandbox, serial::Serial,
    size::MemorySize, text::hint, user::UnixId, value_error::ValueError,
};

/// Fields set on the command line. A value replaces the file's, a list is appended to it. Relative paths
/// start at the current directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Replaces `boot.kernel`.
    pub kernel: Option<FilePath>,
    /// Replaces `boot.flat.image`, or requests a flat image if the file doesn't.
    pub flat: Option<FilePath>,
    /// Replaces `boot.initrd`.
    pub initrd: Option<FilePath>,
    /// Replaces `boot.cmdline`.
    pub cmdline: Option<CommandLine>,
    /// Replaces `boot.protocol`.
    pub protocol: Option<Protocol>,
    /// Replaces `memory.size`.
    pub memory: Option<MemorySize>,
    /// Replaces `cpus.count`.
    pub cpus: Option<CpuCount>,
    /// Replaces `serial`.
    pub serial: Option<Serial>,
    /// Replaces `irqchip`.
    pub irqchip: Option<bool>,
    /// Replaces `control`.
    pub control: Option<FilePath>,
    /// Replaces `sandbox`.
    pub sandbox: Option<Sandbox>,
    /// Replaces `user.uid`.
    pub uid: Option<UnixId>,
    /// Replaces `user.gid`.
    pub gid: Option<UnixId>,
    /// Replaces `boot.flat.mode`.
    pub mode: Option<FlatMode>,
    /// Replaces `boot.flat.load_address`.
    pub load_address: Option<Address>,
    /// Replaces `boot.flat.entry`.
    pub entry: Option<Address>,
    /// Replaces `boot.flat.stack`.
    pub stack: Option<Address>,
    /// Added to `devices`.
    pub devices: Vec<Device>,
    /// `rax` replaces `expect.rax`, and `memory` is added to `expect.memory`.
    pub expect: Option<Expect>,
}

impl Overrides {
    /// Sets the field of `flag`, or adds to its list, from the flag's value.
    ///
    /// # Errors
    /// [`ConfigError::Flag`] if the value is invalid; the field is unchanged then.
    pub fn set(&mut self, flag: Flag, text: &OsStr) -> Result<(), ConfigError> {
        self.try_set(flag, text).map_err(|problem| ConfigError::Flag { flag, problem })
    }

    fn try_set(&mut self, flag: Flag, text: &OsStr) -> Result<(), ValueError> {
        match flag {
            Flag::Kernel => self.kernel = Some(FilePath::try_from(text)?),
            Flag::Flat => self.flat = Some(FilePath::try_from(text)?),
            Flag::Initrd => self.initrd = Some(FilePath::try_from(text)?),
            Flag::Cmdline => self.cmdline = Some(parse(text)?),
            Flag::Protocol => self.protocol = Some(parse(text)?),
            Flag::Memory => self.memory = Some(parse(text)?),
            Flag::Cpus => self.cpus = Some(parse(text)?),
            Flag::Serial => self.serial = Some(Serial::from_flag(text)?),
            Flag::Irqchip => self.irqchip = Some(parse_bool(text)?),
            Flag::Control => self.control = Some(FilePath::try_from(text)?),
            Flag::Sandbox => self.sandbox = Some(parse(text)?),
            Flag::Uid => self.uid = Some(parse(text)?),
            Flag::Gid => self.gid = Some(parse(text)?),
            Flag::Mode => self.mode = Some(parse(text)?),
            Flag::LoadAddress => self.load_address = Some(parse(text)?),
            Flag::Entry => self.entry = Some(parse(text)?),
            Flag::Stack => self.stack = Some(parse(text)?),
            Flag::DebugConsole => self.devices.push(Device::DebugConsole { port: parse(text)? }),
            Flag::DebugExit => self.devices.push(Device::DebugExit { port: parse(text)? }),
            Flag::PseudoSerial => self.devices.push(Device::PseudoSerial { port: parse(text)? }),
            Flag::Expect => self.add_expect(parse(text)?)?,
        }
        Ok(())
    }

    fn add_expect(&mut self, further: Expect) -> Result<(), ValueError> {
        match &mut self.expect {
            Some(expect) => expect.add(further),
            None => {
                self.expect = Some(further);
                Ok(())
            }
        }
    }
}

/// Parses a value that must be text.
fn parse<T: FromStr<Err = ValueError>>(text: &OsStr) -> Result<T, ValueError> {
    utf8(text)?.parse()
}

fn parse_bool(text: &OsStr) -> Result<bool, ValueError> {
    match utf8(text)? {
        "true" => Ok(true),
        "false" => Ok(false),
        other => {
            let hint = hint(other, &["true", "false"]);
            Err(ValueError::UnknownName { what: "value", name: other.to_owned(), hint })
        }
    }
}

fn utf8(text: &OsStr) -> Result<&str, ValueError> {
    text.to_str().ok_or_else(|| ValueError::NotUtf8 { text: text.to_string_lossy().into_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn refusal(flag: Flag, text: &str) -> String {
        Overrides::default().set(flag, OsStr::new(text)).unwrap_err().to_string()
    }

    #[test]
    fn flag_kernel_empty_is_named() {
        assert_eq!(refusal(Flag::Kernel, ""), "--kernel: the path is empty, name a file");
    }

    #[test]
    fn flag_flat_empty_is_named() {
        assert_eq!(refusal(Flag::Flat, ""), "--flat: the path is empty, name a file");
    }

    #[test]
    fn flag_initrd_empty_is_named() {
        assert_eq!(refusal(Flag::Initrd, ""), "--initrd: the path is empty, name a file");
    }

    #[test]
    fn flag_cmdline_newline_is_named() {
        assert_eq!(refusal(Flag::Cmdline, "a\n"), "--cmdline: byte 1 is a newline, use printable ASCII only");
    }

    #[test]
    fn flag_protocol_unknown_is_named() {
        let expected = "--protocol: unknown protocol \"linux\", did you mean \"linux64\"?";
        assert_eq!(refusal(Flag::Protocol, "linux"), expected);
    }

    #[test]
    fn flag_memory_zero_is_named() {
        assert_eq!(refusal(Flag::Memory, "0"), "--memory: \"0\" is too small, at least 4K");
    }

    #[test]
    fn flag_cpus_zero_is_named() {
        assert_eq!(refusal(Flag::Cpus, "0"), "--cpus: 0 is too small, at least 1");
    }

    #[test]
    fn flag_serial_without_path_is_named() {
        assert_eq!(refusal(Flag::Serial, "socket"), "--serial: \"socket\" needs a path, write socket:PATH");
    }

    #[test]
    fn flag_irqchip_neither_true_nor_false_is_named() {
        let expected = "--irqchip: unknown value \"no\", expected one of \"true\", \"false\"";
        assert_eq!(refusal(Flag::Irqchip, "no"), expected);
    }

    #[test]
    fn flag_sandbox_unknown_is_named() {
        let expected = "--sandbox: unknown value \"of\", did you mean \"off\"?";
        assert_eq!(refusal(Flag::Sandbox, "of"), expected);
    }

    #[test]
    fn flag_user_or_group_by_name_is_named() {
        let problem = "\"kvm\" is not the number of a user or group, write one such as 1000";
        assert_eq!(refusal(Flag::Uid, "kvm"), format!("--uid: {problem}"));
        assert_eq!(refusal(Flag::Gid, "kvm"), format!("--gid: {problem}"));
    }

    #[test]
    fn flag_mode_unknown_is_named() {
        assert_eq!(refusal(Flag::Mode, "rael"), "--mode: unknown mode \"rael\", did you mean \"real\"?");
    }

    #[test]
    fn flag_address_without_prefix_is_named() {
        let problem = "\"7c0f\" lacks the 0x of a hexadecimal number, write \"0x7c0f\"";
        assert_eq!(refusal(Flag::LoadAddress, "7c0f"), format!("--load-address: {problem}"));
        assert_eq!(refusal(Flag::Entry, "7c0f"), format!("--entry: {problem}"));
        assert_eq!(refusal(Flag::Stack, "7c0f"), format!("--stack: {problem}"));
    }

    #[test]
    fn flag_port_too_large_is_named() {
        let problem = "\"0x10000\" is too large, at most 0xffff";
        assert_eq!(refusal(Flag::DebugConsole, "0x10000"), format!("--debug-console: {problem}"));
        assert_eq!(refusal(Flag::DebugExit, "0x10000"), format!("--debug-exit: {problem}"));
        assert_eq!(refusal(Flag::PseudoSerial, "0x10000"), format!("--pseudo-serial: {problem}"));
    }

    #[test]
    fn flag_expect_without_a_value_shows_how_it_is_written() {
        let expected = "--expect: expected rax=42, 0x400=42 or 0x400:u8=42, found \"42\"";
        assert_eq!(refusal(Flag::Expect, "42"), expected);
    }

    #[test]
    fn flag_expect_rax_twice_is_refused_and_keeps_the_first() {
        let mut overrides = Overrides::default();
        overrides.set(Flag::Expect, OsStr::new("rax=1")).unwrap();
        let error = overrides.set(Flag::Expect, OsStr::new("rax=2")).unwrap_err();
        assert_eq!(error.to_string(), "--expect: rax is given twice, keep one");
        assert_eq!(overrides.expect.unwrap().rax, Some(1.into()));
    }

    #[test]
    fn flag_not_utf8_is_named() {
        let error = Overrides::default().set(Flag::Memory, OsStr::from_bytes(b"1\xff")).unwrap_err();
        assert_eq!(error.to_string(), "--memory: \"1\u{fffd}\" is not UTF-8");
    }

    #[test]
    fn flag_refused_leaves_the_field() {
        let mut overrides = Overrides { cpus: Some(CpuCount::MAX), ..Overrides::default() };
        let refused = overrides.set(Flag::Cpus, OsStr::new("0"));
        assert!(refused.is_err());
        assert_eq!(overrides.cpus, Some(CpuCount::MAX));
    }
}
