//! Interrupt injection, for monitors with their own interrupt controller.

use kvm_bindings::KVM_CAP_VAPIC;

use crate::error::Named;
use crate::{Error, Kvm, KvmVcpu, ioctls};

impl Kvm {
    /// Whether the host supports [`KvmVcpu::report_tpr_access`].
    pub fn has_tpr_access_reporting(&self) -> bool {
        self.capability(KVM_CAP_VAPIC) > 0
    }
}

impl KvmVcpu {
    /// Injects the external interrupt `vector`, which the guest takes at the next entry (KVM api.rst
    /// KVM_INTERRUPT).
    ///
    /// KVM holds one such interrupt per vCPU and ignores the guest's interrupt flag. Call it only if
    /// [`is_ready_for_interrupt`](Self::is_ready_for_interrupt) is true, and once per entry.
    ///
    /// # Errors
    /// The VM has in-kernel interrupt controllers, or the ioctl failed.
    pub fn interrupt(&self, vector: u8) -> Result<(), Error> {
        ioctls::interrupt(&self.fd, vector).map_err(|error| match error.errno() {
            libc::ENXIO => Error::InterruptControllerInKernel { vector },
            _ => Error::Ioctl { name: "KVM_INTERRUPT", source: error.into() },
        })
    }

    /// Injects a non-maskable interrupt, which the guest takes at the next entry unless it is handling an NMI
    /// (KVM api.rst KVM_NMI). Works with and without in-kernel interrupt controllers.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn nmi(&self) -> Result<(), Error> {
        self.fd.nmi().named("KVM_NMI")
    }

    /// Tells a guest that uses kvm-clock that this vCPU was paused, so that its watchdog doesn't report a
    /// soft lockup (KVM api.rst KVM_KVMCLOCK_CTRL). No effect on other guests.
    pub fn notify_pause(&self) {
        // EINVAL: the guest doesn't use kvm-clock. Other errors are harmless too.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Whether the guest could take an interrupt at its last exit: its interrupt flag was set, it was not in
    /// an interrupt shadow, and no interrupt was being delivered. False before the first run.
    pub fn is_ready_for_interrupt(&mut self) -> bool {
        self.page().ready_for_interrupt_injection != 0
    }

    /// The guest's interrupt flag at its last exit.
    pub fn interrupt_flag(&mut self) -> bool {
        self.page().if_flag != 0
    }

    /// Enables or disables [`Exit::InterruptWindow`](crate::Exit::InterruptWindow) exits as soon as the guest
    /// can take an interrupt. While enabled, every entry ends this way once the guest is ready; disable it
    /// when no interrupt is pending. No effect on a VM with in-kernel interrupt controllers.
    pub fn request_interrupt_window(&mut self, on: bool) {
        self.page().request_interrupt_window = on.into();
    }

    /// The guest's CR8, its task priority, at its last exit. For a monitor with its own local APIC.
    pub fn cr8(&mut self) -> u64 {
        self.page().cr8
    }

    /// Sets CR8 for the next entry. No effect on a VM with in-kernel interrupt controllers, which hold it
    /// themselves.
    pub fn set_cr8(&mut self, cr8: u64) {
        self.page().cr8 = cr8;
    }

    /// Enables or disables [`Exit::TprAccess`](crate::Exit::TprAccess) exits after memory-mapped accesses to
    /// the task priority register of the in-kernel local APIC (KVM api.rst KVM_TPR_ACCESS_REPORTING). A
    /// software KVM may report only the last of several accesses, when it stops emulating.
    ///
    /// # Errors
    /// The host's KVM doesn't support it ([`Kvm::has_tpr_access_reporting`]).
    pub fn report_tpr_access(&self, on: bool) -> Result<(), Error> {
        ioctls::report_tpr_access(&self.fd, on).named("KVM_TPR_ACCESS_REPORTING")
    }
}
