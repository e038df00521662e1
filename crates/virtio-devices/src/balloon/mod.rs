//! Memory balloon: the guest returns memory to the host (virtio 1.2 §5.5).

mod pages;
mod state;
mod statistics;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vmm_config::ByteSize;
use vmm_virtio::{
    Allow, ConfigSpace, DeviceError, Fault, Head, Kind, Needs, Persistence, Session, Setting, Step,
    VirtioDevice,
};

use self::pages::{PAGE_LEN, Turn};
use self::statistics::Statistics;
use crate::timer::{TIMER_CALLS, Timer};

/// VIRTIO_BALLOON_F_MUST_TELL_HOST: pages are returned through the deflate queue before the guest uses them,
/// so that both sides' counts agree. Linux does so in any case.
const MUST_TELL_HOST: u32 = 0;
/// VIRTIO_BALLOON_F_STATS_VQ.
const STATS_VQ: u32 = 1;
/// VIRTIO_BALLOON_F_DEFLATE_ON_OOM.
const DEFLATE_ON_OOM: u32 = 2;
/// VIRTIO_BALLOON_F_PAGE_POISON. Without it, Linux kernels that clear freed pages (init_on_free) report none.
const PAGE_POISON: u32 = 4;
/// VIRTIO_BALLOON_F_PAGE_REPORTING.
const PAGE_REPORTING: u32 = 5;

/// struct virtio_balloon_config (virtio 1.2 §5.5.4): num_pages, actual, free_page_hint_cmd_id, poison_val; 32 bits each.
const CONFIG_LEN: usize = 16;
const TARGET: Range<usize> = 0..4;
const ACTUAL: u64 = 4;
const POISON_VAL: u64 = 12;

/// Linux reports in chains of 32 ranges (PAGE_REPORTING_CAPACITY) and rejects the device if the queue is
/// smaller.
const QUEUE_SIZE: u16 = 128;

const INFLATE_QUEUE: usize = 0;
const DEFLATE_QUEUE: usize = 1;
const STATS_QUEUE: usize = 2;
/// Includes both indices at which a driver may expect the reporting queue; see [`role`].
const QUEUES: usize = 5;

/// Token of the timer.
const AGAIN: u32 = 0;

/// A balloon: pages in it belong to the host.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Size of the balloon, whole pages of 4K; default 0.
    #[serde(default)]
    size: Option<ByteSize>,
    /// Deflate on OOM: the guest takes pages back before it kills processes.
    #[serde(default = "yes")]
    deflate_on_oom: bool,
    /// Free page reporting: the guest returns free pages and reuses them without asking.
    #[serde(default = "yes")]
    free_page_reporting: bool,
}

/// The device.
#[derive(Debug)]
pub struct Balloon {
    features: u64,
    config: ConfigSpace,
    /// Expires immediately, so that a stop can run between two turns.
    again: Timer,
    statistics: Statistics,
    /// The chain of the driver's latest statistics. Returning it requests new ones.
    kept: Option<Head>,
    /// New statistics are wanted.
    asks: bool,
    /// Queues whose turn ended before they were empty.
    unfinished: [bool; QUEUES],
    /// The target was changed while no driver could be notified.
    untold: bool,
}

/// Fields that can be changed at run time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    size: Option<ByteSize>,
}

impl Balloon {
    /// Processes the chains of a queue until the turn's cost is used up. `each` returns the bytes moved by a
    /// chain and whether all of them were valid.
    fn take_a_turn(
        &mut self,
        queue: usize,
        session: &mut Session,
        mut each: impl FnMut(&vmm_virtio::Chain<'_>, &mut Turn) -> Result<MovedBytes, Fault>,
    ) -> Result<(), Fault> {
        let counters = Arc::clone(session.counters());
        let mut turn = Turn::default();
        session.drain(queue, |chain| {
            if turn.is_over() {
                return Ok(Step::Full);
            }
            let moved = each(&chain, &mut turn)?;
            counters.requests.add(1);
            counters.errors.add(u64::from(!moved.is_all));
            counters.bytes_in.add(moved.to_guest);
            counters.bytes_out.add(moved.to_host);
            Ok(Step::Used(0))
        })?;
        self.unfinished[queue] = turn.is_over();
        if turn.is_over() {
            // Lets a stop run in between.
            self.come_again();
        }
        Ok(())
    }

    fn inflate(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let ram = session.ram().clone();
        self.take_a_turn(queue, session, |chain, turn| {
            let (to_host, is_all) =
                pages::discard_numbered(chain.readable(), turn, |gpa, len| ram.discard(gpa, len).is_ok())?;
            Ok(MovedBytes { to_host, is_all, ..MovedBytes::default() })
        })
    }

    /// No work: a page comes back when the guest touches it.
    fn deflate(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        self.take_a_turn(queue, session, |chain, turn| {
            turn.spend(1);
            let numbers = chain.readable().len();
            Ok(MovedBytes {
                to_guest: (numbers / 4).saturating_mul(PAGE_LEN),
                is_all: numbers.is_multiple_of(4),
                ..MovedBytes::default()
            })
        })
    }

    fn report(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let ram = session.ram().clone();
        let is_wanted = session.has_feature(PAGE_REPORTING) && self.frees_are_zeros(session);
        self.take_a_turn(queue, session, |chain, turn| {
            if !is_wanted {
                turn.spend(1);
                return Ok(MovedBytes { is_all: true, ..MovedBytes::default() });
            }
            let (to_host, is_all) =
                pages::discard_ranges(chain.writable(), turn, |gpa, len| ram.discard(gpa, len).is_ok())?;
            Ok(MovedBytes { to_host, is_all, ..MovedBytes::default() })
        })
    }

    /// Whether freed pages may read as zeros. A guest that fills them with another value to detect stray
    /// writes expects that value again (virtio 1.2 §5.5.6.7.2).
    fn frees_are_zeros(&self, session: &Session) -> bool {
        let mut poison = [0; 4];
        self.config.read(POISON_VAL, &mut poison);
        !session.has_feature(PAGE_POISON) || poison == [0; 4]
    }

    /// Reads the driver's statistics and keeps their chain, because returning it requests new ones (virtio
    /// 1.2 §5.5.6.3).
    fn take_stats(&mut self, session: &mut Session) -> Result<(), Fault> {
        let Self { statistics, kept, .. } = self;
        let counters = Arc::clone(session.counters());
        session.drain(STATS_QUEUE, |chain| {
            counters.requests.add(1);
            statistics.record(chain.readable())?;
            // A driver has one such chain; keeping another would be pointless.
            if kept.is_some() {
                return Ok(Step::Used(0));
            }
            *kept = Some(chain.head());
            Ok(Step::Kept)
        })
    }

    /// Makes [`VirtioDevice::event`] be called after the thread's other events.
    fn come_again(&self) {
        // It can't fail: the timer is ours and the time is valid.
        let _ = self.again.once(Duration::from_nanos(1));
    }

    fn set_target(&self, pages: u32) {
        self.config.update(|bytes| bytes[TARGET].copy_from_slice(&pages.to_le_bytes()));
    }

    /// Reads a page count from the configuration space, in bytes.
    fn pages_len(&self, offset: u64) -> u64 {
        let mut pages = [0; 4];
        self.config.read(offset, &mut pages);
        u64::from(u32::from_le_bytes(pages)) * PAGE_LEN
    }

    fn give_stats_back(&mut self, session: &mut Session) -> Result<(), Fault> {
        if let (Some(head), Some(queue)) = (self.kept.take(), session.queue(STATS_QUEUE)) {
            queue.complete(head, 0)?;
            queue.announce()?;
        }
        Ok(())
    }
}

/// Bytes moved by a chain.
#[derive(Clone, Copy, Debug, Default)]
struct MovedBytes {
    to_guest: u64,
    to_host: u64,
    is_all: bool,
}

/// The purpose of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Stats,
    Report,
}

/// The queues after the first two depend on features. By virtio 1.2 §5.5.2 their indices are fixed:
/// statistics 2, free page hints 3, reports 4. Linux numbers the queues that it uses without gaps
/// (vm_find_vqs of drivers/virtio/virtio_mmio.c, vp_find_vqs of virtio_pci_common.c), so its reports come
/// through 3, as there are no hints here, or through 2 without statistics. No index has two meanings,
/// whichever scheme the driver follows.
fn role(queue: usize, has_stats: bool) -> Role {
    match queue {
        INFLATE_QUEUE => Role::Inflate,
        DEFLATE_QUEUE => Role::Deflate,
        STATS_QUEUE if has_stats => Role::Stats,
        _ => Role::Report,
    }
}

impl Kind for Balloon {
    const NAME: &'static str = "balloon";
    const ID: u32 = 5;
    type Config = Config;

    fn open(config: Config, _setting: &Setting<'_>) -> Result<Self, DeviceError> {
        let target = target_pages(config.size.map_or(0, ByteSize::bytes))?;
        let mut bytes = [0; CONFIG_LEN];
        bytes[TARGET].copy_from_slice(&target.to_le_bytes());
        let wished = u64::from(config.deflate_on_oom) << DEFLATE_ON_OOM
            | u64::from(config.free_page_reporting) << PAGE_REPORTING
            | u64::from(config.free_page_reporting) << PAGE_POISON;
        Ok(Self {
            features: 1 << MUST_TELL_HOST | 1 << STATS_VQ | wished,
            // The driver writes actual and poison_val; the field between them is unused without free page
            // hints.
            config: ConfigSpace::new(bytes, TARGET.end..CONFIG_LEN),
            again: Timer::new().map_err(|error| DeviceError::host("", error))?,
            statistics: Statistics::default(),
            kept: None,
            asks: false,
            unfinished: [false; QUEUES],
            untold: false,
        })
    }
}

fn target_pages(len: u64) -> Result<u32, DeviceError> {
    let size = ByteSize::from_bytes(len);
    if !len.is_multiple_of(PAGE_LEN) {
        let whole = ByteSize::from_bytes(len / PAGE_LEN * PAGE_LEN);
        let problem = format!("{size} isn't a multiple of the page size, 4K: try {whole}");
        return Err(DeviceError::config("size", problem));
    }
    u32::try_from(len / PAGE_LEN).map_err(|_| {
        DeviceError::config(
            "size",
            format!("{size} exceeds the maximum size of a balloon: choose less than 16T"),
        )
    })
}

/// Guest memory is given back to the host: to a file of shared memory; of memory that is copied on write by other memory in its place,
/// which children don't get either; otherwise by what is part of every filter.
const CALLS: &[Allow] = &[
    Allow::when(libc::SYS_fallocate, 1, &[(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32]),
    Allow::when(libc::SYS_madvise, 2, &[libc::MADV_DONTFORK as u32]),
];

impl VirtioDevice for Balloon {
    fn needs(&self) -> Needs {
        Needs::calls(&[CALLS, TIMER_CALLS])
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn config_space(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.unfinished = [false; QUEUES];
        if std::mem::take(&mut self.untold) {
            session.config_changed();
        }
        session
            .watch(&self.again, AGAIN)
            .map_err(|_| Fault::Request("the host can't watch the balloon's timer"))
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        match role(queue, session.has_feature(STATS_VQ)) {
            Role::Inflate => self.inflate(queue, session),
            Role::Deflate => self.deflate(queue, session),
            Role::Stats => self.take_stats(session),
            Role::Report => self.report(queue, session),
        }
    }

    fn event(&mut self, _token: u32, session: &mut Session) -> Result<(), Fault> {
        self.again.acknowledge();
        if std::mem::take(&mut self.asks) {
            self.give_stats_back(session)?;
        }
        for queue in 0..QUEUES {
            if std::mem::take(&mut self.unfinished[queue]) {
                self.process(queue, session)?;
            }
        }
        Ok(())
    }

    fn stop(&mut self, session: &mut Session) {
        // A fault is ignored: the rings are read again at the next start.
        let _ = self.give_stats_back(session);
        // It fails if it was never watched.
        let _ = session.unwatch(&self.again);
    }

    fn update(&mut self, fields: &Value, session: Option<&mut Session>) -> Result<(), DeviceError> {
        let Update { size } = vmm_config::read_update(fields)?;
        let Some(size) = size else { return Ok(()) };
        self.set_target(target_pages(size.bytes())?);
        match session {
            Some(session) => session.config_changed(),
            None => self.untold = true,
        }
        Ok(())
    }

    /// Reports the driver's latest statistics, and requests new ones for the next report.
    fn report(&mut self) -> Map<String, Value> {
        self.asks = true;
        self.come_again();
        let report = json!({
            "target_bytes": self.pages_len(TARGET.start as u64),
            "actual_bytes": self.pages_len(ACTUAL),
            "statistics_reports": self.statistics.reports(),
            "statistics": self.statistics.values(),
        });
        report.as_object().cloned().unwrap_or_default()
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    /// The next guest starts with all its memory. The target stays.
    fn power_cycle(&mut self) {
        self.config.update(|bytes| bytes[TARGET.end..].fill(0));
        self.statistics = Statistics::default();
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_of_a_queue_is_the_same_with_gaps_and_without() {
        assert_eq!(role(2, true), Role::Stats);
        // Reports by the specification's index, and by Linux's with and without statistics.
        assert_eq!([role(4, true), role(3, true), role(2, false)], [Role::Report; 3]);
        assert_eq!([role(0, false), role(1, false)], [Role::Inflate, Role::Deflate]);
    }
}
