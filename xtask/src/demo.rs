//! `cargo xtask demo`: boots a Linux guest to its prompt, starting from a fresh checkout.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rig::{Assets, KernelKind, Rig, Rootfs, note};
use serde_json::json;

use crate::failure::{Failure, exit_code};
use crate::{rig_shell, workspace};

/// `reboot=k` makes a reboot reset the machine through the keyboard controller, which ends the guest; with `panic=-1` a panic reboots
/// at once.
const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";
const MEMORY: &str = "256M";
/// Enough for systemd, udev, dbus and logind besides the kernel and an initramfs.
const DISK_MEMORY: &str = "512M";
/// The stock kernel. Its modules are in the initramfs that mounts a disk.
const KERNEL: KernelKind = KernelKind::Cloud61;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Boot this kernel (ELF or bzImage) instead of a stock one
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,
    /// Boot this initramfs instead of the Busybox one
    #[arg(long, value_name = "PATH")]
    initrd: Option<PathBuf>,
    /// Boot from a disk image; log in as root with the password root. Changes to the disk are discarded at the end
    #[arg(long, value_name = "busybox|debian", value_parser = parse_disk, conflicts_with_all = ["kernel", "initrd"])]
    disk: Option<Rootfs>,
    /// Use the rig even if this host's KVM runs Linux
    #[arg(long, conflicts_with = "no_rig")]
    rig: bool,
    /// Don't use the rig, even if this host's KVM can't run Linux
    #[arg(long)]
    no_rig: bool,
    /// Append words to the kernel command line; QUIT makes the Busybox guest reboot instead of starting a shell
    #[arg(long, value_name = "WORDS")]
    append: Option<String>,
    /// Run this monitor instead of building vmm-bin
    #[arg(long, value_name = "PATH")]
    monitor: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let assets = Assets::at(workspace::root());
    let config = write_config(arguments, &assets)?;
    let monitor = match &arguments.monitor {
        Some(path) => readable(path)?,
        None => workspace::build_monitor(),
    };
    let command = [monitor.into_os_string(), OsString::from("--config"), config.into_os_string()];
    if use_rig(arguments) {
        let outcome = rig_shell::run_in(Rig::new(&assets), &command)?;
        return Ok(exit_code(outcome.exit_code));
    }
    note("starting the guest (Ctrl-A x ends it)");
    let status = Command::new(&command[0]).args(&command[1..]).status()?;
    // Without an exit code, a signal killed the monitor.
    Ok(exit_code(status.code().unwrap_or(128)))
}

/// Whether the guest runs in the rig; if so, prints why.
fn use_rig(arguments: &Arguments) -> bool {
    if arguments.no_rig {
        return false;
    }
    match rig::reason_for_rig() {
        None if arguments.rig => note("starting the guest in the rig as requested (Ctrl-A x ends it)"),
        None => return false,
        Some(reason) => note(&format!("{reason}; starting the guest in the rig (Ctrl-A x ends it)")),
    }
    true
}

fn write_config(arguments: &Arguments, assets: &Assets) -> Result<PathBuf, Failure> {
    let kernel = match &arguments.kernel {
        Some(path) => readable(path)?,
        None => stock_kernel(assets)?,
    };
    let initrd = match (&arguments.initrd, arguments.disk) {
        (Some(path), _) => readable(path)?,
        (None, Some(_)) => assets.disk_initrd(KERNEL)?,
        (None, None) => assets.guest_initrd()?,
    };
    let mut cmdline = CMDLINE.to_owned();
    let (mut memory, mut devices) = (MEMORY, json!([]));
    if let Some(disk) = arguments.disk {
        cmdline += " root=/dev/vda rw";
        memory = DISK_MEMORY;
        // All guests share the image; each writes to its own overlay.
        let image = json!({ "type": "block", "id": "root", "path": assets.rootfs(disk)?, "overlay": "temp" });
        devices = json!([image, { "type": "rng" }, { "type": "balloon" }]);
    }
    if let Some(words) = &arguments.append {
        cmdline += &format!(" {words}");
    }
    let config = json!({
        "boot": { "kernel": kernel, "initrd": initrd, "cmdline": cmdline },
        "memory": { "size": memory },
        "cpus": { "count": 1 },
        "devices": devices,
    });
    let dir = workspace::root().join("target/demo");
    let path = dir.join("vm.json");
    fs::create_dir_all(&dir).map_err(|error| format!("can't create {}: {error}", dir.display()))?;
    fs::write(&path, format!("{config:#}\n"))
        .map_err(|error| format!("can't write {}: {error}", path.display()))?;
    note(&format!("kernel {}", kernel.display()));
    note(&format!("config {}", path.display()));
    Ok(path)
}

/// Debian's cloud kernel, or, if it can't be fetched, one installed on this host.
fn stock_kernel(assets: &Assets) -> Result<PathBuf, Failure> {
    match assets.kernel(KERNEL) {
        Ok(kernel) => Ok(kernel.vmlinuz()),
        Err(error) => {
            let installed = installed_kernel(Path::new("/boot")).ok_or_else(|| {
                format!(
                    "{error}; and there is no readable /boot/vmlinuz-*: specify a kernel with --kernel PATH"
                )
            })?;
            note(&format!("{error}; using {} instead", installed.display()));
            Ok(installed)
        }
    }
}

/// The readable kernel in `boot` whose name sorts last.
fn installed_kernel(boot: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(boot).ok()?.flatten().map(|entry| entry.path());
    let kernels = entries.filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
            && fs::File::open(path).is_ok()
    });
    kernels.max()
}

/// The absolute path of an existing file, since paths in the config and in the rig aren't relative to our current directory.
fn readable(path: &Path) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|error| format!("can't open {}: {error}", path.display()).into())
}

fn parse_disk(text: &str) -> Result<Rootfs, String> {
    let disks = [Rootfs::Busybox, Rootfs::Debian];
    let expected = || "expected busybox or debian".to_owned();
    disks.into_iter().find(|disk| disk.name() == text).ok_or_else(expected)
}
