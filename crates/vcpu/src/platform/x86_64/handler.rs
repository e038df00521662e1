//! Who answers the guest's exits.

use vmm_kvm::{DebugStop, KvmVcpu};

use crate::{Entry, Flow};

/// The call-backs of a run loop, one for each kind of exit. Implement those that you need: each has a default, which is
/// what an empty machine does. Reads give ones, and writes are lost.
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
/// An arrow to the right is what the default does. So a machine with ports of one byte implements `inb` and `outb`, a bus
/// `port_in` and `port_out`, and only who cares for strings as such sees them whole.
///
/// Readers of code for libkvm find its call-backs here:
///
/// | libkvm | here |
/// |---|---|
/// | `inb`, `inw`, `inl`, `outb`, `outw`, `outl`, `mmio_read`, `mmio_write`, `halt`, `shutdown`, `debug`, `tpr_access` | the same name |
/// | `pre_kvm_run`, `post_kvm_run` | [`before_run`](Self::before_run), [`after_run`](Self::after_run) |
/// | `try_push_interrupts` | [`before_run`](Self::before_run), with [`KvmVcpu::is_ready_for_interrupt`], [`KvmVcpu::interrupt`] and [`KvmVcpu::request_interrupt_window`] |
/// | `try_push_nmi` | [`before_run`](Self::before_run), with [`KvmVcpu::nmi`] |
/// | `io_window` | [`interrupt_window`](Self::interrupt_window) when the guest can take an interrupt; [`after_run`](Self::after_run) when a signal ended KVM_RUN |
///
/// `C` is the processor. It is handed to the call-backs that may look at it: its registers are those after the exit, with
/// the instruction of a port or MMIO access not yet complete.
pub trait ExitHandler<C = KvmVcpu>: Send {
    /// Why this handler ends a guest; `()` if that needs no words.
    type Stop: Send + 'static;

    /// Right before each KVM_RUN. A monitor with its own interrupt controller injects here what is due.
    fn before_run(&mut self, vcpu: &mut C) {
        let _ = vcpu;
    }

    /// How the KVM_RUN that comes now is entered.
    fn entry(&mut self) -> Entry {
        Entry::Guest
    }

    /// After each KVM_RUN, when another call-back has answered the exit. Also after one that no other call-back sees, such as an
    /// interruption.
    fn after_run(&mut self, vcpu: &mut C) -> Flow<Self::Stop> {
        let _ = vcpu;
        Flow::Enter
    }

    /// A vCPU that [`Flow::Hold`] keeps out of the guest was woken, perhaps for another's sake. Whether it must go on waiting.
    fn is_held(&mut self) -> bool {
        false
    }

    /// `in` of 8 bits.
    fn inb(&mut self, port: u16) -> u8 {
        let _ = port;
        !0
    }

    /// `in` of 16 bits.
    fn inw(&mut self, port: u16) -> u16 {
        let _ = port;
        !0
    }

    /// `in` of 32 bits.
    fn inl(&mut self, port: u16) -> u32 {
        let _ = port;
        !0
    }

    /// `out` of 8 bits.
    fn outb(&mut self, port: u16, value: u8) -> Flow<Self::Stop> {
        let _ = (port, value);
        Flow::Enter
    }

    /// `out` of 16 bits.
    fn outw(&mut self, port: u16, value: u16) -> Flow<Self::Stop> {
        let _ = (port, value);
        Flow::Enter
    }

    /// `out` of 32 bits.
    fn outl(&mut self, port: u16, value: u32) -> Flow<Self::Stop> {
        let _ = (port, value);
        Flow::Enter
    }

    /// `in`: fill `data`, which has 1, 2 or 4 bytes.
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

    /// `ins`: fill `data`, which is several accesses of `width` bytes, one after the other. A string of one element is no
    /// string but a [`port_in`](Self::port_in), and some KVMs give an exit for each element.
    fn string_in(&mut self, port: u16, width: usize, data: &mut [u8]) {
        data.chunks_mut(width).for_each(|element| self.port_in(port, element));
    }

    /// `outs`, as for [`string_in`](Self::string_in). All of it has left the guest, so that a hold waits for its end; a stop
    /// doesn't.
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

    /// A load from an address without memory: fill `data`, which has 1 to 8 bytes.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        let _ = gpa;
        data.fill(0xff);
    }

    /// A store of 1 to 8 bytes to an address without memory.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> Flow<Self::Stop> {
        let _ = (gpa, data);
        Flow::Enter
    }

    /// `hlt`, which leaves a guest only on a machine without in-kernel interrupt controllers. `None` ends it with
    /// [`End::Halted`](crate::End::Halted).
    fn halt(&mut self, vcpu: &mut C) -> Option<Flow<Self::Stop>> {
        let _ = vcpu;
        None
    }

    /// A triple fault. `None` ends the guest with [`End::Crashed`](crate::End::Crashed).
    fn shutdown(&mut self, vcpu: &mut C) -> Option<Flow<Self::Stop>> {
        let _ = vcpu;
        None
    }

    /// The guest can take an interrupt, which [`KvmVcpu::request_interrupt_window`] has asked for. The next
    /// [`before_run`](Self::before_run) can inject one.
    fn interrupt_window(&mut self, vcpu: &mut C) -> Flow<Self::Stop> {
        let _ = vcpu;
        Flow::Enter
    }

    /// The instruction at `rip` has read or written the task priority register of the in-kernel local APIC, which
    /// [`KvmVcpu::report_tpr_access`] has asked for. The access itself is complete.
    fn tpr_access(&mut self, vcpu: &mut C, rip: u64, is_write: bool) -> Flow<Self::Stop> {
        let _ = (vcpu, rip, is_write);
        Flow::Enter
    }

    /// The guest has lowered CR8 to this value on a machine without in-kernel interrupt controllers: an interrupt that had to
    /// wait may be due.
    fn tpr_lowered(&mut self, vcpu: &mut C, cr8: u64) -> Flow<Self::Stop> {
        let _ = (vcpu, cr8);
        Flow::Enter
    }

    /// A breakpoint or the end of a single step, which [`KvmVcpu::set_breakpoints`] or [`KvmVcpu::set_single_step`] has asked
    /// for. `None` ends the guest with [`End::Crashed`](crate::End::Crashed).
    fn debug(&mut self, vcpu: &mut C, stop: DebugStop) -> Option<Flow<Self::Stop>> {
        let _ = (vcpu, stop);
        None
    }
}
