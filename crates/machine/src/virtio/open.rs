//! Opens the virtio devices of a config: their files, and what they claim for themselves alone.

use std::fmt;

use vmm_config::{Config, Serial, VirtioSection};
use vmm_virtio::{Claim, DeviceError, HostEnd, Mapping, Setting, VirtioDevice};

use crate::console::{ConsolePort, check_stdio};
use crate::{Error, Kinds};

/// A device with its files open, not connected to a guest.
pub(crate) struct OpenDevice {
    /// Its index in the config's `devices`.
    pub(super) index: usize,
    pub(crate) id: String,
    /// Its PCI slot, if the config sets one.
    pub(super) slot: Option<u8>,
    pub(crate) kind: &'static str,
    pub(super) device_id: u32,
    pub(crate) device: Box<dyn VirtioDevice>,
    /// A file that the guest sees as memory, if it has one.
    pub(super) mapping: Option<Mapping>,
    /// The host's end of a console, until it is opened.
    pub(super) console: Option<ConsolePort>,
    /// A console's target.
    pub(super) console_end: Option<HostEnd>,
}

impl fmt::Debug for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDevice").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Opens the virtio devices of `config`.
pub(crate) fn open(config: &Config, kinds: &Kinds<'_>, plan_only: bool) -> Result<Vec<OpenDevice>, Error> {
    let (mut opened, mut claims) = (Vec::new(), claimed(config, (kinds, plan_only))?);
    for (index, device) in config.devices.iter().enumerate() {
        let Some(section) = section_of(device, kinds) else { continue };
        let device = open_one(index, section, config, (kinds, plan_only))?;
        claim_all(index, device.device.claims(), &mut claims)?;
        opened.push(device);
    }
    check_stdio(&config.serial, consoles(&opened))?;
    Ok(opened)
}

/// Checks that the devices of the previous machine are those of `config`.
///
/// # Errors
/// The thread of one has panicked. It can't be opened again: a confined process can't open files.
pub(crate) fn check_kept(config: &Config, kinds: &Kinds<'_>, kept: &[OpenDevice]) -> Result<(), Error> {
    for (index, device) in config.devices.iter().enumerate() {
        let Some(section) = section_of(device, kinds) else { continue };
        if kept.iter().all(|device| device.index != index) {
            return Err(Error::DevicePanicked { index, kind: section.kind.clone() });
        }
    }
    Ok(())
}

/// A claim, and the index of its device; `None` for the serial console.
type OwnedClaim = (Option<usize>, Claim);

/// The claims that follow from the config alone.
fn claimed(config: &Config, (kinds, plan_only): (&Kinds<'_>, bool)) -> Result<Vec<OwnedClaim>, Error> {
    let mut claims = Vec::new();
    if let Serial::Socket(path) = &config.serial {
        claims.push((None, Claim::socket("serial", path.as_path())));
    }
    for (index, device) in config.devices.iter().enumerate() {
        let Some(section) = section_of(device, kinds) else { continue };
        let kind = kinds.virtio().find(|kind| kind.name == section.kind);
        let by_fields = kind.map(|kind| {
            let setting = setting(section, kind.name, config, plan_only);
            kind.claims(&section.fields.clone().into(), &setting)
        });
        claim_all(index, by_fields.unwrap_or_default(), &mut claims)?;
    }
    Ok(claims)
}

/// The config of a virtio device; `None` if `device` is a legacy device.
fn section_of<'a>(device: &'a vmm_config::Device, kinds: &Kinds<'_>) -> Option<&'a VirtioSection> {
    match device {
        vmm_config::Device::Virtio(section) if kinds.listed_legacy(&section.kind).is_none() => Some(section),
        _ => None,
    }
}

/// Adds the claims of the device at `index`. Fails if another device has claimed the same.
fn claim_all(index: usize, claimed: Vec<Claim>, claims: &mut Vec<OwnedClaim>) -> Result<(), Error> {
    for claim in claimed {
        if let Some((by, first)) = claims.iter().find(|(_, other)| other.excludes(&claim)) {
            let (claim, first) = (Box::new(claim), Box::new(first.clone()));
            return Err(Error::ClaimedTwice { index, by: *by, claim, first });
        }
        claims.push((Some(index), claim));
    }
    Ok(())
}

/// The host's ends of the consoles among the devices.
pub(crate) fn consoles(devices: &[OpenDevice]) -> impl Iterator<Item = &ConsolePort> {
    devices.iter().filter_map(|device| device.console.as_ref())
}

fn setting<'a>(
    section: &'a VirtioSection,
    kind: &'static str,
    config: &Config,
    plan_only: bool,
) -> Setting<'a> {
    let id = section.id.as_ref().map_or(kind, |id| id.as_str());
    Setting { directory: &section.directory, vcpus: config.cpus.count.get().into(), id, plan_only }
}

fn open_one(
    index: usize,
    section: &VirtioSection,
    config: &Config,
    (kinds, plan_only): (&Kinds<'_>, bool),
) -> Result<OpenDevice, Error> {
    let VirtioSection { kind: name, slot, fields, .. } = section;
    let slot = slot.map(|slot| slot.get() as u8);
    let Some(kind) = kinds.virtio().find(|kind| kind.name == name.as_str()) else {
        return Err(kinds.unknown(index, name));
    };
    if !config.irqchip {
        return Err(Error::VirtioWithoutIrqchip { index });
    }
    if fields.contains_key("port") {
        let source = DeviceError::config("port", "unknown field, a virtio device has no port");
        return Err(Error::OpenDevice { index, source });
    }
    let setting = setting(section, kind.name, config, plan_only);
    let id = setting.id.to_owned();
    let opened = kind.open(fields.clone().into(), &setting);
    let mut device = opened.map_err(|source| Error::OpenDevice { index, source })?;
    let mapping = device.mapping();
    let console = device.port().map(|port| ConsolePort { index, id: id.clone(), port });
    let console_end = console.as_ref().map(|console| console.port.end().clone());
    let (kind, device_id) = (kind.name, kind.id);
    Ok(OpenDevice { index, id, slot, kind, device_id, device, mapping, console, console_end })
}
