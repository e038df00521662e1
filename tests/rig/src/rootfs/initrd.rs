//! The initramfs of a guest whose root is a disk.

use std::path::Path;

use crate::error::Result;
use crate::initramfs::Initramfs;
use crate::kernels::Kernel;

/// The first process.
const INIT: &str = include_str!("../../../../resources/rootfs/disk-init");

/// Without these there's no disk and no root.
const REQUIRED: [&str; 3] = ["virtio_mmio", "virtio_blk", "ext4"];
/// ext4 asks the kernel for a crc32c when it mounts, and there's no modprobe then; newer kernels have it built in, under
/// other names. The next two tell a user space that listens of the power button. The rest is for devices that a machine
/// may have: what is loaded here needs no modules on the disk.
const OPTIONAL: [&str; 7] = [
    "crc32c_generic",
    "button",
    "evdev",
    "virtio-rng",
    "virtio_balloon",
    "virtio_net",
    "vmw_vsock_virtio_transport",
];

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
