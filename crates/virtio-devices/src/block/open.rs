//! Creates a disk from its config.

use std::path::{Path, PathBuf};

use vmm_hostio::IoMethod;
use vmm_virtio::{DeviceError, Kind, Setting};

use super::config::{Config, DiskSerial, Format, Io, Overlay as OverlayConfig};
use super::file::DiskFile;
use super::format;
use super::image::{Image, RawSource, Source};
use super::overlay::{self, Overlay};
use super::properties::DiskProperties;
use super::raw::{Options, Raw};
use super::request::SECTOR_LEN;
use super::shape::Shape;
use super::{Block, Disk, qcow2, temporary};
use crate::image_format;
use crate::place::{Access, Place};

/// Default maximum number of queues; one thread serves all of them.
const QUEUES: u32 = 16;

impl Kind for Block {
    const NAME: &'static str = "block";
    const ID: u32 = 2;
    type Config = Config;

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, DeviceError> {
        open(&config, setting)
    }
}

fn open(config: &Config, setting: &Setting<'_>) -> Result<Block, DeviceError> {
    let serial = config.serial.as_ref().map_or_else(|| DiskSerial::of(setting.id).bytes(), DiskSerial::bytes);
    let queues = queues(config.queues.map(|queues| queues.get() as u16), setting.vcpus)?;
    let limiter = config.limits.limiter()?;
    check_combination(config)?;
    let (disk, len, shape, description) = open_disk(config, setting)?;
    let read_only = config.read_only;
    let properties =
        DiskProperties { sectors: len / SECTOR_LEN, shape, read_only, cache: config.cache, queues };
    Block::new(disk, properties, (serial, limiter), description)
}

/// A disk, its length in bytes, its shape, and a description.
type Opened = (Disk, u64, Shape, String);

fn open_disk(config: &Config, setting: &Setting<'_>) -> Result<Opened, DeviceError> {
    let path = setting.path(&config.path);
    let place = Place { path: &path, field: "path" };
    let writes_file = !config.read_only && config.overlay.is_none();
    let access = if writes_file { Access::ReadWrite } else { Access::Read };
    let file = DiskFile::open(place, access)?;
    let format = config.format.unwrap_or(Format::Raw);
    // A guest can make its raw disk look like an image, which may refer to any file of the host. So the
    // contents never determine the format: the config does, and must if they look like an image.
    if config.format.is_none() {
        let found = image_format::detect(&file.file).map_err(|error| place.host("can't be read", &error))?;
        if let Some(found) = found {
            return Err(place.wrong(&format::ask(found, &path)));
        }
    }
    let shown = path.display();
    match (format, &config.overlay) {
        (Format::Raw, None) => {
            let method = match config.io {
                Io::Auto => IoMethod::Auto,
                Io::Uring => IoMethod::Uring,
                Io::Threads => IoMethod::Threads,
            };
            let options = Options { access, direct: config.direct, method, name: setting.id };
            let (raw, shape) = Raw::open(file, place, options)?;
            let len = raw.len().map_err(|error| DeviceError::host("path", error))?;
            let description = format!("{shown}, raw, by {}", raw.engine.describe());
            Ok((Disk::Raw(Box::new(raw)), len, shape, description))
        }
        (Format::Raw, Some(overlay)) => {
            let len = file.disk_len(place)?;
            let base = Box::new(RawSource::new(file));
            open_overlay(base, len, overlay, setting).map(|disk| {
                (disk, len, Shape::of_blocks(overlay::BLOCK_LEN), describe(&path, "raw, temporary"))
            })
        }
        (Format::Qcow2, overlay) => {
            let paths: Vec<PathBuf> = config.backing.iter().map(|path| setting.path(path)).collect();
            let fields: Vec<String> = (0..paths.len()).map(|index| format!("backing[{index}]")).collect();
            let places = paths.iter().zip(&fields).map(|(path, field)| Place { path, field });
            let (image, len) = qcow2::open(file, place, access, &places.collect::<Vec<_>>())?;
            let shape = Shape::of_blocks(overlay::BLOCK_LEN);
            match overlay {
                None => Ok((Disk::Image(image), len, shape, describe(&path, "qcow2"))),
                Some(overlay) => open_overlay(image, len, overlay, setting)
                    .map(|disk| (disk, len, shape, describe(&path, "qcow2, temporary"))),
            }
        }
    }
}

fn describe(path: &Path, what: &str) -> String {
    format!("{}, {what}, I/O by the disk's thread", path.display())
}

fn open_overlay(
    base: Box<dyn Source>,
    len: u64,
    overlay: &OverlayConfig,
    setting: &Setting<'_>,
) -> Result<Disk, DeviceError> {
    let file = temporary::create(overlay, setting)?;
    let overlay = Overlay::new(base, file, len).map_err(|error| {
        let problem = format!(
            "a temporary file can't have the disk's {len} bytes: {error}; raise ulimit -f, or use a smaller disk"
        );
        DeviceError::config("overlay", problem)
    })?;
    let overlay: Box<dyn Image> = Box::new(overlay);
    Ok(Disk::Image(overlay))
}

/// Rejects conflicting options.
fn check_combination(config: &Config) -> Result<(), DeviceError> {
    let is_qcow2 = config.format == Some(Format::Qcow2);
    let by_thread = if is_qcow2 { "a qcow2 image" } else { "an overlay" };
    let is_plain = !is_qcow2 && config.overlay.is_none();
    if config.overlay.is_some() && config.read_only {
        return Err(DeviceError::config("overlay", "conflicts with \"read_only\", remove one of the two"));
    }
    if !is_plain && config.direct {
        return Err(DeviceError::config("direct", format!("isn't supported for {by_thread}, remove it")));
    }
    if !is_plain && config.io != Io::Auto {
        let problem =
            format!("isn't supported for {by_thread}, whose I/O is done by the disk's thread, remove it");
        return Err(DeviceError::config("io", problem));
    }
    if !is_qcow2 && !config.backing.is_empty() {
        return Err(DeviceError::config("backing", "only a qcow2 image has backing files, remove it"));
    }
    Ok(())
}

fn queues(given: Option<u16>, vcpus: u32) -> Result<u16, DeviceError> {
    let Some(queues) = given else { return Ok(vcpus.clamp(1, QUEUES) as u16) };
    if u32::from(queues) > vcpus {
        let problem = format!("{queues} queues are more than the machine has vCPUs, at most {vcpus}");
        return Err(DeviceError::config("queues", problem));
    }
    Ok(queues)
}
