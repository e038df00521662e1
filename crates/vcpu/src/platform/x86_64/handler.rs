//! The call-backs of the run loop.

use vmm_kvm::{DebugStop, KvmVcpu};

use crate::{Entry, Flow};

/// The call-backs of the run loop, one per kind of exit. Implement those that you need: the defaults behave like a machine
/// without devices, where reads return all ones and writes are ignored.
///
/// ```text
/// before_run, entry
///            --> KVM_RUN --> one of these ------------------------------> after_run
///                            string_in  --each element--+
///                            port_in <------------------+--by width--> inb, inw, inl
///                            string_out --each element--+
///                            port_out <-----------------+--by width--> outb, outw, outl
///                            mmio_read, mmio_write
///                            halt, shutdown, debug
///                            interrupt_window, tpr_access, tpr_lowered
/// ```
/// The arrows between call-backs show their defaults. A machine whose ports have one byte implements `inb` and `outb`, a bus
/// implements `port_in` and `port_out`, and only a handler that processes whole strings implements `string_in` and `string_out`.
///
/// The equivalents of libkvm's call-backs:
///
/// | libkvm | here |
/// |---|---|
/// | `inb`, `inw`, `inl`, `outb`, `outw`, `outl`, `mmio_read`, `mmio_write`, `halt`, `shutdown`, `debug`, `tpr_access` | the same name |
/// | `pre_kvm_run`, `post_kvm_run` | [`before_run`](Self::before_run), [`after_run`](Self::after_run) |
/// | `try_push_interrupts` | [`before_run`](Self::before_run), with [`KvmVcpu::is_ready_for_interrupt`], [`KvmVcpu::interrupt`] and [`KvmVcpu::request_interrupt_window`] |
/// | `try_push_nmi` | [`before_run`](Self::before_run), with [`KvmVcpu::nmi`] |
/// | `io_window` | [`interrupt_window`](Self::interrupt_window) when the guest can take an interrupt; [`after_run`](Self::after_run) when a signal ended KVM_RUN |
///
/// `C` is the processor, which is passed to the call-backs that may access it. Its registers are those at the exit; the
/// instruction of a port or MMIO access isn't complete yet.
pub trait ExitHandler<C = KvmVcpu>: Send {
    /// The handler's reason to end the vCPU. `()` if it needs none.
    type Stop: Send + 'static;

    /// Called right before each KVM_RUN. A monitor with its own interrupt controller injects interrupts here.
    fn before_run(&mut self, vcpu: &mut C) {
        let _ = vcpu;
    }

    /// How to enter the next KVM_RUN. Called after [`before_run`](Self::before_run).
    fn entry(&mut self) -> Entry {
        Entry::Guest
    }

    /// Called after each KVM_RUN, when its exit has been handled. Also called for exits without a call-back of their own, such as
    /// an interruption.
    fn after_run(&mut self, vcpu: &mut C) -> Flow<Self::Stop> {
        let _ = vcpu;
        Flow::Enter
    }

    /// Whether a vCPU held by [`Flow::Hold`] must keep waiting. Called when it is woken, perhaps on behalf of another vCPU.
    fn is_held(&mut self) -> bool {
        false
    }

    /// 8-bit `in`.
    fn inb(&mut self, port: u16) -> u8 {
        let _ = port;
        !0
    }

    /// 16-bit `in`.
    fn inw(&mut self, port: u16) -> u16 {
        let _ = port;
        !0
    }

    /// 32-bit `in`.
    fn inl(&mut self, port: u16) -> u32 {
        let _ = port;
        !0
    }

    /// 8-bit `out`.
    fn outb(&mut self, port: u16, value: u8) -> Flow<Self::Stop> {
        let _ = (port, value);
        Flow::Enter
    }

    /// 16-bit `out`.
    fn outw(&mut self, port: u16, value: u16) -> Flow<Self::Stop> {
        let _ = (port, value);
        Flow::Enter
    }

    /// 32-bit `out`.
    fn outl(&mut self, port: u16, value: u32) -> Flow<Self::Stop> {
        let _ = (port, value);
        Flow::Enter
    }

    /// `in` of 1, 2 or 4 bytes, to be stored in `data`.
    fn port_in(&mut self, port: u16, data: &mut [u8]) {
        match data {
            [byte] => *byte = self.inb(port),
            [_, _] => data.copy_from_slice(&self.inw(port).to_le_bytes()),
            [_, _, _, _] => data.copy_from_slice(&self.inl(port).to_le_bytes()),
            _ => data.fill(0xff),
        }
    }

    /// `out` of 1, 2 or 4 bytes.
    fn port_out(&mut self, port: u16, data: &[u8]) -> Flow<Self::Stop> {
        match *data {
            [byte] => self.outb(port, byte),
            [a, b] => self.outw(port, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.outl(port, u32::from_le_bytes([a, b, c, d])),
            _ => Flow::Enter,
        }
    }

    /// `ins`: several elements of `width` bytes each, to be stored in `data`. A single element is passed to
    /// [`port_in`](Self::port_in), and some KVMs exit for each element.
    fn string_in(&mut self, port: u16, width: usize, data: &mut [u8]) {
        data.chunks_mut(width).for_each(|element| self.port_in(port, element));
    }

    /// `outs`: several elements of `width` bytes each, as for [`string_in`](Self::string_in). The guest has already written all
    /// of them, so a hold takes effect only after the last one. A stop takes effect at once.
    fn string_out(&mut self, port: u16, width: usize, data: &[u8]) -> Flow<Self::Stop> {
        let mut flow = Flow::Enter;
        for element in data.chunks(width) {
            flow = flow.and(self.port_out(port, element));
            if let Flow::Stop(_) = flow {
                break;
            }
        }
        flow
    }

    /// A load of 1 to 8 bytes from an address without memory, to be stored in `data`.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        let _ = gpa;
        data.fill(0xff);
    }

    /// A store of 1 to 8 bytes to an address without memory, or with read-only memory.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<Self::Stop> {
        let _ = (gpa, data);
        Flow::Enter
    }

    /// `hlt`, which exits only on a machine without in-kernel interrupt controllers. `None` ends the vCPU with
    /// [`End::Halted`](crate::End::Halted).
    fn halt(&mut self, vcpu: &mut C) -> Option<Flow<Self::Stop>> {
        let _ = vcpu;
        None
    }

    /// A triple fault. `None` ends the vCPU with [`End::Crashed`](crate::End::Crashed).
    fn shutdown(&mut self, vcpu: &mut C) -> Option<Flow<Self::Stop>> {
        let _ = vcpu;
        None
    }

    /// The guest is ready for an interrupt, as requested by [`KvmVcpu::request_interrupt_window`]. The next
    /// [`before_run`](Self::before_run) can inject one.
    fn interrupt_window(&mut self, vcpu: &mut C) -> Flow<Self::Stop> {
        let _ = vcpu;
        Flow::Enter
    }

    /// The instruction at `rip` has read or written the task priority register of the in-kernel local APIC. Enabled by
    /// [`KvmVcpu::report_tpr_access`]. The access itself is complete.
    fn tpr_access(&mut self, vcpu: &mut C, rip: u64, is_write: bool) -> Flow<Self::Stop> {
        let _ = (vcpu, rip, is_write);
        Flow::Enter
    }

    /// The guest has lowered CR8 to this value, on a machine without in-kernel interrupt controllers. An interrupt that was
    /// masked by priority may now be deliverable.
    fn tpr_lowered(&mut self, vcpu: &mut C, cr8: u64) -> Flow<Self::Stop> {
        let _ = (vcpu, cr8);
        Flow::Enter
    }

    /// A breakpoint or the end of a single step, as set by [`KvmVcpu::set_breakpoints`] or [`KvmVcpu::set_single_step`].
    /// `None` ends the vCPU with [`End::Crashed`](crate::End::Crashed).
    fn debug(&mut self, vcpu: &mut C, stop: DebugStop) -> Option<Flow<Self::Stop>> {
        let _ = (vcpu, stop);
        None
    }
}
