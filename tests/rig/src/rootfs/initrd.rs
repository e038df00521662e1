//! The initramfs of a guest with its root on a disk.

use std::path::Path;

use crate::error::Result;
use crate::initramfs::Initramfs;
use crate::kernels::Kernel;

/// The first process.
const INIT: &str = include_str!("../../../../resources/rootfs/disk-init");

/// Required for the disk and its root.
const REQUIRED: [&str; 4] = ["virtio_pci", "virtio_mmio", "virtio_blk", "ext4"];
/// ext4 requests a crc32c from the kernel when it mounts, and there is no modprobe then; newer kernels have
/// it built in under other names. The next two report the power button to user space. The rest is for
/// optional devices of a machine: with these, the disk needs no modules.
const OPTIONAL: [&str; 7] = [
    "crc32c_generic",
    "button",
    "evdev",
    "virtio-rng",
    "virtio_balloon",
    "virtio_net",
    "vmw_vsock_virtio_transport",
];

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
