//! A disk (virtio 1.2 §5.2).
//!
//! ```text
//!  chain --request.rs--> Request --pace.rs--> raw.rs: the engine, many at once --------> completion: status, used
//!                                       \--> image.rs: overlay.rs, qcow2.rs, at once --> status, used
//! ```
//!
//! What the guest can see fail is a status; what it may not do to its queues is a fault. Errors of the host's reach the
//! guest as VIRTIO_BLK_S_IOERR.

#[cfg(test)]
mod cache_tests;
mod config;
mod file;
mod format;
mod image;
mod open;
mod overlay;
mod pace;
pub mod qcow2;
mod raw;
pub mod request;
mod serve;
mod shape;
mod space;
mod temporary;
mod update;

use std::time::Duration;

use serde_json::{Map, Value};
use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};
use vmm_hostio::{Durable, RateLimiter};
use vmm_virtio::{ConfigSpace, DeviceError, Fault, Session, VirtioDevice};

use self::config::Cache;
use self::image::Image;
use self::pace::Pace;
use self::raw::Raw;
use self::request::{QUEUE_SIZE, SECTOR_LEN, SERIAL_LEN};
use self::space::Face;
use crate::timer::Timer;

/// How often the file's size is looked at. inotify(7) would wake us for each write of the guest's, and says nothing of block
/// devices.
const LOOK: Duration = Duration::from_secs(1);

/// Something of a raw disk's is complete.
const READY: u32 = 0;
/// There are tokens again, or the next turn begins.
const REFILLED: u32 = 1;
/// Time to look at the size, or for an image to rest.
const LOOKS: u32 = 2;

/// The device.
pub struct Block {
    disk: Disk,
    face: Face,
    space: ConfigSpace,
    serial: [u8; SERIAL_LEN],
    description: String,
    durable: Durable,
    /// [`ConfigSpace::writes`] when `durable` was last read.
    writes_seen: u32,
    /// The driver has switched to write-through: what was written before is still to be brought to stable storage.
    must_flush: bool,
    pace: Pace,
    looks: Timer,
    /// For each queue, whether it has chains that there was no room for.
    waiting: Vec<bool>,
    /// The queue that was first when those that waited went on.
    first: usize,
    is_watching: bool,
    /// What to tell the user before the guest writes.
    caution: Option<String>,
}

/// Where the bytes are.
enum Disk {
    Raw(Raw),
    Image(Box<dyn Image>),
}

impl VirtioDevice for Block {
    fn features(&self) -> u64 {
        self.face.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; self.face.queues.into()]
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
            // Its turn comes; a driver that rings again doesn't get in front of others.
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
        Map::from_iter([("size_bytes".to_owned(), (self.face.sectors * SECTOR_LEN).into())])
    }

    /// The driver's choice of when a write is done is forgotten.
    fn power_cycle(&mut self) {
        self.space = self.face.space();
    }
}

impl Block {
    fn new(
        disk: Disk,
        face: Face,
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
            face,
            space: face.space(),
            serial,
            description,
            durable: Durable::Yes,
            writes_seen: 0,
            must_flush: false,
            pace,
            looks: Timer::new().map_err(host)?,
            waiting: vec![false; face.queues.into()],
            first: 0,
            is_watching: false,
            caution,
        })
    }

    /// When the writes of a driver that has taken `features` are complete. Without VIRTIO_BLK_F_CONFIG_WCE it can't choose,
    /// and without VIRTIO_BLK_F_FLUSH it never flushes, so that every write must be on stable storage (virtio 1.2 §5.2.6.2).
    fn durability(&self, features: u64) -> Durable {
        let has = |feature: u32| features & (1 << feature) != 0;
        let is_writeback = if has(VIRTIO_BLK_F_CONFIG_WCE) {
            space::is_writeback(&self.space)
        } else {
            has(VIRTIO_BLK_F_FLUSH) && self.face.cache == Cache::Writeback
        };
        if is_writeback { Durable::No } else { Durable::Yes }
    }

    /// Follows a switch of the cache's mode. It is called before each request too: one that the driver sends after the
    /// switch may come before the event.
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
            .map_err(|_| Fault::Request("no fault of the driver's: the host can't watch the disk's events"))
    }

    fn unwatch(&mut self, session: &Session) {
        if std::mem::take(&mut self.is_watching) {
            // What wasn't watched is none the worse.
            if let Disk::Raw(raw) = &self.disk {
                let _ = session.unwatch(raw.engine.ready());
            }
            let _ = session.unwatch(&self.looks);
            let _ = session.unwatch(&self.pace);
        }
    }

    /// A device that gave up looks at nothing any more: its thread would turn round and round.
    fn unless_broken(&mut self, done: Result<(), Fault>, session: &Session) -> Result<(), Fault> {
        if done.is_err() {
            self.unwatch(session);
        }
        done
    }

    /// An image that nobody has changed for a while says so.
    fn rest(&mut self, session: &Session) {
        let Disk::Image(image) = &mut self.disk else { return };
        if image.rest().is_err() {
            session.counters().errors.add(1);
        }
        if let Some(complaint) = image.complaint() {
            session.tell(complaint);
        }
    }

    /// Tells the driver if the file's size has changed.
    fn look(&mut self, session: &Session) {
        let Disk::Raw(raw) = &self.disk else { return };
        // A size that can't be read now may be the next time; a request meanwhile fails by itself.
        let Ok(len) = raw.len() else { return };
        let sectors = len / SECTOR_LEN;
        if sectors != self.face.sectors {
            self.face.sectors = sectors;
            space::set_sectors(&self.space, sectors);
            session.config_changed();
        }
    }
}
