//! Which fields of a config were set by flags.

use crate::{file::ConfigFile, flag::Flag, overrides::Overrides};

/// Which fields of a config were set by flags.
///
/// The crates above know a [`Config`](crate::Config)'s fields but not their origin, so their messages mention
/// fields. If a flag set the field, [`FlagFields::rename`] replaces it with the flag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagFields {
    /// Pairs of a field's name in messages and its replacement.
    names: Vec<(String, String)>,
    is_serial_set: bool,
}

impl FlagFields {
    /// The fields set by `flags` in a config merged from these and `file`.
    pub fn new(file: &ConfigFile, flags: &Overrides) -> FlagFields {
        let set = [
            (flags.kernel.is_some(), "boot.kernel", Flag::Kernel),
            (flags.flat.is_some(), "boot.flat.image", Flag::Flat),
            (flags.initrd.is_some(), "boot.initrd", Flag::Initrd),
            (flags.cmdline.is_some(), "boot.cmdline", Flag::Cmdline),
            (flags.protocol.is_some(), "boot.protocol", Flag::Protocol),
            (flags.memory.is_some(), "memory.size", Flag::Memory),
            (flags.cpus.is_some(), "cpus.count", Flag::Cpus),
            (flags.control.is_some(), "control", Flag::Control),
            (flags.uid.is_some(), "user.uid", Flag::Uid),
            (flags.gid.is_some(), "user.gid", Flag::Gid),
            (flags.mode.is_some(), "boot.flat.mode", Flag::Mode),
            (flags.load_address.is_some(), "boot.flat.load_address", Flag::LoadAddress),
            (flags.entry.is_some(), "boot.flat.entry", Flag::Entry),
            (flags.stack.is_some(), "boot.flat.stack", Flag::Stack),
        ];
        let mut names: Vec<(String, String)> = set
            .into_iter()
            .filter(|(is_set, ..)| *is_set)
            .map(|(_, field, flag)| (field.to_owned(), flag.to_string()))
            .collect();
        if let Some(irqchip) = flags.irqchip {
            names.push((format!("\"irqchip\": {irqchip}"), format!("{}={irqchip}", Flag::Irqchip)));
        }
        if let Some(sandbox) = flags.sandbox {
            names.push((format!("\"sandbox\": {}", sandbox.json()), format!("{} {sandbox}", Flag::Sandbox)));
        }
        let first = file.devices.len();
        for (index, flag) in flags.devices.iter().map(Flag::adding).enumerate() {
            names.extend(flag.map(|flag| (format!("devices[{}].port", first + index), flag.to_string())));
        }
        let first = file.expect.as_ref().map_or(0, |expect| expect.memory.len());
        for index in 0..flags.expect.as_ref().map_or(0, |expect| expect.memory.len()) {
            names.push((format!("expect.memory[{}].address", first + index), Flag::Expect.to_string()));
        }
        let is_serial_set = flags.serial.is_some();
        if is_serial_set {
            let ends = ["file", "socket", "pty", "stdio"];
            names.extend(ends.map(|end| (format!("serial {end}"), format!("{} {end}", Flag::Serial))));
        }
        FlagFields { names, is_serial_set }
    }

    /// Whether a flag, rather than the file, set the field at this path.
    pub fn sets(&self, field: &str) -> bool {
        (self.is_serial_set && field == "serial") || self.names.iter().any(|(name, _)| name == field)
    }

    /// Replaces each field that a flag set with the name of the flag.
    pub fn rename(&self, message: &str) -> String {
        self.names.iter().fold(message.to_owned(), |text, (field, flag)| replace_name(&text, field, flag))
    }
}

/// Replaces `field` with `flag` in `text`, unless it is part of a longer name.
fn replace_name(text: &str, field: &str, flag: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '[');
    let mut renamed = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(field) {
        let (before, after) = (&rest[..at], &rest[at + field.len()..]);
        // A full stop after a name ends the sentence or continues a longer name.
        let goes_on = after.starts_with(is_name) && !after.starts_with(". ");
        let is_part = goes_on || before.ends_with(is_name);
        renamed.push_str(before);
        renamed.push_str(if is_part { field } else { flag });
        rest = after;
    }
    renamed + rest
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, path::Path};

    use super::*;

    /// Renames in a message about a config with one device, one expectation and these flags.
    fn renamed(flags: &[(Flag, &str)], message: &str) -> String {
        fields_of(flags).rename(message)
    }

    fn fields_of(flags: &[(Flag, &str)]) -> FlagFields {
        let text = r#"{"boot": {"flat": {"image": "a"}}, "devices": [{"type": "debug-exit"}],
                       "expect": {"memory": [{"address": 0, "u8": 1}]}}"#;
        let file = ConfigFile::parse(text, Path::new("vm.json")).unwrap();
        let mut overrides = Overrides::default();
        flags.iter().try_for_each(|(flag, value)| overrides.set(*flag, OsStr::new(value))).unwrap();
        FlagFields::new(&file, &overrides)
    }

    #[test]
    fn field_of_a_flag_is_called_by_it() {
        let flags = [(Flag::Entry, "1"), (Flag::Memory, "1M")];
        let message = "boot.flat.entry 0x1 lies outside; change it or memory.size";
        assert_eq!(renamed(&flags, message), "--entry 0x1 lies outside; change it or --memory");
    }

    #[test]
    fn field_of_the_file_keeps_its_name() {
        let message = "boot.flat.entry 0x1 lies outside; devices[0].port: expect.memory[0].address:";
        assert_eq!(renamed(&[(Flag::Memory, "1M"), (Flag::DebugConsole, "1")], message), message);
    }

    #[test]
    fn device_and_expectation_of_flags_follow_those_of_the_file() {
        let flags = [(Flag::DebugConsole, "1"), (Flag::PseudoSerial, "2"), (Flag::Expect, "4=5")];
        assert_eq!(renamed(&flags, "devices[1].port: taken"), "--debug-console: taken");
        assert_eq!(renamed(&flags, "devices[2].port: taken"), "--pseudo-serial: taken");
        assert_eq!(renamed(&flags, "expect.memory[1].address: no memory"), "--expect: no memory");
    }

    #[test]
    fn irqchip_of_a_flag_is_called_as_it_is_written() {
        let message = r#"remove it, or "irqchip": false"#;
        assert_eq!(renamed(&[(Flag::Irqchip, "false")], message), "remove it, or --irqchip=false");
    }

    #[test]
    fn sandbox_and_user_of_flags_are_called_as_they_are_written() {
        let flags = [(Flag::Sandbox, "required"), (Flag::Uid, "7")];
        let message =
            r#"the sandbox can't be complete, as "sandbox": "required" demands; user.uid 7 and user.gid 8"#;
        let renamed_message =
            "the sandbox can't be complete, as --sandbox required demands; --uid 7 and user.gid 8";
        assert_eq!(renamed(&flags, message), renamed_message);
        let message = r#"remove "sandbox": {"seccomp": "log"}"#;
        assert_eq!(renamed(&[(Flag::Sandbox, "log")], message), "remove --sandbox log");
    }

    #[test]
    fn serial_file_of_a_flag_is_called_by_it() {
        let message = "serial file out: it is in use; the serial console";
        assert_eq!(
            renamed(&[(Flag::Serial, "file:out")], message),
            "--serial file out: it is in use; the serial console"
        );
        assert_eq!(renamed(&[(Flag::Memory, "1M")], message), message);
    }

    #[test]
    fn field_is_set_by_its_own_flag_only() {
        let flags = [(Flag::Serial, "file:out"), (Flag::DebugConsole, "1"), (Flag::Expect, "4=5")];
        let fields = fields_of(&flags);
        assert!(
            fields.sets("serial")
                && fields.sets("devices[1].port")
                && fields.sets("expect.memory[1].address")
        );
        assert!(!fields.sets("devices[0].port") && !fields.sets("expect.memory[0].address"));
        assert!(!fields_of(&[(Flag::Memory, "1M")]).sets("serial"));
    }

    #[test]
    fn longer_name_is_left_alone() {
        let message = "image my-boot.flat.entry and boot.flat.entry.bin: boot.flat.entry";
        let expected = "image my-boot.flat.entry and boot.flat.entry.bin: --entry";
        assert_eq!(renamed(&[(Flag::Entry, "1")], message), expected);
    }
}
