//! The initramfs of the outer machine, which uses the host's root as its own.

use std::path::Path;

use crate::error::Result;
use crate::initramfs::Initramfs;
use crate::kernels::Kernel;

/// The first process.
const INIT: &str = include_str!("outer-init.sh");

/// Required for console, root and /dev/kvm.
const REQUIRED: [&str; 6] = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay", "kvm-amd"];
/// Used by device tests; the rig also works without them.
const OPTIONAL: [&str; 5] = ["tun", "vhost_net", "vhost_vsock", "veth", "bridge"];

/// Inputs of the initramfs besides Busybox.
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

    /// Otherwise a cached initramfs would lack modules added later.
    #[test]
    fn inputs_have_every_module() {
        assert!(REQUIRED.iter().chain(&OPTIONAL).all(|module| inputs("6.1").contains(module)));
    }
}
