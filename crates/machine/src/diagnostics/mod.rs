//! What a person may watch of a guest: its exits, and its first instructions.
//!
//! Lines go through the queue of [`Messages`](crate::Messages) to standard error, as the guest's output goes to standard output:
//! the main thread writes them without waiting, and a guest that is faster is held. So no line of a trace is lost, nothing
//! grows, and a reader that stops can't stop the monitor from ending.

mod lines;
mod report;
mod stream;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use vmm_bus::SystemEvent;
use vmm_kvm::{KvmVcpu, Vm};
use vmm_sys_util::eventfd::EventFd;
use vmm_vcpu::{SingleStepped, Summary, Traced, VcpuThread};

pub use report::ExitReport;
pub(crate) use stream::Stream;

use crate::platform::BusHandler;
use crate::{Error, Messages};
use lines::{ExitTrace, Lines};
use report::StatisticsFiles;

/// What to watch. The default is nothing, and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// Watch the exits.
    pub exits: Option<WatchExits>,
    /// How many of the first instructions of the first vCPU to show with their registers.
    pub steps: u64,
    /// Where the lines go, so that those of a log come between them and not into them. If `None`, to standard error.
    pub lines: Option<Messages>,
}

/// How exits are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchExits {
    /// A line for each.
    Lines,
    /// Counted, for a table at the end.
    Summary,
}

impl FromStr for WatchExits {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lines" => Ok(Self::Lines),
            "summary" => Ok(Self::Summary),
            _ => Err("expected lines or summary"),
        }
    }
}

/// The watching side of a machine that is being built or runs.
#[derive(Debug)]
pub(crate) struct Watching {
    asked: Diagnostics,
    lines: Messages,
    /// A terminal that doesn't return the carriage by itself.
    is_raw_terminal: bool,
    start: Instant,
    /// Each vCPU's summary, when its thread has ended.
    summaries: (Sender<Summary>, Receiver<Summary>),
    statistics: StatisticsFiles,
}

impl Watching {
    /// The lines go to `lines`, which may be a raw terminal.
    pub(crate) fn new(
        asked: Diagnostics,
        lines: Messages,
        is_raw_terminal: bool,
        vm: &Vm,
    ) -> Result<Self, Error> {
        let mut statistics = StatisticsFiles::default();
        if asked.exits == Some(WatchExits::Summary) {
            statistics.vm = vm.statistics()?;
        }
        let (start, summaries) = (Instant::now(), channel());
        Ok(Self { asked, lines, is_raw_terminal, start, summaries, statistics })
    }

    /// Whether all lines that were asked for are out, or nobody wants them.
    pub(crate) fn is_drained(&self) -> bool {
        let has_lines = self.asked.exits == Some(WatchExits::Lines) || self.asked.steps > 0;
        !has_lines || self.lines.is_drained()
    }

    /// Starts a vCPU's thread with the handlers that were asked for. A vCPU that nobody watches runs without a trace of them:
    /// they are other types. `begin` is what the thread does first.
    pub(crate) fn spawn(
        &mut self,
        index: u32,
        vcpu: KvmVcpu,
        handler: BusHandler,
        ended: EventFd,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<VcpuThread<SystemEvent>, vmm_vcpu::Error> {
        if self.asked.exits == Some(WatchExits::Summary) {
            self.statistics.vcpus.extend(vcpu.statistics()?);
        }
        let steps = if index == 0 { self.asked.steps } else { 0 };
        let stepped = |handler| SingleStepped::new(handler, self.lines(), steps);
        match (self.asked.exits, steps) {
            (None, 0) => VcpuThread::spawn_with(index, vcpu, handler, ended, begin),
            (None, _) => VcpuThread::spawn_with(index, vcpu, stepped(handler), ended, begin),
            (Some(how), 0) => {
                let traced = Traced::new(index, handler, self.trace(how), self.start);
                VcpuThread::spawn_with(index, vcpu, traced, ended, begin)
            }
            (Some(how), _) => {
                let traced = Traced::new(index, stepped(handler), self.trace(how), self.start);
                VcpuThread::spawn_with(index, vcpu, traced, ended, begin)
            }
        }
    }

    /// What all vCPUs counted, each when its thread ended, and what KVM did.
    pub(crate) fn report(&self) -> Option<ExitReport> {
        if self.asked.exits != Some(WatchExits::Summary) {
            return None;
        }
        let mut all = Summary::default();
        self.summaries.1.try_iter().for_each(|summary| all.merge(&summary));
        Some(self.statistics.report(all))
    }

    fn trace(&self, how: WatchExits) -> ExitTrace {
        match how {
            WatchExits::Lines => ExitTrace::Lines(self.lines()),
            WatchExits::Summary => ExitTrace::counting(self.summaries.0.clone()),
        }
    }

    fn lines(&self) -> Lines {
        Lines::new(Arc::clone(self.lines.queue()), self.is_raw_terminal)
    }
}
