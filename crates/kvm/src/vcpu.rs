//! A vCPU: entering the guest and decoding its exits.
#![allow(unsafe_code)] // Exit data is in the page shared with the kernel.

use std::sync::{Arc, Mutex};

use kvm_bindings::{KVM_INTERNAL_ERROR_EMULATION, kvm_cpuid_entry2, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::error::Named;
use crate::guest_memory::GuestMemory;
use crate::x86_64::{GuestDebug, StateLens};
use crate::{EmulationFailure, Error, Exit, ImmediateExit};

/// KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES: KVM provides the instruction's bytes.
const EMULATION_HAS_INSTRUCTION: u64 = 1;

/// A vCPU.
#[derive(Debug)]
pub struct KvmVcpu {
    pub(crate) fd: VcpuFd,
    immediate_exit: Arc<ImmediateExit>,
    /// The debug settings last set.
    pub(crate) guest_debug: GuestDebug,
    /// The CPUID that was set, if one was.
    pub(crate) given_cpuid: Mutex<Option<Vec<kvm_cpuid_entry2>>>,
    /// Lengths of state components that depend on the host.
    pub(crate) lens: StateLens,
    /// Guest memory, kept mapped while the vCPU exists.
    pub(crate) memory: GuestMemory,
}

/// An exit without its borrow, so that the page can be accessed again.
enum Raw {
    PortIn(u16, *mut u8, usize),
    PortOut(u16, *const u8, usize),
    TprAccess,
    TprLowered,
    InternalError,
}

/// How often KVM_RUN may return EAGAIN in a row.
const ATTEMPTS: u32 = 100;

impl KvmVcpu {
    pub(crate) fn new(fd: VcpuFd, memory: GuestMemory, lens: StateLens) -> Result<Self, Error> {
        let immediate_exit = Arc::new(ImmediateExit::new(&fd)?);
        let given_cpuid = Mutex::new(None);
        Ok(Self { fd, immediate_exit, guest_debug: GuestDebug::default(), given_cpuid, lens, memory })
    }

    /// The flag by which other threads make [`run`](Self::run) return.
    pub fn immediate_exit(&self) -> &Arc<ImmediateExit> {
        &self.immediate_exit
    }

    /// Enters the guest and runs it until an exit that the caller has to handle.
    ///
    /// It first completes the access of the previous exit. Always call it on the same thread, as KVM
    /// requires.
    ///
    /// # Errors
    /// KVM_RUN failed for a reason other than an interruption; with EAGAIN if the host has no thread for KVM.
    pub fn run(&mut self) -> Result<Exit<'_>, Error> {
        let mut attempts = 0;
        loop {
            // Most exits return from inside the match; the others have to access the page again, which
            // VcpuExit borrows. The lifetime is erased because the compiler would otherwise extend a
            // conditionally returned borrow to the whole loop.
            let fd: *mut VcpuFd = &raw mut self.fd;
            // SAFETY: `fd` points to `self.fd`, which is borrowed exclusively while the returned Exit lives.
            // This reference isn't used after another one is made from `fd` or `self`.
            let fd: &mut VcpuFd = unsafe { &mut *fd };
            let raw = match fd.run() {
                Ok(VcpuExit::IoIn(port, data)) => Raw::PortIn(port, data.as_mut_ptr(), data.len()),
                Ok(VcpuExit::IoOut(port, data)) => Raw::PortOut(port, data.as_ptr(), data.len()),
                Ok(VcpuExit::MmioRead(gpa, data)) => return Ok(Exit::MmioRead { gpa, data }),
                Ok(VcpuExit::MmioWrite(gpa, data)) => return Ok(Exit::MmioWrite { gpa, data }),
                Ok(VcpuExit::Hlt) => return Ok(Exit::Halt),
                Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
                Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
                Ok(VcpuExit::Debug(debug)) => return Ok(Exit::Debug(self.guest_debug.stop(debug))),
                Ok(VcpuExit::FailEntry(reason, _)) => return Ok(Exit::EntryFailure { reason }),
                Ok(VcpuExit::IrqWindowOpen) => return Ok(Exit::InterruptWindow),
                Ok(VcpuExit::TprAccess) => Raw::TprAccess,
                Ok(VcpuExit::SetTpr) => Raw::TprLowered,
                Ok(VcpuExit::InternalError) => Raw::InternalError,
                Ok(_) => return Ok(Exit::Other { reason: self.page().exit_reason }),
                Err(e) if e.errno() == libc::EINTR => return Ok(Exit::Interrupted),
                // The first KVM_RUN of a vCPU that waits for INIT returns EAGAIN when INIT arrives. Each does if it can't start
                // the thread that recovers huge pages (kvm-nx-lpage-recovery), which the first vCPU of a VM needs.
                Err(e) if e.errno() == libc::EAGAIN && attempts < ATTEMPTS => {
                    attempts += 1;
                    continue;
                }
                Err(e) => return Err(e).named("KVM_RUN"),
            };
            return Ok(self.decode(raw));
        }
    }

    /// Completes the access of the previous exit without entering the guest: KVM_RUN with `immediate_exit`.
    /// If it returns [`Exit::Interrupted`], the access is complete and the registers are those after the
    /// instruction. Any other exit is the instruction's next access or the end of a single step; handle it
    /// like an exit of [`run`](Self::run).
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub fn complete_access(&mut self) -> Result<Exit<'_>, Error> {
        let flag = Arc::clone(&self.immediate_exit);
        let _completing = flag.complete_only();
        self.run()
    }

    pub(crate) fn page(&mut self) -> &mut kvm_run {
        self.fd.get_kvm_run()
    }

    fn decode(&mut self, raw: Raw) -> Exit<'_> {
        match raw {
            Raw::PortIn(port, data, len) => {
                let width = self.port_width();
                // SAFETY: kvm-ioctls has just returned this range of the shared mapping as a slice. The
                // mapping lives as long as `self.fd`, no other reference to that range exists, and the kernel
                // accesses it only inside KVM_RUN, which needs `&mut self`.
                let data = unsafe { std::slice::from_raw_parts_mut(data, len) };
                Exit::PortIn { port, width, data }
            }
            Raw::PortOut(port, data, len) => {
                let width = self.port_width();
                // SAFETY: as above.
                let data = unsafe { std::slice::from_raw_parts(data, len) };
                Exit::PortOut { port, width, data }
            }
            Raw::TprAccess => self.tpr_access(),
            Raw::TprLowered => Exit::TprLowered { cr8: self.page().cr8 },
            Raw::InternalError => self.internal_error(),
        }
    }

    /// Bytes per access of a port exit; never 0, whatever the kernel reports.
    fn port_width(&mut self) -> usize {
        // SAFETY: the exit reason was KVM_EXIT_IO, for which the kernel fills this member of the union.
        let io = unsafe { &self.page().__bindgen_anon_1.io };
        usize::from(io.size).max(1)
    }

    fn tpr_access(&mut self) -> Exit<'static> {
        // SAFETY: the exit reason was KVM_EXIT_TPR_ACCESS, for which the kernel fills this member of the union.
        let access = unsafe { &self.page().__bindgen_anon_1.tpr_access };
        Exit::TprAccess { rip: access.rip, is_write: access.is_write != 0 }
    }

    fn internal_error(&mut self) -> Exit<'static> {
        let page = self.page();
        // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, for which the kernel fills this member.
        let suberror = unsafe { page.__bindgen_anon_1.internal.suberror };
        if suberror != KVM_INTERNAL_ERROR_EMULATION {
            return Exit::InternalError { suberror };
        }
        // SAFETY: this member of the union overlays `internal` for this suberror; its fields are plain
        // integers.
        let failure = unsafe { &page.__bindgen_anon_1.emulation_failure };
        let has_bytes = failure.ndata > 1 && failure.flags & EMULATION_HAS_INSTRUCTION != 0;
        // SAFETY: the only member of this union.
        let instruction = unsafe { &failure.__bindgen_anon_1.__bindgen_anon_1 };
        let len = if has_bytes { instruction.insn_size.min(15).into() } else { 0 };
        let mut failure = EmulationFailure::new(&instruction.insn_bytes[..len]);
        if len == 0 {
            failure = EmulationFailure::new(&self.bytes_at_instruction_pointer());
        }
        Exit::EmulationFailure(failure)
    }
}
