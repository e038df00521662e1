//! Single-stepping: a wrapper around a handler that shows the registers before each of the first instructions.

use std::convert::Infallible;

use vmm_kvm::{DebugStop, KvmVcpu, StopCause, VcpuReport};

use super::handler::ExitHandler;
use super::instruction::Instruction;
use crate::{Entry, Flow};

/// CR0.PE: protected mode.
const CR0_PE: u64 = 1;
/// EFLAGS.TF, the trap flag.
const TRAP_FLAG: u64 = 1 << 8;

/// Receives the state before each single-stepped instruction.
pub trait Steps: Send {
    /// Called before instruction number `step`, counted from 1. [`Flow::Hold`] holds the vCPU until there is room for more.
    fn step(&mut self, step: u64, report: &VcpuReport) -> Flow<Infallible>;

    /// Whether the vCPU must keep waiting after [`step`](Self::step) returned [`Flow::Hold`]. Called when it is woken.
    fn is_holding(&mut self) -> bool {
        false
    }
}

/// A handler that handles exits like `H`, and shows the first instructions to `S`. The guest behaves as without it.
///
/// Each instruction is shown once, before it is executed; a string instruction with `rep` is shown once for all its elements. An
/// access to a port or to an address without memory is completed before the registers are read, because some KVMs would execute
/// the next instruction in the same KVM_RUN. A `hlt` isn't stepped, because some KVMs would run past it: the code after it is
/// shown only from its first exit on.
///
/// KVM single-steps by setting the processor's trap flag, and instructions that don't trap aren't shown. On a hardware KVM these
/// are the instruction after a load of SS, and the handler of an interrupt or exception up to its first exit or its end; on a
/// software KVM, the first instruction of a handler. The flags saved on entry to a handler have the trap flag set. If the last
/// step is inside a handler, the guest takes a debug exception when the handler returns.
#[derive(Debug)]
pub struct SingleStepped<H, S> {
    handler: H,
    steps: S,
    /// Number of instructions that have been shown.
    shown: u64,
    /// Number of instructions to show.
    count: u64,
    state: State,
    /// The last instruction shown.
    instruction: Instruction,
    ip: u64,
    /// The guest's own trap flag before that instruction.
    is_trapped: bool,
    /// The last result of [`Steps::step`].
    flow: Flow<Infallible>,
}

/// The guest's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before an instruction that hasn't been shown.
    Before,
    /// Before or in the last instruction shown.
    Shown,
    /// The last instruction shown has exited for an access.
    Accessing,
    /// The next KVM_RUN completes the access, or exits for another access of the same instruction.
    Completing,
    /// All instructions have been shown.
    Done,
}

impl<H, S: Steps> SingleStepped<H, S> {
    /// Shows the first `count` instructions.
    pub fn new(handler: H, steps: S, count: u64) -> Self {
        let state = if count == 0 { State::Done } else { State::Before };
        let instruction = Instruction::Other;
        Self {
            handler,
            steps,
            shown: 0,
            count,
            state,
            instruction,
            ip: 0,
            is_trapped: false,
            flow: Flow::Enter,
        }
    }

    fn show(&mut self, vcpu: &mut KvmVcpu) {
        let report = vcpu.report();
        self.shown += 1;
        self.ip = report.regs.rip;
        self.instruction = Instruction::decode(&report.code, report.sregs.cs.l != 0);
        let is_user_mode = report.sregs.cr0 & CR0_PE != 0 && report.sregs.ss.dpl != 0;
        if self.instruction == Instruction::Halt && is_user_mode {
            // In user mode `hlt` raises an exception.
            self.instruction = Instruction::Other;
        }
        self.is_trapped = report.regs.rflags & TRAP_FLAG != 0;
        self.flow = self.steps.step(self.shown, &report);
        if self.shown < self.count {
            self.state = State::Shown;
        } else {
            self.state = State::Done;
            Self::set_single_step(vcpu, false);
        }
    }

    /// If this fails, the vCPU runs without being stepped, which the missing steps show.
    fn set_single_step(vcpu: &mut KvmVcpu, on: bool) {
        let _ = vcpu.set_single_step(on);
    }

    /// Records that the guest has exited for an access.
    fn access(&mut self) {
        if matches!(self.state, State::Shown | State::Completing) {
            self.state = State::Accessing;
        }
    }

    /// Records that the last instruction shown, or an element of its string, is complete.
    fn complete(&mut self, vcpu: &KvmVcpu) {
        let is_unfinished = || vcpu.regs().is_ok_and(|regs| regs.rip == self.ip);
        if self.instruction == Instruction::RepeatedString && is_unfinished() {
            self.state = State::Shown;
            return;
        }
        if self.instruction == Instruction::PushFlags && !self.is_trapped {
            // The processor has stored the trap flag set by KVM. If it can't be cleared, stepping continues nevertheless.
            let _ = vcpu.clear_pushed_trap_flag();
        }
        self.state = State::Before;
    }
}

impl<H: ExitHandler<KvmVcpu>, S: Steps> ExitHandler<KvmVcpu> for SingleStepped<H, S> {
    type Stop = H::Stop;

    fn is_held(&mut self) -> bool {
        self.steps.is_holding() || self.handler.is_held()
    }

    fn before_run(&mut self, vcpu: &mut KvmVcpu) {
        match self.state {
            State::Before => self.show(vcpu),
            State::Accessing => self.state = State::Completing,
            State::Shown | State::Completing | State::Done => {}
        }
        if self.state == State::Shown {
            // Before each entry: see KvmVcpu::set_single_step.
            Self::set_single_step(vcpu, self.instruction != Instruction::Halt);
        }
        self.handler.before_run(vcpu);
    }

    fn entry(&mut self) -> Entry {
        match self.state {
            State::Completing => Entry::CompleteAccess,
            _ => self.handler.entry(),
        }
    }

    fn after_run(&mut self, vcpu: &mut KvmVcpu) -> Flow<Self::Stop> {
        if self.state == State::Completing {
            self.complete(vcpu);
        }
        let shown = std::mem::replace(&mut self.flow, Flow::Enter);
        self.handler.after_run(vcpu).and(shown.widen())
    }

    fn debug(&mut self, vcpu: &mut KvmVcpu, stop: DebugStop) -> Option<Flow<Self::Stop>> {
        let is_step = matches!(self.state, State::Shown | State::Completing);
        if is_step {
            self.complete(vcpu);
        }
        match stop.cause() {
            StopCause::SingleStep if is_step => Some(Flow::Enter),
            _ => self.handler.debug(vcpu, stop),
        }
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.access();
        self.handler.port_in(port, data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<Self::Stop> {
        self.access();
        self.handler.port_out(port, data)
    }

    fn string_in(&mut self, port: u16, width: usize, data: &mut [u8]) {
        self.access();
        self.handler.string_in(port, width, data);
    }

    fn string_out(&mut self, port: u16, width: usize, data: &[u8]) -> Flow<Self::Stop> {
        self.access();
        self.handler.string_out(port, width, data)
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.access();
        self.handler.mmio_read(gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<Self::Stop> {
        self.access();
        self.handler.mmio_write(gpa, data)
    }

    fn halt(&mut self, vcpu: &mut KvmVcpu) -> Option<Flow<Self::Stop>> {
        if self.state == State::Shown {
            self.state = State::Before;
        }
        self.handler.halt(vcpu)
    }

    fn shutdown(&mut self, vcpu: &mut KvmVcpu) -> Option<Flow<Self::Stop>> {
        self.handler.shutdown(vcpu)
    }

    fn interrupt_window(&mut self, vcpu: &mut KvmVcpu) -> Flow<Self::Stop> {
        self.handler.interrupt_window(vcpu)
    }

    fn tpr_access(&mut self, vcpu: &mut KvmVcpu, rip: u64, is_write: bool) -> Flow<Self::Stop> {
        self.handler.tpr_access(vcpu, rip, is_write)
    }

    fn tpr_lowered(&mut self, vcpu: &mut KvmVcpu, cr8: u64) -> Flow<Self::Stop> {
        self.handler.tpr_lowered(vcpu, cr8)
    }
}
