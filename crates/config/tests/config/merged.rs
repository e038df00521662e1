//! File, flags and defaults made one.

use std::{ffi::OsStr, path::Path};

use vmm_config::{Config, ConfigError, ConfigFile, Flag, Overrides, Protocol, Serial};

/// The config in `dir/vm.json` with the given flags.
fn merge(text: &str, flags: &[(Flag, &str)]) -> Result<Config, ConfigError> {
    let mut overrides = Overrides::default();
    flags.iter().try_for_each(|(flag, value)| overrides.set(*flag, OsStr::new(value)))?;
    ConfigFile::parse(text, Path::new("dir/vm.json"))?.merge(overrides)
}

#[test]
fn merge_kernel_alone_takes_every_default() {
    let config = merge(r#"{"boot": {"kernel": "vmlinuz"}}"#, &[]).unwrap();
    assert_eq!(config.boot.initrd, None);
    assert_eq!(config.boot.cmdline.as_str(), "console=ttyS0 reboot=k panic=-1");
    assert_eq!(config.boot.protocol, Protocol::Auto);
    assert_eq!(config.memory.size.bytes(), 256 << 20);
    assert_eq!(config.cpus.count.get(), 1);
    assert_eq!(config.serial, Serial::Stdio);
}

#[test]
fn merge_relative_path_of_the_file_starts_at_its_directory() {
    let text = r#"{"boot": {"kernel": "vmlinuz", "initrd": "../initrd"}, "serial": {"file": "log"}}"#;
    let config = merge(text, &[]).unwrap();
    assert_eq!(config.boot.kernel.as_path(), Path::new("dir/vmlinuz"));
    assert_eq!(config.boot.initrd.unwrap().as_path(), Path::new("dir/../initrd"));
    assert_eq!(config.serial.to_string(), "file:dir/log");
}

#[test]
fn merge_absolute_path_of_the_file_stays() {
    let config = merge(r#"{"boot": {"kernel": "/boot/vmlinuz"}}"#, &[]).unwrap();
    assert_eq!(config.boot.kernel.as_path(), Path::new("/boot/vmlinuz"));
}

#[test]
fn merge_every_flag_replaces_its_field() {
    let text = r#"{
        "boot": {"kernel": "a", "initrd": "b", "cmdline": "c", "protocol": "pvh"},
        "memory": {"size": "1G"}, "cpus": {"count": 2}, "serial": "pty"
    }"#;
    let flags = [
        (Flag::Kernel, "k"),
        (Flag::Initrd, "i"),
        (Flag::Cmdline, ""),
        (Flag::Protocol, "linux32"),
        (Flag::Memory, "64M"),
        (Flag::Cpus, "3"),
        (Flag::Serial, "socket:s"),
    ];

    let config = merge(text, &flags).unwrap();

    assert_eq!(config.boot.kernel.as_path(), Path::new("k"));
    assert_eq!(config.boot.initrd.unwrap().as_path(), Path::new("i"));
    assert_eq!(config.boot.cmdline.as_str(), "");
    assert_eq!(config.boot.protocol, Protocol::Linux32);
    assert_eq!(config.memory.size.bytes(), 64 << 20);
    assert_eq!(config.cpus.count.get(), 3);
    assert_eq!(config.serial.to_string(), "socket:s");
}

#[test]
fn merge_without_file_needs_only_the_kernel() {
    let mut overrides = Overrides::default();
    overrides.set(Flag::Kernel, OsStr::new("vmlinuz")).unwrap();
    let config = ConfigFile::default().merge(overrides).unwrap();
    assert_eq!(config.boot.kernel.as_path(), Path::new("vmlinuz"));
}

#[test]
fn merge_file_without_kernel_names_field_and_flag() {
    let expected = "dir/vm.json: boot.kernel: missing, give the path of a kernel here or with --kernel";
    assert_eq!(merge("{}", &[]).unwrap_err().to_string(), expected);
}

#[test]
fn merge_nothing_at_all_names_both_flags() {
    let error = ConfigFile::default().merge(Overrides::default()).unwrap_err();
    let expected =
        "--kernel: missing, give the path of a kernel, or a config file that names one with --config";
    assert_eq!(error.to_string(), expected);
}
