//! A root file system with only Busybox and a few text files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::kind::{ROOT_PASSWORD, Rootfs};
use crate::command::output_of;
use crate::error::{At, Result};
use crate::initramfs::{DHCP_SCRIPT, DHCP_SCRIPT_PATH};
use crate::stamp::stamp;

/// Directories and their permissions, parents first.
const DIRS: [(&str, u32); 20] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/acpi", 0o755),
    ("etc/acpi/PWRF", 0o755),
    ("etc/init.d", 0o755),
    ("etc/udhcpc", 0o755),
    ("mnt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/run", 0o755),
];

macro_rules! resource {
    ($name:literal) => {
        include_str!(concat!("../../../../resources/rootfs/busybox/", $name))
    };
}

/// Files with fixed contents.
const FILES: [(&str, u32, &str); 10] = [
    ("etc/inittab", 0o644, resource!("inittab")),
    ("etc/init.d/start", 0o755, resource!("start")),
    ("etc/init.d/stop", 0o755, resource!("stop")),
    // acpid looks here for the action when KEY_POWER is pressed.
    ("etc/acpi/PWRF/00000080", 0o755, resource!("power-button")),
    ("etc/passwd", 0o644, resource!("passwd")),
    ("etc/group", 0o644, resource!("group")),
    ("etc/fstab", 0o644, resource!("fstab")),
    ("etc/motd", 0o644, resource!("motd")),
    ("etc/profile", 0o644, resource!("profile")),
    (DHCP_SCRIPT_PATH, 0o755, DHCP_SCRIPT),
];

/// Everything the tree depends on.
pub(super) fn inputs(busybox: &Path) -> Result<Vec<String>> {
    let files = FILES.iter().map(|(path, permissions, text)| format!("{path} {permissions:o} {text}"));
    let dirs = DIRS.iter().map(|(path, permissions)| format!("{path} {permissions:o}"));
    Ok(dirs.chain(files).chain([shadow(), stamp(busybox)?]).collect())
}

/// Writes the tree to `root`, which must not exist, with the static `busybox`.
pub(super) fn write_tree(busybox: &Path, root: &Path) -> Result<()> {
    make_dir(root, 0o755)?;
    for (path, permissions) in DIRS {
        make_dir(&root.join(path), permissions)?;
    }
    let program = root.join("bin/busybox");
    fs::copy(busybox, &program).at("create", &program)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755)).at("change", &program)?;
    let applets = output_of(Command::new(busybox).arg("--list-full"))?;
    for applet in applets.lines().filter(|path| is_applet(path)) {
        let link = root.join(applet);
        symlink("/bin/busybox", &link).at("create", &link)?;
    }
    for (path, permissions, text) in FILES {
        write(&root.join(path), permissions, text)?;
    }
    write(&root.join("etc/shadow"), 0o600, &shadow())?;
    write(&root.join("etc/hostname"), 0o644, &format!("{}\n", Rootfs::Busybox.name()))
}

/// The list includes `linuxrc`, which kernels haven't run for twenty years.
fn is_applet(path: &str) -> bool {
    path.contains('/') && path != "bin/busybox"
}

/// The passwords were set 18262 days after 1970, and never expire.
fn shadow() -> String {
    format!("root:{ROOT_PASSWORD}:18262:0:99999:7:::\nnobody:*:18262:0:99999:7:::\n")
}

pub(super) fn make_dir(path: &Path, permissions: u32) -> Result<()> {
    fs::create_dir(path).at("create", path)?;
    fs::set_permissions(path, Permissions::from_mode(permissions)).at("change", path)
}

pub(super) fn write(path: &Path, permissions: u32, text: &str) -> Result<()> {
    fs::write(path, text).at("write", path)?;
    fs::set_permissions(path, Permissions::from_mode(permissions)).at("change", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file of the tree called `path`.
    fn file(path: &str) -> &'static str {
        FILES.iter().find(|(name, ..)| *name == path).expect("it's in the list").2
    }

    #[test]
    fn inittab_has_a_getty_on_the_serial_line() {
        assert!(
            file("etc/inittab")
                .lines()
                .any(|line| line == "ttyS0::respawn:/sbin/getty -L ttyS0 115200 vt100")
        );
    }

    #[test]
    fn inittab_names_the_scripts_that_are_there() {
        let inittab = file("etc/inittab");
        assert!(inittab.contains("::sysinit:/etc/init.d/start\n"));
        assert!(inittab.contains("::shutdown:/etc/init.d/stop\n"));
        assert!(!file("etc/init.d/start").is_empty() && !file("etc/init.d/stop").is_empty());
    }

    #[test]
    fn shadow_root_has_a_sha512_password() {
        let line = shadow().lines().next().unwrap().to_owned();
        let fields: Vec<&str> = line.split(':').collect();
        assert_eq!(fields.len(), 9);
        assert_eq!(fields[0], "root");
        assert!(fields[1].starts_with("$6$vmmrootfs$"));
    }

    #[test]
    fn applet_linuxrc_and_the_program_itself_are_left_out() {
        let list = ["bin/ash", "bin/busybox", "linuxrc", "sbin/init"];
        assert_eq!(list.map(is_applet), [true, false, false, true]);
    }
}
