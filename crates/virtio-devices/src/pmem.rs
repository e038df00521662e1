//! A file that the guest sees as persistent memory (virtio 1.2 §5.19).

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::FilePath;
use vmm_virtio::vm_memory::{Bytes, GuestAddress};
use vmm_virtio::{
    Allow, Buffers, ConfigSpace, DeviceError, Fault, Head, Kind, Mapping, Needs, Persistence, Session,
    Setting, Step, VirtioDevice,
};

use crate::failure::{FlushState, StorageFailure};
use crate::file_lock::lock;
use crate::host_file::{self, HostFile};
use crate::image_format::{self, ImageFormat};
use crate::loop_device::LayersBelow;
use crate::place::{Access, Place};
use crate::shell;
use crate::space::Space;

mod state;

/// VIRTIO_PMEM_REQ_TYPE_FLUSH.
const FLUSH: u32 = 0;
/// struct virtio_pmem_resp of a failed flush; 0 is success.
const FAILED: [u8; 4] = (-1_i32).to_le_bytes();
const DONE: [u8; 4] = 0_i32.to_le_bytes();
/// Length of struct virtio_pmem_config: le64 start, le64 size.
const CONFIG_LEN: usize = 16;
/// Linux uses two descriptors per flush.
const QUEUE_SIZE: u16 = 64;
/// Linux maps persistent memory in units of 2 MiB (SUBSECTION_SIZE, include/linux/mmzone.h). Its driver
/// rejects an unaligned start or end: "misaligned, unable to map" (drivers/nvdimm/namespace_devs.c).
const GRANULE: u64 = 2 << 20;

/// A file as persistent memory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A file or a block device whose size is a multiple of 2M.
    path: FilePath,
    /// The guest can't change the file; what it stores is lost.
    #[serde(default)]
    read_only: bool,
    /// Format of the file. Only "raw": the bytes are the memory. Required if the file looks like an image of
    /// another format.
    #[serde(default)]
    format: Option<Format>,
}

/// Format of the file.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// The bytes are the memory.
    Raw,
}

/// The device. The guest's loads and stores are handled by KVM; only flushes reach the device.
#[derive(Debug)]
pub struct Pmem {
    path: PathBuf,
    file: File,
    _below: LayersBelow,
    state: FlushState,
    read_only: bool,
    /// Until the machine takes it.
    mapping: Option<Mapping>,
    config: ConfigSpace,
    /// Pending flushes; allocated for the maximum number in a queue.
    flushes: Vec<Flush>,
    /// A message for the user before the guest stores.
    caution: Option<String>,
}

/// A request to be answered.
#[derive(Clone, Copy, Debug)]
struct Flush {
    head: Head,
    is_known: bool,
    /// Address of each byte of the response, which a driver may split into pieces.
    answer: [u64; 4],
}

impl Kind for Pmem {
    const NAME: &'static str = "pmem";
    const ID: u32 = 27;
    type Config = Config;

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, DeviceError> {
        let path = setting.path(&config.path);
        let (HostFile { file, is_device, below }, len) = open(&path, &config)?;
        let host = |error: io::Error| DeviceError::host("path", error);
        let mapped = file.try_clone().map_err(host)?;
        let caution = match is_device || config.read_only {
            true => None,
            false => Space::of(&file).map_err(host)?.caution(len, &path),
        };
        let if_missing = if_missing(&path, len, is_device);
        let mapping = Mapping { file: mapped, len, read_only: config.read_only, if_missing };
        Ok(Self { caution, ..Self::new(path, file, below, mapping) })
    }
}

impl Pmem {
    fn new(path: PathBuf, file: File, below: LayersBelow, mapping: Mapping) -> Self {
        let mut bytes = [0; CONFIG_LEN];
        bytes[8..].copy_from_slice(&mapping.len.to_le_bytes());
        let flushes = Vec::with_capacity(QUEUE_SIZE.into());
        Self {
            path,
            file,
            _below: below,
            state: FlushState::default(),
            read_only: mapping.read_only,
            mapping: Some(mapping),
            config: ConfigSpace::read_only(bytes),
            flushes,
            caution: None,
        }
    }

    /// Completes the pending flushes with a single flush of the file, because all of them preceded it.
    fn flush(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        if self.flushes.is_empty() {
            return Ok(());
        }
        let is_done = self.sync(session).is_ok();
        for flush in self.flushes.drain(..) {
            let is_right = is_done && flush.is_known;
            session.counters().errors.add(u64::from(!is_right));
            let answer = if is_right { DONE } else { FAILED };
            for (gpa, byte) in flush.answer.into_iter().zip(answer) {
                let written = session.ram().memory().write_obj(byte, GuestAddress(gpa));
                written.map_err(|_| Fault::Unmapped { gpa, len: 1 })?;
            }
            if let Some(queue) = session.queue(queue) {
                queue.complete(flush.head, answer.len() as u32)?;
            }
        }
        session.queue(queue).map_or(Ok(()), vmm_virtio::Queue::announce)
    }

    /// Flushes the file, whose page cache has the guest's stores, as if they had been written. Logs the first failure,
    /// which is the last one.
    fn sync(&mut self, session: &Session) -> io::Result<()> {
        self.state.check()?;
        let flushed = self.state.note_flush(self.file.sync_data());
        if let Err(error) = &flushed {
            session.tell(format!("a flush failed: {error}"));
            session.tell(failure().notice());
        }
        flushed
    }
}

/// Flushes. The file was measured and mapped when it was opened.
const CALLS: &[Allow] = &[Allow::call(libc::SYS_fdatasync)];

impl VirtioDevice for Pmem {
    fn needs(&self) -> Needs {
        Needs::calls(&[CALLS])
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn config_space(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn note(&self) -> Option<String> {
        let what = self.mapping.as_ref().map(|mapping| if mapping.read_only { ", read-only" } else { "" });
        Some(format!("{}{}", self.path.display(), what.unwrap_or_default()))
    }

    fn loss(&self) -> Option<String> {
        self.state.check().is_err().then(|| failure().loss())
    }

    fn may_lose(&self) -> bool {
        !self.read_only
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    fn mapping(&mut self) -> Option<Mapping> {
        self.mapping.take()
    }

    fn mapped(&mut self, gpa: u64) {
        self.config.update(|bytes| bytes[..8].copy_from_slice(&gpa.to_le_bytes()));
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        if let Some(caution) = self.caution.take() {
            session.tell(caution);
        }
        Ok(())
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let flushes = &mut self.flushes;
        session.drain(queue, |chain| {
            counters.requests.add(1);
            let mut kind = [0; 4];
            chain.readable().read(&mut kind)?;
            let (is_known, answer) = (u32::from_le_bytes(kind) == FLUSH, places(&chain.writable())?);
            flushes.push(Flush { head: chain.head(), is_known, answer });
            Ok(Step::Kept)
        })?;
        self.flush(queue, session)
    }

    fn stop(&mut self, session: &mut Session) {
        // Non-empty only after a fault. These chains are returned without a response.
        for flush in self.flushes.drain(..) {
            let _ = session.queue(0).map(|queue| queue.complete(flush.head, 0));
        }
    }
}

/// Why a page may be missing, and what to do.
fn if_missing(path: &Path, len: u64, is_device: bool) -> String {
    let (shown, word) = (path.display(), shell::path(path));
    if is_device {
        return format!("{shown} has failed or become smaller, see dmesg(1)");
    }
    format!(
        "{shown} isn't allocated there and its file system is full, or its storage has failed, or it was truncated: allocate all of \
         it, fallocate -l {len} {word}"
    )
}

/// What a failed flush means.
fn failure() -> StorageFailure {
    StorageFailure { failing: "flushes", remedy: "check its file systems (fsck)".to_owned() }
}

/// Addresses of the first four bytes.
fn places(buffers: &Buffers<'_>) -> Result<[u64; 4], Fault> {
    let mut places = [0; 4];
    for (at, place) in (0..).zip(&mut places) {
        let byte = buffers.split_at(at).and_then(|(_, rest)| rest.gpa());
        *place = byte.ok_or(Fault::TooShort { len: buffers.len(), needed: 4 })?;
    }
    Ok(places)
}

/// Opens and locks the file, and returns its length.
fn open(path: &Path, config: &Config) -> Result<(HostFile, u64), DeviceError> {
    let place = Place { path, field: "path" };
    let access = if config.read_only { Access::Read } else { Access::ReadWrite };
    let opened = host_file::open(place, access, "a file")?;
    let mut file = &opened.file;
    let len = file.seek(SeekFrom::End(0)).map_err(|error| place.host("has no length", &error))?;
    let shown = shell::path(path);
    if len == 0 {
        let advice = format!("truncate -s 64M {shown}");
        return Err(place.wrong(&format!("is empty, but needs at least 2M: try {advice}")));
    }
    lock(file, place, access, "")?;
    let found = image_format::detect(file).map_err(|error| place.host("can't be read", &error))?;
    if let (Some(found), None) = (found, config.format) {
        return Err(place.wrong(&ask(found, path)));
    }
    if !len.is_multiple_of(GRANULE) {
        let whole = len.next_multiple_of(GRANULE);
        let rest = match found {
            Some(found) => format!(", and looks like {}: {}", found.noun(), found.conversion(path, "raw")),
            None => format!(": try truncate -s {whole} {shown}"),
        };
        return Err(place.wrong(&format!("has {len} bytes, but Linux requires a multiple of 2M{rest}")));
    }
    Ok((opened, len))
}

/// How to fix a config without "format"; printed after the file's path.
fn ask(found: ImageFormat, path: &Path) -> String {
    let (noun, convert) = (found.noun(), found.conversion(path, "raw"));
    match found {
        ImageFormat::Luks(_) => {
            format!("looks like {noun}: add \"format\": \"raw\" if the guest unlocks it, or {convert}")
        }
        _ => format!(
            "looks like {noun}, and memory is the file's own bytes: {convert}, or add \"format\": \"raw\" if they are meant"
        ),
    }
}

#[cfg(test)]
mod tests {
    use vmm_virtio::testing::{Buf, Driver};

    use super::*;

    /// A file of one granule that the guest may write.
    fn pmem(file: File) -> Pmem {
        let mapping = Mapping {
            file: file.try_clone().unwrap(),
            len: GRANULE,
            read_only: false,
            if_missing: String::new(),
        };
        Pmem::new(PathBuf::new(), file, LayersBelow::default(), mapping)
    }

    /// A pipe can't be flushed, as a failing disk can't.
    #[test]
    fn flush_that_the_host_refuses_fails() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let mut driver = Driver::new(Box::new(pmem(file)), 27);
        driver.init(0);
        let used = driver.queue(0).request(&[Buf::Read(&[0; 4]), Buf::Write(4)]);
        assert_eq!(used.written(), [0xff; 4]);
        assert_eq!(driver.control().counters().errors.get(), 1);
        assert!(!driver.needs_reset());
        let told = driver.control().take_notices().texts;
        assert_eq!(
            told,
            [
                "a flush failed: Invalid argument (os error 22)",
                "what the guest has written since its last flush may be lost: flushes fail until the monitor ends; then check its \
                 file systems (fsck)"
            ]
        );
    }

    #[test]
    fn failed_flush_is_a_loss_at_the_end() {
        let file = tempfile::tempfile().unwrap();
        let mut pmem = pmem(file);
        assert_eq!(pmem.loss(), None);
        pmem.state.note_flush(Err(io::ErrorKind::Other.into())).unwrap_err();
        pmem.power_cycle();
        let loss = "what the guest wrote since its last flush may be lost: check its file systems (fsck)";
        assert_eq!(pmem.loss().as_deref(), Some(loss));
    }

    #[test]
    fn memory_that_can_t_be_flushed_is_not_saved() {
        let (_reader, writer) = std::io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let driver = Driver::new(Box::new(pmem(file)), 27);
        let refusal = driver.save().unwrap_err().to_string();
        assert_eq!(refusal, "test:  can't be flushed: Invalid argument (os error 22)");
        let refusal = driver.save().unwrap_err().to_string();
        let loss = "what the guest wrote since its last flush may be lost: check its file systems (fsck)";
        assert_eq!(refusal, format!("test: {loss}"));
    }

    #[test]
    fn caution_is_told_once_when_the_driver_starts() {
        let file = tempfile::tempfile().unwrap();
        let pmem = Pmem { caution: Some("no room".to_owned()), ..pmem(file) };
        let mut driver = Driver::new(Box::new(pmem), 27);
        driver.init(0);
        driver.init(0);
        assert_eq!(driver.control().take_notices().texts, ["no room"]);
    }
}
