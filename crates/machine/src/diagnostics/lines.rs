//! Formats traced exits and steps.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use vmm_bus::Outcome;
use vmm_bus::Output;
use vmm_kvm::VcpuReport;
use vmm_vcpu::{Flow, Steps, Summary, Trace, TracedExit};

use crate::platform;

/// Writes trace lines to the queue of [`Messages`](crate::Messages), and holds the vCPU while it is full.
#[derive(Debug)]
pub(super) struct Lines {
    output: Arc<Output>,
    end: &'static str,
    /// Reused for each line.
    line: String,
}

impl Lines {
    pub(super) fn new(output: Arc<Output>, is_raw_terminal: bool) -> Self {
        Self { output, end: if is_raw_terminal { "\r\n" } else { "\n" }, line: String::new() }
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) -> Flow<Infallible> {
        self.line.clear();
        // Writing into a string can't fail.
        let _ = self.line.write_fmt(text);
        self.line.push_str(self.end);
        self.output.push(self.line.as_bytes());
        match self.output.outcome() {
            Outcome::Hold => Flow::Hold,
            _ => Flow::Enter,
        }
    }
}

impl Steps for Lines {
    fn step(&mut self, step: u64, report: &VcpuReport) -> Flow<Infallible> {
        self.push(format_args!("{}", platform::shown_step(step, report)))
    }

    fn is_holding(&mut self) -> bool {
        self.output.is_holding()
    }
}

/// How a vCPU's exits are traced.
#[derive(Debug)]
pub(super) enum ExitTrace {
    Lines(Lines),
    Counter(ExitCounter),
}

/// Counts exits, and sends the counts to the machine when dropped.
#[derive(Debug)]
pub(super) struct ExitCounter {
    summary: Summary,
    machine: Sender<Summary>,
}

impl ExitTrace {
    pub(super) fn counting(machine: Sender<Summary>) -> Self {
        Self::Counter(ExitCounter { summary: Summary::default(), machine })
    }
}

impl Trace for ExitTrace {
    fn exit(&mut self, exit: &TracedExit) -> Flow<Infallible> {
        match self {
            Self::Lines(lines) => lines.push(format_args!("{exit}")),
            Self::Counter(counted) => {
                counted.summary.add(exit);
                Flow::Enter
            }
        }
    }

    fn is_holding(&mut self) -> bool {
        match self {
            Self::Lines(lines) => lines.output.is_holding(),
            Self::Counter(_) => false,
        }
    }

    fn wants_instruction_pointer(&self) -> bool {
        matches!(self, Self::Lines(_))
    }
}

impl Drop for ExitCounter {
    fn drop(&mut self) {
        // Fails if the machine has gone; nobody needs the counts then.
        let _ = self.machine.send(std::mem::take(&mut self.summary));
    }
}
