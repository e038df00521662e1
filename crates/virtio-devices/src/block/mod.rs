//! Block device (virtio 1.2 §5.2).
//!
//! ```text
//!  chain --request.rs--> Request --pace.rs--> raw.rs: the engine, many at once --------> completion: status, used
//!                                       \--> image.rs: overlay.rs, qcow2.rs, at once --> status, used
//! ```
//!
//! A request that fails gets a status; a violation of the queue's rules is a fault. Errors of the host are
//! reported to the guest as VIRTIO_BLK_S_IOERR, and logged at a low rate (errors.rs).

#[cfg(test)]
mod cache_tests;
mod concurrent;
mod config;
mod errors;
mod file;
mod format;
mod image;
#[cfg(not(feature = "qcow2"))]
mod no_qcow2;
mod open;
mod overlay;
mod pace;
mod properties;
#[cfg(feature = "qcow2")]
pub mod qcow2;
mod raw;
pub mod request;
mod serve;
mod shape;
mod stamp;
mod state;
mod temporary;
mod update;

use std::fs::File;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};
use vmm_hostio::{Durable, ENGINE_CALLS, FILE_IO_CALLS, RateLimiter};
use vmm_sandbox::SPAWN;
use vmm_virtio::{
    Allow, ConfigSpace, DeviceError, DiskReport, Fault, Needs, Persistence, Session, VirtioDevice,
};

use self::config::Cache;
use self::errors::{IoErrors, Operation};
use self::image::Image;
#[cfg(not(feature = "qcow2"))]
use self::no_qcow2 as qcow2;
use self::pace::Pace;
use self::properties::DiskProperties;
use self::raw::Raw;
use self::request::{QUEUE_SIZE, SECTOR_LEN, SERIAL_LEN};
use self::stamp::{Stamp, StampedFile};
use crate::failure::StorageFailure;
use crate::timer::{TIMER_CALLS, Timer};

/// How often the file's size is checked. inotify(7) would wake us for each of the guest's writes, and doesn't
/// support block devices.
const LOOK: Duration = Duration::from_secs(1);

/// Token: requests of a raw disk have completed.
const READY: u32 = 0;
/// Token: the limiter has tokens again, or the next turn begins.
const REFILLED: u32 = 1;
/// Token: time to check the size, or for an image's `rest`.
const LOOKS: u32 = 2;

/// The device.
pub struct Block {
    disk: Disk,
    properties: DiskProperties,
    space: ConfigSpace,
    serial: [u8; SERIAL_LEN],
    description: String,
    durable: Durable,
    /// [`ConfigSpace::writes`] when `durable` was last read.
    writes_seen: u32,
    /// The driver has switched to write-through: earlier writes must still be brought to stable storage.
    must_flush: bool,
    pace: Pace,
    looks: Timer,
    /// For each queue, whether it has chains that had no room.
    waiting: Vec<bool>,
    /// The queue that was served first when waiting queues were last resumed.
    first: usize,
    is_watching: bool,
    /// The size was changed while no driver could be notified.
    unannounced: bool,
    /// A message for the user before the guest writes.
    caution: Option<String>,
    errors: IoErrors,
    /// Those of the disk's files when it was last saved or loaded.
    stamps: Vec<Stamp>,
}

/// The storage.
enum Disk {
    Raw(Box<Raw>),
    Image(Box<dyn Image>),
}

impl Disk {
    fn failure(&self) -> Option<StorageFailure> {
        match self {
            Self::Raw(raw) => raw.failure(),
            Self::Image(image) => image.failure(),
        }
    }

    fn is_temporary(&self) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::Image(image) => image.is_temporary(),
        }
    }

    fn copy_obstacle(&self) -> Option<String> {
        match self {
            Self::Raw(_) => None,
            Self::Image(image) => image.copy_obstacle(),
        }
    }

    /// The files with its contents.
    fn files(&self) -> Vec<StampedFile<'_>> {
        match self {
            Self::Raw(raw) => vec![raw.stamped()],
            Self::Image(image) => image.files(),
        }
    }
}

/// What a file is and how long, and growing. The threads for I/O start with the first request.
const CALLS: &[Allow] = &[
    Allow::call(libc::SYS_fstat),
    Allow::call(libc::SYS_statx),
    Allow::call(libc::SYS_newfstatat),
    Allow::call(libc::SYS_lseek),
    Allow::call(libc::SYS_ftruncate),
    // An image's tables.
    Allow::call(libc::SYS_pread64),
    // Before the first write to an image, imago gets its file anew, and asks what its file system can do.
    Allow::call(libc::SYS_fstatfs),
    Allow::when(libc::SYS_fcntl, 1, &[libc::F_GETFL as u32, libc::F_DUPFD_CLOEXEC as u32]),
    // BLKGETSIZE64 (include/uapi/linux/fs.h).
    Allow::when(libc::SYS_ioctl, 1, &[0x8008_1272]),
];

impl VirtioDevice for Block {
    fn needs(&self) -> Needs {
        Needs::calls(&[ENGINE_CALLS, FILE_IO_CALLS, SPAWN, TIMER_CALLS, CALLS])
    }

    fn features(&self) -> u64 {
        self.properties.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; self.properties.queues.into()]
    }

    fn config_space(&self) -> ConfigSpace {
        self.space.clone()
    }

    fn note(&self) -> Option<String> {
        Some(self.description.clone())
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        if let Some(caution) = self.caution.take() {
            session.tell(caution);
        }
        self.waiting.fill(false);
        self.pace.restart();
        self.writes_seen = self.space.writes();
        self.durable = self.durability(session.features());
        self.must_flush = false;
        self.look(session);
        let watched = self.watch(session);
        self.unless_broken(watched, session)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        if self.waiting[queue] {
            // Its turn will come; a driver that notifies again doesn't overtake others.
            return Ok(());
        }
        let served = self.serve(queue, session);
        self.unless_broken(served, session)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let done = match token {
            READY => self.finish(session),
            REFILLED => {
                self.pace.restart();
                Ok(())
            }
            _ => {
                self.looks.acknowledge();
                self.look(session);
                self.rest(session);
                Ok(())
            }
        };
        let done = done.and_then(|()| self.serve_waiting(session));
        self.unless_broken(done, session)
    }

    fn config_written(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.notice_switch(session.features());
        if !std::mem::take(&mut self.must_flush) {
            return Ok(());
        }
        let settled = self.settle(session);
        self.unless_broken(settled, session)
    }

    fn stop(&mut self, session: &mut Session) {
        self.unwatch(session);
        self.finish_all(session);
    }

    fn update(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        self.apply(fields, session)
    }

    fn report(&mut self) -> Map<String, Value> {
        Map::from_iter([("size_bytes".to_owned(), (self.properties.sectors * SECTOR_LEN).into())])
    }

    fn loss(&self) -> Option<String> {
        self.disk.failure().map(|failure| failure.loss())
    }

    fn may_lose(&self) -> bool {
        !self.properties.read_only && !self.disk.is_temporary()
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    fn disk(&self) -> Option<DiskReport> {
        let files = self.disk.files();
        let path = files.first()?.path.to_owned();
        Some(DiskReport { path, len: self.properties.sectors * SECTOR_LEN, stamp: stamp::text(&self.stamps) })
    }

    fn disk_file(&self) -> Result<File, String> {
        if !self.may_lose() {
            return Err("can't be copied: it is read-only or temporary".to_owned());
        }
        if let Some(obstacle) = self.disk.copy_obstacle() {
            return Err(obstacle);
        }
        let files = self.disk.files();
        let first = files.first().ok_or("has no file")?;
        first.file.try_clone().map_err(|error| format!("{}: {error}", first.path.display()))
    }

    /// Forgets the driver's choice of the cache mode.
    fn power_cycle(&mut self) {
        self.space = self.properties.space();
    }
}

impl Block {
    fn new(
        disk: Disk,
        properties: DiskProperties,
        (serial, limiter): ([u8; SERIAL_LEN], Option<RateLimiter>),
        description: String,
    ) -> Result<Self, DeviceError> {
        let host = |error| DeviceError::host("", error);
        let caution = match &disk {
            Disk::Raw(_) => None,
            Disk::Image(image) => image.caution(),
        };
        let pace = Pace::new(limiter, matches!(disk, Disk::Image(_))).map_err(host)?;
        Ok(Self {
            disk,
            properties,
            space: properties.space(),
            serial,
            description,
            durable: Durable::Yes,
            writes_seen: 0,
            must_flush: false,
            pace,
            looks: Timer::new().map_err(host)?,
            waiting: vec![false; properties.queues.into()],
            first: 0,
            is_watching: false,
            unannounced: false,
            caution,
            errors: IoErrors::default(),
            stamps: Vec::new(),
        })
    }

    /// When writes complete for a driver that has accepted `features`. Without VIRTIO_BLK_F_CONFIG_WCE it
    /// can't choose, and without VIRTIO_BLK_F_FLUSH it never flushes, so every write must be on stable
    /// storage (virtio 1.2 §5.2.6.2).
    fn durability(&self, features: u64) -> Durable {
        let has = |feature: u32| features & (1 << feature) != 0;
        let is_writeback = if has(VIRTIO_BLK_F_CONFIG_WCE) {
            properties::is_writeback(&self.space)
        } else {
            has(VIRTIO_BLK_F_FLUSH) && self.properties.cache == Cache::Writeback
        };
        if is_writeback { Durable::No } else { Durable::Yes }
    }

    /// Applies a switch of the cache mode. Also called before each request, because a request sent after the
    /// switch may arrive before the event.
    fn notice_switch(&mut self, features: u64) {
        let writes = self.space.writes();
        if writes == self.writes_seen {
            return;
        }
        self.writes_seen = writes;
        let now = self.durability(features);
        let before = std::mem::replace(&mut self.durable, now);
        self.must_flush |= (before, self.durable) == (Durable::No, Durable::Yes);
    }

    fn watch(&mut self, session: &Session) -> Result<(), Fault> {
        self.is_watching = true;
        let watched = match &self.disk {
            Disk::Raw(raw) => session.watch(raw.engine.ready(), READY),
            Disk::Image(_) => Ok(()),
        };
        watched
            .and_then(|()| session.watch(&self.looks, LOOKS))
            .and_then(|()| self.looks.every(LOOK))
            .and_then(|()| session.watch(&self.pace, REFILLED))
            .map_err(|_| Fault::Request("the host can't watch the disk's events"))
    }

    fn unwatch(&mut self, session: &Session) {
        if std::mem::take(&mut self.is_watching) {
            // It fails if it wasn't watched.
            if let Disk::Raw(raw) = &self.disk {
                let _ = session.unwatch(raw.engine.ready());
            }
            let _ = session.unwatch(&self.looks);
            let _ = session.unwatch(&self.pace);
        }
    }

    /// Stops watching events after a fault, because a broken device wouldn't consume them and its thread
    /// would spin.
    fn unless_broken(&mut self, done: Result<(), Fault>, session: &Session) -> Result<(), Fault> {
        if done.is_err() {
            self.unwatch(session);
        }
        done
    }

    /// Lets an image that has been idle for a while remove its mark.
    fn rest(&mut self, session: &Session) {
        let Disk::Image(image) = &mut self.disk else { return };
        if let Err(error) = image.rest() {
            session.counters().errors.add(1);
            self.errors.note(Operation::CLOSE, &error, Instant::now());
        }
        self.tell_errors(session);
    }

    /// Logs failures.
    fn tell_errors(&mut self, session: &Session) {
        if let Some(line) = self.errors.take() {
            session.tell(line);
        }
        if let Some(line) = self.errors.failure(|| self.disk.failure().map(|failure| failure.notice())) {
            session.tell(line);
        }
    }

    /// Notifies the driver if the file's size has changed.
    fn look(&mut self, session: &Session) {
        if self.follow_len() || std::mem::take(&mut self.unannounced) {
            session.config_changed();
        }
    }

    /// Changes the disk's size if the file's has changed; whether it has.
    fn follow_len(&mut self) -> bool {
        let Disk::Raw(raw) = &self.disk else { return false };
        // An unreadable size may be readable next time; meanwhile requests fail by themselves.
        let Ok(len) = raw.len() else { return false };
        let sectors = len / SECTOR_LEN;
        let has_changed = sectors != self.properties.sectors;
        if has_changed {
            self.properties.sectors = sectors;
            properties::set_sectors(&self.space, sectors);
        }
        has_changed
    }
}
