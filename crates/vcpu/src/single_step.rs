//! The first instructions one by one: a handler around another one that shows the registers in front of each.

use std::convert::Infallible;

use vmm_kvm::{KvmVcpu, VcpuReport};

use crate::{ExitHandler, Flow};

/// Who is shown the state in front of an instruction.
pub trait Steps: Send {
    /// Instruction number `step`, counted from 1, comes next.
    fn step(&mut self, step: u64, report: &VcpuReport) -> Flow<Infallible>;

    /// Whether a guest that it holds must stay out: there is still no room.
    fn is_holding(&mut self) -> bool {
        false
    }
}

/// A handler that answers as `H` does, and shows `S` the first instructions.
#[derive(Debug)]
pub struct SingleStepped<H, S> {
    handler: H,
    steps: S,
    /// Instructions that have been shown.
    shown: u64,
    count: u64,
    /// What the last of `steps` asked for.
    flow: Flow<Infallible>,
}

impl<H, S: Steps> SingleStepped<H, S> {
    /// Shows the first `count` instructions.
    pub fn new(handler: H, steps: S, count: u64) -> Self {
        Self { handler, steps, shown: 0, count, flow: Flow::Enter }
    }

    fn show(&mut self, vcpu: &KvmVcpu) {
        self.shown += 1;
        self.flow = self.steps.step(self.shown, &vcpu.report());
    }

    /// A vCPU that can't be stepped runs on unseen; that it can't is told by the steps that are missing.
    fn set(vcpu: &KvmVcpu, on: bool) {
        let _ = vcpu.set_single_step(on);
    }
}

impl<H: ExitHandler<KvmVcpu>, S: Steps> ExitHandler<KvmVcpu> for SingleStepped<H, S> {
    type Stop = H::Stop;

    fn is_held(&mut self) -> bool {
        self.steps.is_holding() || self.handler.is_held()
    }

    fn before_run(&mut self, vcpu: &mut KvmVcpu) {
        if self.shown == 0 && self.count > 0 {
            Self::set(vcpu, true);
            self.show(vcpu);
        }
        self.handler.before_run(vcpu);
    }

    fn after_run(&mut self, vcpu: &mut KvmVcpu) -> Flow<Self::Stop> {
        let shown = std::mem::replace(&mut self.flow, Flow::Enter);
        self.handler.after_run(vcpu).and(shown.widen())
    }

    fn debug(&mut self, vcpu: &mut KvmVcpu, pc: u64) -> Option<Flow<Self::Stop>> {
        if self.shown == 0 || self.shown > self.count {
            return self.handler.debug(vcpu, pc);
        }
        if self.shown == self.count {
            self.shown += 1;
            Self::set(vcpu, false);
        } else {
            self.show(vcpu);
        }
        Some(Flow::Enter)
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.handler.port_in(port, data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<Self::Stop> {
        self.handler.port_out(port, data)
    }

    fn string_in(&mut self, port: u16, width: usize, data: &mut [u8]) {
        self.handler.string_in(port, width, data);
    }

    fn string_out(&mut self, port: u16, width: usize, data: &[u8]) -> Flow<Self::Stop> {
        self.handler.string_out(port, width, data)
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.handler.mmio_read(gpa, data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<Self::Stop> {
        self.handler.mmio_write(gpa, data)
    }

    fn halt(&mut self, vcpu: &mut KvmVcpu) -> Option<Flow<Self::Stop>> {
        self.handler.halt(vcpu)
    }

    fn shutdown(&mut self, vcpu: &mut KvmVcpu) -> Option<Flow<Self::Stop>> {
        self.handler.shutdown(vcpu)
    }
}
