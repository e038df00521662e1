//! Tracing: a wrapper around a handler that reports each exit.

use std::time::Instant;

use vmm_kvm::DebugStop;

use super::exit_kind::ExitKind;
use super::handler::ExitHandler;
use crate::{Cpu, Entry, Flow, Trace, TracedExit};

/// A handler that handles exits like `H` and reports each of them to `T`.
#[derive(Debug)]
pub struct Traced<H, T> {
    handler: H,
    trace: T,
    /// The exit being handled.
    exit: TracedExit,
    start: Instant,
    /// When the guest was entered.
    entered: Instant,
    /// When the guest exited, once a call-back has been called.
    exited: Option<Instant>,
    /// The guest was entered only to complete the access of the previous exit.
    is_completing: bool,
}

impl<H, T> Traced<H, T> {
    /// Traces the exits of vCPU `vcpu`, which `handler` handles. Times are relative to `start`.
    pub fn new(vcpu: u32, handler: H, trace: T, start: Instant) -> Self {
        Self {
            handler,
            trace,
            exit: TracedExit::none(vcpu),
            start,
            entered: start,
            exited: None,
            is_completing: false,
        }
    }

    /// Records the time of the exit.
    fn exited(&mut self) {
        self.exited = Some(Instant::now());
    }
}

impl<C, H, T> ExitHandler<C> for Traced<H, T>
where
    C: Cpu,
    H: ExitHandler<C>,
    T: Trace,
{
    type Stop = H::Stop;

    fn is_held(&mut self) -> bool {
        self.trace.is_holding() || self.handler.is_held()
    }

    fn before_run(&mut self, vcpu: &mut C) {
        self.handler.before_run(vcpu);
        self.exit.set_access(ExitKind::Other, 0, &[]);
        self.exited = None;
        self.entered = Instant::now();
    }

    fn entry(&mut self) -> Entry {
        let entry = self.handler.entry();
        self.is_completing = entry == Entry::CompleteAccess;
        entry
    }

    fn after_run(&mut self, vcpu: &mut C) -> Flow<Self::Stop> {
        let flow = self.handler.after_run(vcpu);
        if self.is_completing && self.exited.is_none() {
            // The access has been completed, and its exit was traced already.
            return flow;
        }
        let now = Instant::now();
        let exited = self.exited.unwrap_or(now);
        self.exit.at = exited.saturating_duration_since(self.start);
        self.exit.inside = exited.saturating_duration_since(self.entered);
        self.exit.outside = now.saturating_duration_since(exited);
        self.exit.ip = if self.trace.wants_instruction_pointer() { vcpu.instruction_pointer() } else { None };
        flow.and(self.trace.exit(&self.exit).widen())
    }

    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        self.string_in(port, data.len(), data);
    }

    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<Self::Stop> {
        self.exited();
        self.exit.set_access(ExitKind::PortOut(port), data.len(), data);
        self.handler.port_out(port, data)
    }

    fn string_in(&mut self, port: u16, width: usize, data: &mut [u8]) {
        self.exited();
        if data.len() == width {
            self.handler.port_in(port, data);
        } else {
            self.handler.string_in(port, width, data);
        }
        self.exit.set_access(ExitKind::PortIn(port), width, data);
    }

    fn string_out(&mut self, port: u16, width: usize, data: &[u8]) -> Flow<Self::Stop> {
        self.exited();
        self.exit.set_access(ExitKind::PortOut(port), width, data);
        self.handler.string_out(port, width, data)
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        self.exited();
        self.handler.mmio_read(gpa, data);
        self.exit.set_access(ExitKind::MmioRead(gpa), data.len(), data);
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<Self::Stop> {
        self.exited();
        self.exit.set_access(ExitKind::MmioWrite(gpa), data.len(), data);
        self.handler.mmio_write(gpa, data)
    }

    fn halt(&mut self, vcpu: &mut C) -> Option<Flow<Self::Stop>> {
        self.exited();
        self.exit.kind = ExitKind::Halt;
        self.handler.halt(vcpu)
    }

    fn shutdown(&mut self, vcpu: &mut C) -> Option<Flow<Self::Stop>> {
        self.exited();
        self.exit.kind = ExitKind::Shutdown;
        self.handler.shutdown(vcpu)
    }

    fn debug(&mut self, vcpu: &mut C, stop: DebugStop) -> Option<Flow<Self::Stop>> {
        self.exited();
        self.exit.kind = ExitKind::Debug;
        self.handler.debug(vcpu, stop)
    }

    fn interrupt_window(&mut self, vcpu: &mut C) -> Flow<Self::Stop> {
        self.exited();
        self.exit.kind = ExitKind::InterruptWindow;
        self.handler.interrupt_window(vcpu)
    }

    fn tpr_access(&mut self, vcpu: &mut C, rip: u64, is_write: bool) -> Flow<Self::Stop> {
        self.exited();
        self.exit.kind = ExitKind::TaskPriority;
        self.handler.tpr_access(vcpu, rip, is_write)
    }

    fn tpr_lowered(&mut self, vcpu: &mut C, cr8: u64) -> Flow<Self::Stop> {
        self.exited();
        self.exit.kind = ExitKind::TaskPriority;
        self.handler.tpr_lowered(vcpu, cr8)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use vmm_kvm::{Exit, VcpuReport, VcpuState};

    use super::*;
    use crate::Kick;

    /// A processor whose instruction pointer is 0x7c00, and which never runs.
    struct IdleCpu;

    impl Cpu for IdleCpu {
        fn run(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
            Ok(Exit::Interrupted)
        }
        fn complete_access(&mut self) -> Result<Exit<'_>, vmm_kvm::Error> {
            Ok(Exit::Interrupted)
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
            Some(0x7c00)
        }
    }

    /// All ports read as 7, and a write to port 9 stops.
    struct Seven;

    impl ExitHandler<IdleCpu> for Seven {
        type Stop = &'static str;
        fn inb(&mut self, _port: u16) -> u8 {
            7
        }
        fn outb(&mut self, port: u16, _value: u8) -> Flow<&'static str> {
            if port == 9 { Flow::Stop("port 9") } else { Flow::Enter }
        }
    }

    /// Collects the lines, without their times, and always holds.
    #[derive(Default)]
    struct Lines(Vec<String>);

    impl Trace for Lines {
        fn exit(&mut self, exit: &TracedExit) -> Flow<Infallible> {
            self.0.push(exit.to_string().split_off("   0.000000 ".len()));
            Flow::Hold
        }
    }

    type Subject = Traced<Seven, Lines>;

    /// The line traced for an exit whose call-back is called by `exit`, and the result for the run loop.
    fn traced(exit: impl FnOnce(&mut Subject)) -> (String, Flow<&'static str>) {
        let mut subject = Traced::new(1, Seven, Lines::default(), Instant::now());
        subject.before_run(&mut IdleCpu);
        exit(&mut subject);
        let flow = subject.after_run(&mut IdleCpu);
        (subject.trace.0.remove(0), flow)
    }

    #[test]
    fn traced_write_shows_port_width_and_data_and_can_hold() {
        let (line, flow) = traced(|subject| assert_eq!(subject.port_out(0x3f8, b"H"), Flow::Enter));
        assert_eq!(line, "vcpu1 out      0x03f8 width 1 count 1 data 48 ip 0x7c00");
        assert_eq!(flow, Flow::Hold);
    }

    #[test]
    fn traced_read_shows_the_value_read() {
        let (line, _) = traced(|subject| subject.port_in(0x60, &mut [0]));
        assert_eq!(line, "vcpu1 in       0x0060 width 1 count 1 data 07 ip 0x7c00");
    }

    #[test]
    fn traced_string_shows_its_count_and_first_bytes() {
        let data = [0x11; 40];
        let (line, _) = traced(|subject| assert_eq!(subject.string_out(0x3f8, 2, &data), Flow::Enter));
        let bytes = "11 ".repeat(16);
        assert_eq!(line, format!("vcpu1 out      0x03f8 width 2 count 20 data {bytes}.. ip 0x7c00"));
    }

    #[test]
    fn traced_string_input_is_handled_element_by_element() {
        let mut data = [0; 3];
        let (line, _) = traced(|subject| subject.string_in(0x60, 1, &mut data));
        assert_eq!(
            (line.as_str(), data),
            ("vcpu1 in       0x0060 width 1 count 3 data 07 07 07 ip 0x7c00", [7; 3])
        );
    }

    #[test]
    fn traced_mmio_shows_the_address() {
        let (line, _) =
            traced(|subject| assert_eq!(subject.mmio_write(0xd000_0000, &[1, 0, 0, 0]), Flow::Enter));
        assert_eq!(line, "vcpu1 write    0xd0000000 width 4 count 1 data 01 00 00 00 ip 0x7c00");
    }

    #[test]
    fn traced_stop_of_the_handler_is_returned() {
        let (line, _) = traced(|subject| assert_eq!(subject.port_out(9, &[0]), Flow::Stop("port 9")));
        assert_eq!(line, "vcpu1 out      0x0009 width 1 count 1 data 00 ip 0x7c00");
    }

    #[test]
    fn traced_exit_without_call_back_is_other() {
        let (line, _) = traced(|_| ());
        assert_eq!(line, "vcpu1 other    ip 0x7c00");
    }
}
