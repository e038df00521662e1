//! Conflicts between fields and flags that are valid on their own.

use std::{collections::BTreeMap, fmt, path::Path};

use crate::{
    announce::AnnounceVirtio, count::CpuCount, device::Device, error::ConfigError, file::ConfigFile,
    flag::Flag, irqchip::IrqchipReason, number::Port, overrides::Overrides, sandbox::Sandbox,
    size::MemorySize, transport::Transport, value_error::ValueError,
};

/// Returns the first conflict.
pub(crate) fn check(file: &ConfigFile, flags: &Overrides) -> Result<(), ConfigError> {
    flat_excludes_linux(file, flags)?;
    only_flat(file, flags)?;
    if file.boot.flat.is_none() && flags.flat.is_none() {
        memory_for_linux(file, flags)?;
    }
    one_kind_of_page_tables(file)?;
    pci_announces_itself(file)?;
    user_needs_the_sandbox(file, flags)?;
    match IrqchipReason::of(file, flags) {
        None => one_processor(file, flags)?,
        Some(reason) => no_expectation(file, flags, reason)?,
    }
    own_ports(&file.devices, &flags.devices, file.origin.as_deref())
}

/// Where something was requested: the flag if both do, because it was typed last.
#[derive(Clone, Copy)]
enum Source {
    File(&'static str),
    Flag(Flag),
}

impl Source {
    fn of(field: &'static str, in_file: bool, flag: Flag, as_flag: bool) -> Option<Source> {
        as_flag.then_some(Source::Flag(flag)).or(in_file.then_some(Source::File(field)))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(field) => field.fmt(f),
            Source::Flag(flag) => flag.fmt(f),
        }
    }
}

/// A guest boots either a flat image or a kernel, and only a kernel has an initial RAM disk and a protocol.
fn flat_excludes_linux(file: &ConfigFile, flags: &Overrides) -> Result<(), ConfigError> {
    let boot = &file.boot;
    let flat = Source::of("boot.flat", boot.flat.is_some(), Flag::Flat, flags.flat.is_some());
    let kernel = Source::of("boot.kernel", boot.kernel.is_some(), Flag::Kernel, flags.kernel.is_some());
    let initrd = Source::of("boot.initrd", boot.initrd.is_some(), Flag::Initrd, flags.initrd.is_some());
    let protocol =
        Source::of("boot.protocol", boot.protocol.is_some(), Flag::Protocol, flags.protocol.is_some());
    let (Some(flat), Some(linux)) = (flat, kernel.or(initrd).or(protocol)) else {
        return Ok(());
    };

    let remove = if kernel.is_some() { "one of them".to_owned() } else { linux.to_string() };
    let excludes = |other: String| ValueError::NotWith { other, remove };
    Err(match (linux, flat) {
        (Source::File(field), Source::File(other)) => {
            ConfigError::field(file.origin.as_deref(), field, &excludes(other.to_owned()))
        }
        (Source::File(field), Source::Flag(flag)) | (Source::Flag(flag), Source::File(field)) => {
            ConfigError::Flag { flag, problem: excludes(in_file(file, field)) }
        }
        (Source::Flag(flag), Source::Flag(other)) => {
            ConfigError::Flag { flag, problem: excludes(other.to_string()) }
        }
    })
}

/// A field of the file, in a message about a flag.
fn in_file(file: &ConfigFile, field: &str) -> String {
    match &file.origin {
        Some(name) => format!("{field} of {}", name.display()),
        None => field.to_owned(),
    }
}

/// A kernel finds PCI functions without the command line.
fn pci_announces_itself(file: &ConfigFile) -> Result<(), ConfigError> {
    match (file.transport, file.announce_virtio) {
        (Some(Transport::Pci), Some(AnnounceVirtio::Cmdline)) => {
            let problem = ValueError::NotWith {
                other: "\"announce_virtio\": \"cmdline\"".to_owned(),
                remove: "one of them".to_owned(),
            };
            Err(ConfigError::field(file.origin.as_deref(), "transport", &problem))
        }
        _ => Ok(()),
    }
}

/// Without a sandbox the monitor stays the user that started it, root or not.
fn user_needs_the_sandbox(file: &ConfigFile, flags: &Overrides) -> Result<(), ConfigError> {
    let uid = Source::of("user.uid", file.user.uid.is_some(), Flag::Uid, flags.uid.is_some());
    let gid = Source::of("user.gid", file.user.gid.is_some(), Flag::Gid, flags.gid.is_some());
    let Some(user) = uid.or(gid).filter(|_| flags.sandbox.or(file.sandbox) == Some(Sandbox::Off)) else {
        return Ok(());
    };
    let off = if flags.sandbox.is_some() { "--sandbox off" } else { "\"sandbox\": \"off\"" };
    let remove = "one of them".to_owned();
    Err(match user {
        Source::Flag(flag) => {
            let other = if flags.sandbox.is_some() { off.to_owned() } else { in_file(file, off) };
            ConfigError::Flag { flag, problem: ValueError::NotWith { other, remove } }
        }
        Source::File(field) if flags.sandbox.is_some() => ConfigError::Flag {
            flag: Flag::Sandbox,
            problem: ValueError::NotWith { other: in_file(file, field), remove },
        },
        Source::File(field) => {
            let problem = ValueError::NotWith { other: off.to_owned(), remove };
            ConfigError::field(file.origin.as_deref(), field, &problem)
        }
    })
}

/// Flags for flat images require one.
fn only_flat(file: &ConfigFile, flags: &Overrides) -> Result<(), ConfigError> {
    let given = [
        (flags.mode.is_some(), Flag::Mode),
        (flags.load_address.is_some(), Flag::LoadAddress),
        (flags.entry.is_some(), Flag::Entry),
        (flags.stack.is_some(), Flag::Stack),
    ];
    let is_flat = file.boot.flat.is_some() || flags.flat.is_some();
    match given.into_iter().find(|(is_given, _)| *is_given && !is_flat) {
        Some((_, flag)) => Err(ConfigError::Flag { flag, problem: ValueError::NeedsFlat }),
        None => Ok(()),
    }
}

/// `expect` requires that a halt ends the guest.
fn no_expectation(file: &ConfigFile, flags: &Overrides, reason: IrqchipReason) -> Result<(), ConfigError> {
    let problem = ValueError::HaltNeverEnds(reason.to_string());
    match (&flags.expect, &file.expect) {
        (Some(_), _) => Err(ConfigError::Flag { flag: Flag::Expect, problem }),
        (None, Some(_)) => Err(ConfigError::field(file.origin.as_deref(), "expect", &problem)),
        (None, None) => Ok(()),
    }
}

/// Linux needs its boot parameters and its kernel, from 1 MiB on, at fixed addresses; flat images don't.
fn memory_for_linux(file: &ConfigFile, flags: &Overrides) -> Result<(), ConfigError> {
    let least = MemorySize::LINUX_MIN;
    let problem =
        |size: MemorySize| ValueError::TooSmallForLinux { size: size.to_string(), least: least.to_string() };
    match (flags.memory, file.memory.size) {
        (Some(size), _) if size < least => {
            Err(ConfigError::Flag { flag: Flag::Memory, problem: problem(size) })
        }
        (None, Some(size)) if size < least => {
            Err(ConfigError::field(file.origin.as_deref(), "memory.size", &problem(size)))
        }
        _ => Ok(()),
    }
}

/// The image has page tables of its own only if the monitor sets up none.
fn one_kind_of_page_tables(file: &ConfigFile) -> Result<(), ConfigError> {
    match &file.boot.flat {
        Some(flat) if flat.page_tables.is_some() && flat.tables != Some(false) => Err(ConfigError::field(
            file.origin.as_deref(),
            "boot.flat.page_tables",
            &ValueError::PageTablesTwice,
        )),
        _ => Ok(()),
    }
}

/// Other processors are started through the local APIC, which `irqchip` provides.
fn one_processor(file: &ConfigFile, flags: &Overrides) -> Result<(), ConfigError> {
    let count = flags.cpus.or(file.cpus.count).unwrap_or_default();
    let problem = ValueError::NeedsIrqchip { count: count.get(), by_flag: flags.irqchip.is_some() };
    match (count.get(), flags.cpus) {
        (1, _) => Ok(()),
        (_, Some(_)) => Err(ConfigError::Flag { flag: Flag::Cpus, problem }),
        (_, None) => Err(ConfigError::field(file.origin.as_deref(), "cpus.count", &problem)),
    }
}

/// No two devices, from the file or flags, may use the same port.
fn own_ports(devices: &[Device], added: &[Device], origin: Option<&Path>) -> Result<(), ConfigError> {
    let mut taken: BTreeMap<Port, String> = BTreeMap::new();
    for (index, port) in
        devices.iter().enumerate().filter_map(|(index, device)| Some((index, device.port()?)))
    {
        if let Some(first) = taken.insert(port, format!("devices[{index}]")) {
            let problem = ValueError::PortTaken { port: port.to_string(), first };
            return Err(ConfigError::value(origin, &format!("devices[{index}].port"), &problem));
        }
    }
    for (flag, port) in added.iter().filter_map(|device| Some((Flag::adding(device)?, device.port()?))) {
        if let Some(first) = taken.insert(port, flag.to_string()) {
            return Err(ConfigError::Flag {
                flag,
                problem: ValueError::PortTaken { port: port.to_string(), first },
            });
        }
    }
    Ok(())
}

/// Affinity needs one list per processor, or none at all.
pub(crate) fn lists_for_cpus(file: &ConfigFile, count: CpuCount) -> Result<(), ConfigError> {
    let Some(lists) = file.cpus.affinity.as_ref().map(Vec::len) else { return Ok(()) };
    if lists == usize::from(count.get()) {
        return Ok(());
    }
    let problem = ValueError::ListsForCpus { lists, count: count.get() };
    Err(ConfigError::field(file.origin.as_deref(), "cpus.affinity", &problem))
}
