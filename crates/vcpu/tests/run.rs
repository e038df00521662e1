//! The run loop, with a scripted processor.

use std::collections::VecDeque;
use std::sync::Arc;

use vmm_kvm::{DebugStop, Exit, VcpuReport, VcpuState};
use vmm_vcpu::{Cpu, End, Entry, ExitHandler, Flow, Kick, run};

/// Returns the scripted exits: one list for entries of the guest, one for completions of an access.
struct ScriptedCpu {
    runs: VecDeque<Exit<'static>>,
    completions: VecDeque<Exit<'static>>,
}

impl Cpu for ScriptedCpu {
    fn run(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
        Ok(self.runs.pop_front().expect("the script ends the guest"))
    }
    fn complete_access(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
        Ok(self.completions.pop_front().expect("the script has enough completions"))
    }
    fn notify_pause(&mut self) {}
    fn kick(&self) -> Arc<dyn Kick> {
        unreachable!("no thread runs it")
    }
    fn report(&self) -> VcpuReport {
        VcpuReport::default()
    }
    fn state(&self, _msrs: &[u32]) -> Result<VcpuState, vmm_kvm::Error> {
        Err(vmm_kvm::Error::NoWallClock)
    }
    fn instruction_pointer(&self) -> Option<u64> {
        None
    }
}

/// A handler with all defaults.
struct Defaults;

impl ExitHandler<ScriptedCpu> for Defaults {
    type Stop = ();
}

/// Records its calls.
#[derive(Default)]
struct Recorder(Vec<String>);

impl ExitHandler<ScriptedCpu> for Recorder {
    type Stop = ();
    fn interrupt_window(&mut self, _cpu: &mut ScriptedCpu) -> Flow<()> {
        self.0.push("window".into());
        Flow::Enter
    }
    fn tpr_access(&mut self, _cpu: &mut ScriptedCpu, rip: u64, is_write: bool) -> Flow<()> {
        self.0.push(format!("tpr {rip:#x} {is_write}"));
        Flow::Enter
    }
    fn tpr_lowered(&mut self, _cpu: &mut ScriptedCpu, cr8: u64) -> Flow<()> {
        self.0.push(format!("cr8 {cr8}"));
        Flow::Enter
    }
    fn debug(&mut self, _cpu: &mut ScriptedCpu, stop: DebugStop) -> Option<Flow<()>> {
        self.0.push(format!("debug {:#x}", stop.pc));
        Some(Flow::Stop(()))
    }
}

/// Requests completion of each access without entering the guest.
#[derive(Default)]
struct Completing {
    is_accessing: bool,
    stored: Vec<u64>,
    /// Number of stores after each run.
    after: Vec<usize>,
}

impl ExitHandler<ScriptedCpu> for Completing {
    type Stop = ();
    fn entry(&mut self) -> Entry {
        if std::mem::take(&mut self.is_accessing) { Entry::CompleteAccess } else { Entry::Guest }
    }
    fn after_run(&mut self, _cpu: &mut ScriptedCpu) -> Flow<()> {
        self.after.push(self.stored.len());
        Flow::Enter
    }
    fn mmio_write(&mut self, gpa: u64, _data: &[u8]) -> Flow<()> {
        self.is_accessing = true;
        self.stored.push(gpa);
        Flow::Enter
    }
}

fn cpu(
    runs: impl Into<VecDeque<Exit<'static>>>,
    completions: impl Into<VecDeque<Exit<'static>>>,
) -> ScriptedCpu {
    ScriptedCpu { runs: runs.into(), completions: completions.into() }
}

fn store(gpa: u64) -> Exit<'static> {
    Exit::MmioWrite { gpa, data: &[0] }
}

#[test]
fn exits_for_an_interrupt_controller_reach_their_call_backs() {
    let stop = DebugStop { pc: 0x1002, ..Default::default() };
    let exits = [
        Exit::InterruptWindow,
        Exit::TprAccess { rip: 0x1000, is_write: true },
        Exit::TprLowered { cr8: 2 },
        Exit::Debug(stop),
    ];
    let mut recorder = Recorder::default();
    assert!(matches!(run(&mut cpu(exits, []), &mut recorder), Ok(End::Asked(()))));
    assert_eq!(recorder.0, ["window", "tpr 0x1000 true", "cr8 2", "debug 0x1002"]);
}

#[test]
fn exits_for_an_interrupt_controller_are_ignored_by_default() {
    let exits = [
        Exit::InterruptWindow,
        Exit::TprAccess { rip: 0x1000, is_write: false },
        Exit::TprLowered { cr8: 2 },
        Exit::Halt,
    ];
    assert!(matches!(run(&mut cpu(exits, []), &mut Defaults), Ok(End::Halted(_))));
}

#[test]
fn debug_stop_that_is_not_handled_is_a_crash() {
    let exits = [Exit::Debug(DebugStop::default())];
    assert!(matches!(run(&mut cpu(exits, []), &mut Defaults), Ok(End::Crashed(_))));
}

#[test]
fn end_of_a_completion_is_not_an_interruption() {
    let mut cpu = cpu([store(1), Exit::Halt], [Exit::Interrupted]);
    let mut handler = Completing::default();
    assert!(matches!(run(&mut cpu, &mut handler), Ok(End::Halted(_))));
    // The store, its completion, and the halt.
    assert_eq!((handler.stored, handler.after), (vec![1], vec![1, 1, 1]));
}

/// A store that crosses a page boundary has two accesses.
#[test]
fn exit_of_a_completion_is_handled_like_any_other() {
    let mut cpu = cpu([store(1), Exit::Halt], [store(2), Exit::Interrupted]);
    let mut handler = Completing::default();
    assert!(matches!(run(&mut cpu, &mut handler), Ok(End::Halted(_))));
    assert_eq!(handler.stored, [1, 2]);
}

#[test]
fn interruption_of_a_run_ends_it() {
    assert!(matches!(run(&mut cpu([Exit::Interrupted], []), &mut Defaults), Ok(End::Stopped)));
}

/// Stops after each run.
struct StopsAfterRun;

impl ExitHandler<ScriptedCpu> for StopsAfterRun {
    type Stop = &'static str;
    fn after_run(&mut self, _cpu: &mut ScriptedCpu) -> Flow<&'static str> {
        Flow::Stop("enough")
    }
}

#[test]
fn stop_after_an_interrupted_run_is_not_lost() {
    assert!(matches!(run(&mut cpu([Exit::Interrupted], []), &mut StopsAfterRun), Ok(End::Asked("enough"))));
}
