//! Tracing of a guest: its exits, and its first instructions.
//!
//! Lines go through the queue of [`Messages`](crate::Messages) to standard error. The main thread writes them without blocking,
//! and a guest that is faster is held. So no trace line is lost, the queue is bounded, and a reader that stops reading can't
//! prevent the monitor from ending.

mod lines;
mod message_writer;
mod report;

use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use vmm_bus::EventFd;
use vmm_bus::SystemEvent;
use vmm_kvm::{KvmVcpu, Vm};
use vmm_vcpu::{BusHandler, SingleStepped, Summary, Traced, VcpuThread};

pub(crate) use message_writer::MessageWriter;
pub use report::ExitReport;

use crate::{Error, Messages};
use lines::{ExitTrace, Lines};
use report::StatisticsFiles;

/// What to trace. The default is nothing, at no cost.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// How to trace the exits, if at all.
    pub exits: Option<WatchExits>,
    /// The number of instructions of the first vCPU to trace, with their registers.
    pub steps: u64,
    /// The queue for the lines: that of the log, if it has the same target, so that lines don't mix. `None`: a new one to
    /// standard error.
    pub lines: Option<Messages>,
}

/// How exits are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchExits {
    /// A line for each exit.
    Lines,
    /// A table of counts at the end.
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

/// Traces one machine.
#[derive(Debug)]
pub(crate) struct Observer {
    options: Diagnostics,
    lines: Messages,
    /// Whether lines go to a terminal in raw mode, and end in CR LF.
    is_raw_terminal: bool,
    start: Instant,
    /// Receives each vCPU's summary when its thread exits.
    summaries: (Sender<Summary>, Receiver<Summary>),
    statistics: StatisticsFiles,
}

impl Observer {
    /// Opens KVM's statistics if they are requested.
    ///
    /// # Errors
    /// The statistics can't be opened.
    pub(crate) fn new(
        options: Diagnostics,
        lines: Messages,
        is_raw_terminal: bool,
        vm: &Vm,
    ) -> Result<Self, Error> {
        let mut statistics = StatisticsFiles::default();
        if options.exits == Some(WatchExits::Summary) {
            statistics.vm = vm.statistics()?;
        }
        let (start, summaries) = (Instant::now(), channel());
        Ok(Self { options, lines, is_raw_terminal, start, summaries, statistics })
    }

    /// Whether all trace lines have been written, or their reader has gone.
    pub(crate) fn is_drained(&self) -> bool {
        let has_lines = self.options.exits == Some(WatchExits::Lines) || self.options.steps > 0;
        !has_lines || self.lines.is_drained()
    }

    /// Starts a vCPU's thread with the requested handlers. They are distinct types, so an untraced vCPU runs no tracing code. The
    /// thread calls `begin` first.
    pub(crate) fn spawn(
        &mut self,
        index: u32,
        vcpu: KvmVcpu,
        handler: BusHandler,
        ended: EventFd,
        begin: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<VcpuThread<SystemEvent>, vmm_vcpu::Error> {
        if self.options.exits == Some(WatchExits::Summary) {
            self.statistics.vcpus.extend(vcpu.statistics()?);
        }
        let steps = if index == 0 { self.options.steps } else { 0 };
        let stepped = |handler| SingleStepped::new(handler, self.lines(), steps);
        match (self.options.exits, steps) {
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

    /// The exits counted by the vCPU threads that have ended, and KVM's statistics; `None` unless a summary was requested.
    pub(crate) fn report(&self) -> Option<ExitReport> {
        if self.options.exits != Some(WatchExits::Summary) {
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
