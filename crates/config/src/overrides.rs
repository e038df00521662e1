//! What the command line says instead of the file.

use std::{ffi::OsStr, fmt, str::FromStr};

use crate::{
    cmdline::CommandLine,
    count::CpuCount,
    error::{ConfigError, ValueError},
    path::FilePath,
    protocol::Protocol,
    serial::Serial,
    size::MemorySize,
};

/// A flag that sets a field.
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
        })
    }
}

/// The fields that the command line sets; each replaces the file's. Relative paths start at the current directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Replaces `boot.kernel`.
    pub kernel: Option<FilePath>,
    /// Replaces `boot.flat.image`, or asks for a flat image where the file doesn't.
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
}

impl Overrides {
    /// Sets the field of `flag` from the text that was given with it.
    ///
    /// # Errors
    /// [`ConfigError::Flag`] if the text is no such value; the field stays as it was.
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
        }
        Ok(())
    }
}

/// Parses what only makes sense as text.
fn parse<T: FromStr<Err = ValueError>>(text: &OsStr) -> Result<T, ValueError> {
    match text.to_str() {
        Some(text) => text.parse(),
        None => Err(ValueError::NotUtf8 { text: text.to_string_lossy().into_owned() }),
    }
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
        assert_eq!(refusal(Flag::Memory, "0"), "--memory: \"0\" is too small, at least 1M");
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
