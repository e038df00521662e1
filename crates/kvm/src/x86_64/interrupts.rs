//! Interrupts by a monitor that has its own interrupt controller.

use kvm_bindings::KVM_CAP_VAPIC;

use crate::error::Named;
use crate::{Error, Kvm, KvmVcpu, ioctls};

impl Kvm {
    /// Whether [`KvmVcpu::report_tpr_access`] works here.
    pub fn has_tpr_access_reporting(&self) -> bool {
        self.capability(KVM_CAP_VAPIC) > 0
    }
}

impl KvmVcpu {
    /// Injects the external interrupt `vector`, which the guest takes when it is entered next (KVM api.rst KVM_INTERRUPT).
    ///
    /// KVM holds one such interrupt for each vCPU and doesn't look at the guest's interrupt flag. Call it only if
    /// [`is_ready_for_interrupt`](Self::is_ready_for_interrupt), and once for each entry.
    ///
    /// # Errors
    /// The VM has in-kernel interrupt controllers, or the ioctl failed.
    pub fn interrupt(&self, vector: u8) -> Result<(), Error> {
        ioctls::interrupt(&self.fd, vector).map_err(|error| match error.errno() {
            libc::ENXIO => Error::InterruptControllerInKernel { vector },
            _ => Error::Ioctl { name: "KVM_INTERRUPT", source: error.into() },
        })
    }

    /// Injects a non-maskable interrupt, which the guest takes when it is entered next unless an NMI is being handled (KVM
    /// api.rst KVM_NMI). With or without in-kernel interrupt controllers.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn nmi(&self) -> Result<(), Error> {
        self.fd.nmi().named("KVM_NMI")
    }

    /// Tells a guest that uses kvm-clock that this vCPU was paused, so that its watchdog doesn't report a hung processor (KVM api.rst
    /// KVM_KVMCLOCK_CTRL). No effect on other guests.
    pub fn notify_pause(&self) {
        // EINVAL: the guest doesn't use kvm-clock. Any other error is harmless too.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// Whether the guest could take an interrupt when it last left: its interrupt flag was set, no instruction held interrupts
    /// off, and none was being delivered. False before the first run.
    pub fn is_ready_for_interrupt(&mut self) -> bool {
        self.page().ready_for_interrupt_injection != 0
    }

    /// The guest's interrupt flag when it last left.
    pub fn interrupt_flag(&mut self) -> bool {
        self.page().if_flag != 0
    }

    /// Whether the guest leaves with [`Exit::InterruptWindow`](crate::Exit::InterruptWindow) as soon as it could take an
    /// interrupt. While this is on, every entry ends so once the guest is ready: switch it off when no interrupt waits. Without
    /// effect on a VM with in-kernel interrupt controllers.
    pub fn request_interrupt_window(&mut self, on: bool) {
        self.page().request_interrupt_window = on.into();
    }

    /// The guest's CR8, which is its task priority, when it last left. For a monitor with its own local APIC.
    pub fn cr8(&mut self) -> u64 {
        self.page().cr8
    }

    /// Sets CR8 for the next entry. Without effect on a VM with in-kernel interrupt controllers, which keep it themselves.
    pub fn set_cr8(&mut self, cr8: u64) {
        self.page().cr8 = cr8;
    }

    /// Whether the guest leaves with [`Exit::TprAccess`](crate::Exit::TprAccess) after it has accessed the task priority
    /// register of its in-kernel local APIC at its address in memory (KVM api.rst KVM_TPR_ACCESS_REPORTING). A software KVM
    /// may report only the last of several accesses, at the end of the stretch that it emulates.
    ///
    /// # Errors
    /// The host's KVM lacks it ([`Kvm::has_tpr_access_reporting`]).
    pub fn report_tpr_access(&self, on: bool) -> Result<(), Error> {
        ioctls::report_tpr_access(&self.fd, on).named("KVM_TPR_ACCESS_REPORTING")
    }
}
