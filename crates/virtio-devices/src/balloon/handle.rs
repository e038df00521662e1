//! What a monitor moves a balloon by while its guest runs, and what it hears of the guest.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use vmm_virtio::{Buffers, ConfigSpace, Fault};

use super::pages::PAGE_LEN;

/// num_pages in the configuration space.
pub(super) const TARGET: Range<usize> = 0..4;
/// actual in the configuration space.
const ACTUAL: u64 = 4;

/// The names of statistics by their tags (virtio 1.2 §5.5.6.4, and VIRTIO_BALLOON_S_OOM_KILL and those behind it of Linux
/// 6.12's include/uapi/linux/virtio_balloon.h).
const NAMES: [&str; 16] = [
    "swap_in",
    "swap_out",
    "major_faults",
    "minor_faults",
    "free_memory",
    "total_memory",
    "available_memory",
    "disk_caches",
    "hugetlb_allocations",
    "hugetlb_failures",
    "oom_kills",
    "allocation_stalls",
    "async_scanned",
    "direct_scanned",
    "async_reclaimed",
    "direct_reclaimed",
];
/// Bytes of a statistic: le16 tag, le64 value, packed.
const STAT_LEN: u64 = 10;
/// Statistics of one chain that are read.
const STATS_PER_CHAIN: usize = 64;

/// What the device and its handles both know.
#[derive(Debug)]
pub(super) struct Shared {
    wake: OwnedFd,
    target_changed: AtomicBool,
    stats_wanted: AtomicBool,
    /// What came last of each tag.
    stats: [AtomicU64; NAMES.len()],
    /// Bit n: tag n has come.
    known: AtomicU64,
    /// How many times statistics have come.
    reports: AtomicU64,
}

/// What was asked of the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// To tell the driver of its new target.
    pub(super) target: bool,
    /// To ask the driver for statistics.
    pub(super) stats: bool,
}

impl Shared {
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            target_changed: AtomicBool::new(false),
            stats_wanted: AtomicBool::new(false),
            stats: [const { AtomicU64::new(0) }; NAMES.len()],
            known: AtomicU64::new(0),
            reports: AtomicU64::new(0),
        })
    }

    /// What can be read when the device is wanted.
    pub(super) fn bell(&self) -> &OwnedFd {
        &self.wake
    }

    /// Has the device's thread look here.
    pub(super) fn wake(&self) {
        // Non-blocking; at its counter's end it can be read anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// What is wanted since the last call; the bell is silent then.
    pub(super) fn take_wishes(&self) -> Wishes {
        // First the bell: what is wished behind it rings again.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        Wishes {
            target: self.target_changed.swap(false, Ordering::SeqCst),
            stats: self.stats_wanted.swap(false, Ordering::SeqCst),
        }
    }

    /// Reads the statistics in `from`. Tags that have no name are passed over, as virtio 1.2 §5.5.6.3 wants it.
    ///
    /// # Errors
    /// They can't be read.
    pub(super) fn record(&self, from: Buffers<'_>) -> Result<(), Fault> {
        let mut rest = from;
        for _ in 0..STATS_PER_CHAIN {
            let Some((here, behind)) = rest.split_at(STAT_LEN) else { break };
            rest = behind;
            let mut bytes = [0; STAT_LEN as usize];
            here.read(&mut bytes)?;
            let [t0, t1, value @ ..] = bytes;
            let tag = u16::from_le_bytes([t0, t1]);
            if let Some(stat) = self.stats.get(usize::from(tag)) {
                stat.store(u64::from_le_bytes(value), Ordering::Relaxed);
                self.known.fetch_or(1 << tag, Ordering::Relaxed);
            }
        }
        self.reports.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// Moves a balloon's target, and knows what its guest says. Clones move the same; they may outlive it.
#[derive(Clone, Debug)]
pub struct BalloonHandle {
    config: ConfigSpace,
    shared: Arc<Shared>,
}

/// What a guest said of its memory. It may say anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalloonStats {
    /// How many times it did; 0 if never.
    pub reports: u64,
    /// Names, and what it said last, in bytes where it is memory; `None` if nothing.
    pub values: [(&'static str, Option<u64>); NAMES.len()],
}

impl BalloonHandle {
    pub(super) fn new(config: ConfigSpace, shared: Arc<Shared>) -> Self {
        Self { config, shared }
    }

    /// How much memory the guest is to give back, in bytes.
    pub fn target(&self) -> u64 {
        self.pages(TARGET.start as u64)
    }

    /// Has the guest give back `len` bytes, whole pages of them and less than 16 TiB. It does so in its own time; one
    /// without a driver, when it has one.
    pub fn set_target(&self, len: u64) {
        let pages = u32::try_from(len / PAGE_LEN).unwrap_or(u32::MAX);
        self.config.update(|bytes| bytes[TARGET].copy_from_slice(&pages.to_le_bytes()));
        self.shared.target_changed.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    /// How much the guest says that it has given back, in bytes. It is the driver's word, and stays behind a reset until the
    /// next driver's.
    pub fn actual(&self) -> u64 {
        self.pages(ACTUAL)
    }

    /// Asks the guest for new statistics. They come in its own time, or never: [`BalloonStats::reports`] tells.
    pub fn ask_for_stats(&self) {
        self.shared.stats_wanted.store(true, Ordering::SeqCst);
        self.shared.wake();
    }

    /// The last statistics.
    pub fn stats(&self) -> BalloonStats {
        // In front of the values: these are at least as new.
        let reports = self.shared.reports.load(Ordering::Acquire);
        let known = self.shared.known.load(Ordering::Relaxed);
        let value =
            |tag: usize| (known & 1 << tag != 0).then(|| self.shared.stats[tag].load(Ordering::Relaxed));
        BalloonStats { reports, values: std::array::from_fn(|tag| (NAMES[tag], value(tag))) }
    }

    fn pages(&self, offset: u64) -> u64 {
        let mut pages = [0; 4];
        self.config.read(offset, &mut pages);
        u64::from(u32::from_le_bytes(pages)) * PAGE_LEN
    }
}
