//! `cargo xtask linux`: fetches a stock kernel, Busybox and its initramfs as files, for booting by hand.

use std::fs;
use std::process::ExitCode;

use rig::{Assets, KernelKind};

use crate::failure::Failure;
use crate::workspace;

/// Directory of the files, in the workspace. Their names there are the same for every version of the kernel.
const DIR: &str = "target/linux";

/// Fetches missing files, and prints the path of each, relative to the workspace, and its length.
pub(crate) fn run() -> Result<ExitCode, Failure> {
    let assets = Assets::at(workspace::root());
    let kernel = assets.kernel(KernelKind::Cloud61)?;
    let files = [
        ("vmlinuz", kernel.vmlinuz()),
        ("vmlinux", kernel.vmlinux()?),
        ("busybox", assets.busybox()?),
        ("initrd.gz", assets.guest_initrd()?),
    ];
    let dir = workspace::root().join(DIR);
    fs::create_dir_all(&dir).map_err(|error| format!("can't create {}: {error}", dir.display()))?;
    for (name, cached) in files {
        let path = dir.join(name);
        fs::copy(&cached, &path)
            .map_err(|error| format!("can't copy {} to {}: {error}", cached.display(), path.display()))?;
        workspace::print_file(&path)?;
    }
    Ok(ExitCode::SUCCESS)
}
