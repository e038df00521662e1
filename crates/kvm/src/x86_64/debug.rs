//! Stopping a guest behind each instruction.

use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};

use crate::error::Named;
use crate::{Error, KvmVcpu};

impl KvmVcpu {
    /// Whether the vCPU comes back with [`Exit::Debug`](crate::Exit::Debug) behind each instruction from now on.
    ///
    /// # Errors
    /// The ioctl failed.
    pub fn set_single_step(&self, on: bool) -> Result<(), Error> {
        let control = if on { KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP } else { 0 };
        let debug = kvm_guest_debug { control, ..Default::default() };
        self.fd.set_guest_debug(&debug).named("KVM_SET_GUEST_DEBUG")
    }
}
