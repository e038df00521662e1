//! The rig's outer machine seen from inside: the initramfs that makes the host's root its own.

use std::path::Path;

use crate::error::Result;
use crate::initramfs::Initramfs;
use crate::kernels::Kernel;

/// The first process.
const INIT: &str = include_str!("outer-init.sh");

/// Without these there's no console, no root and no /dev/kvm.
const REQUIRED: [&str; 6] = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "kvm-amd"];
/// What tests of devices use; a kernel without one of them still makes a rig.
const OPTIONAL: [&str; 5] = ["tun", "vhost_net", "vhost_vsock", "veth", "bridge"];

/// What the initramfs depends on but for Busybox.
pub(crate) fn inputs(release: &str) -> Vec<&str> {
    [&[INIT, release], &REQUIRED[..], &OPTIONAL].concat()
}

/// The initramfs for `kernel`, with the static `busybox`.
pub(crate) fn initramfs(busybox: &Path, kernel: &Kernel) -> Result<Initramfs> {
    Initramfs::new(busybox, INIT)?.modules(&kernel.modules_with(&REQUIRED, &OPTIONAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One in the cache without a module that was added since would be taken for ever.
    #[test]
    fn inputs_have_every_module() {
        assert!(REQUIRED.iter().chain(&OPTIONAL).all(|module| inputs("6.1").contains(module)));
    }
}
