//! From what a handler saw to text.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use vmm_bus::Outcome;
use vmm_bus::Output;
use vmm_kvm::VcpuReport;
use vmm_vcpu::{Flow, Steps, Summary, Trace, TracedExit};

use crate::platform;

/// Writes lines into the queue to standard error.
#[derive(Debug)]
pub(super) struct Lines {
    output: Arc<Output>,
    end: &'static str,
    /// Used again for each line.
    line: String,
}

impl Lines {
    pub(super) fn new(output: Arc<Output>, is_raw_terminal: bool) -> Self {
        Self { output, end: if is_raw_terminal { "\r\n" } else { "\n" }, line: String::new() }
    }

    fn say(&mut self, text: std::fmt::Arguments<'_>) -> Flow<Infallible> {
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
        self.say(format_args!("{}", platform::shown_step(step, report)))
    }

    fn is_holding(&mut self) -> bool {
        self.output.is_holding()
    }
}

/// What becomes of a vCPU's exits.
#[derive(Debug)]
pub(super) enum ExitTrace {
    Lines(Lines),
    Counted(Counted),
}

/// Counts exits, and tells the machine at the end.
#[derive(Debug)]
pub(super) struct Counted {
    summary: Summary,
    machine: Sender<Summary>,
}

impl ExitTrace {
    pub(super) fn counting(machine: Sender<Summary>) -> Self {
        Self::Counted(Counted { summary: Summary::default(), machine })
    }
}

impl Trace for ExitTrace {
    fn exit(&mut self, exit: &TracedExit) -> Flow<Infallible> {
        match self {
            Self::Lines(lines) => lines.say(format_args!("{exit}")),
            Self::Counted(counted) => {
                counted.summary.add(exit);
                Flow::Enter
            }
        }
    }

    fn is_holding(&mut self) -> bool {
        match self {
            Self::Lines(lines) => lines.output.is_holding(),
            Self::Counted(_) => false,
        }
    }

    fn wants_instruction_pointer(&self) -> bool {
        matches!(self, Self::Lines(_))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // A machine that has gone wants no numbers.
        let _ = self.machine.send(std::mem::take(&mut self.summary));
    }
}
