//! The first instructions one by one: a handler around another one that shows the registers before each.

use std::convert::Infallible;

use vmm_kvm::{DebugStop, KvmVcpu, StopCause, VcpuReport};

use super::handler::ExitHandler;
use super::instruction::Instruction;
use crate::{Entry, Flow};

/// CR0.PE: not real mode.
const CR0_PE: u64 = 1;
/// EFLAGS.TF, the trap flag.
const TRAP_FLAG: u64 = 1 << 8;

/// Who is shown the state before an instruction.
pub trait Steps: Send {
    /// Instruction number `step`, counted from 1, comes next.
    fn step(&mut self, step: u64, report: &VcpuReport) -> Flow<Infallible>;

    /// Whether a guest that it holds must stay out: there is still no room.
    fn is_holding(&mut self) -> bool {
        false
    }
}

/// A handler that answers as `H` does, and shows `S` the first instructions. The guest does what it does without.
///
/// Each instruction is shown once, before it is executed; a string instruction with `rep` once for all its elements. After an
/// access to a port or to an address without memory, KVM is asked to complete it before the registers are looked at: some KVMs
/// would execute the instruction that follows in the same turn. A `hlt` isn't stepped, since
/// some KVMs would run past it: what an interrupt wakes is shown from its first exit on.
///
/// KVM sets the processor's trap flag, and what doesn't stop for that isn't shown. On a hardware KVM this is the instruction
/// after a load of SS, and the handler of an interrupt or an exception up to its first exit or its end; on a software KVM the
/// first instruction of a handler. The flags that a processor saves for a handler have the trap flag set. A guest whose last step
/// is inside of a handler takes a debug exception when the handler returns.
#[derive(Debug)]
pub struct SingleStepped<H, S> {
    handler: H,
    steps: S,
    /// Instructions that have been shown.
    shown: u64,
    count: u64,
    state: State,
    /// What was shown last.
    instruction: Instruction,
    ip: u64,
    /// The guest's own trap flag before it.
    is_trapped: bool,
    /// What the last of `steps` asked for.
    flow: Flow<Infallible>,
}

/// Where the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before an instruction that has not been shown.
    Before,
    /// Before or in the one that was shown last.
    Shown,
    /// The one that was shown last has left KVM for an access.
    Accessing,
    /// The next return from KVM is the end of the access, or another access of the same instruction.
    Completing,
    /// All are shown.
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
            // It raises an exception there.
            self.instruction = Instruction::Other;
        }
        self.is_trapped = report.regs.rflags & TRAP_FLAG != 0;
        self.flow = self.steps.step(self.shown, &report);
        if self.shown < self.count {
            self.state = State::Shown;
        } else {
            self.state = State::Done;
            Self::set(vcpu, false);
        }
    }

    /// A vCPU that can't be stepped runs on unseen; the steps that are missing show it.
    fn set(vcpu: &mut KvmVcpu, on: bool) {
        let _ = vcpu.set_single_step(on);
    }

    /// The guest leaves for an access.
    fn access(&mut self) {
        if matches!(self.state, State::Shown | State::Completing) {
            self.state = State::Accessing;
        }
    }

    /// The instruction that was shown last is complete, or an element of its string is.
    fn complete(&mut self, vcpu: &KvmVcpu) {
        let is_at_it = || vcpu.regs().is_ok_and(|regs| regs.rip == self.ip);
        if self.instruction == Instruction::RepeatedString && is_at_it() {
            self.state = State::Shown;
            return;
        }
        if self.instruction == Instruction::PushFlags && !self.is_trapped {
            // The processor has stored the trap flag that KVM has set. If that can't be mended, the step is shown all the same.
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
            // Anew each time: see KvmVcpu::set_single_step.
            Self::set(vcpu, self.instruction != Instruction::Halt);
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
        let is_mine = matches!(self.state, State::Shown | State::Completing);
        if is_mine {
            self.complete(vcpu);
        }
        match stop.cause() {
            StopCause::SingleStep if is_mine => Some(Flow::Enter),
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
