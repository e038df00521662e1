//! Which root file systems there are, and what all of them have.

use std::path::{Path, PathBuf};

/// The label of every image's file system: `root=LABEL=rootfs` finds it whatever the disk is called.
pub(super) const LABEL: &str = "rootfs";

/// SHA-512 crypt of "root", which Busybox and every libcrypt know: `openssl passwd -6 -salt vmmrootfs root`.
pub(super) const ROOT_PASSWORD: &str =
    "$6$vmmrootfs$gI8au6db/yRLD3w.7g8qF41uFLm2CFSRchU06SpWYtrPU./hBb/djSXXF4bLv97ypuI3tEN2.Vnc9DJaFFBkP1";

/// A root file system that tests name by what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// Static Busybox alone: its init, getty on ttyS0, login, and acpid for the power button.
    Busybox,
    /// A minimal Debian, of the host's release, with systemd, udev and dbus. No network.
    Debian,
    /// The Busybox one with fio, for a guest whose second disk is tried or measured.
    Fio,
}

impl Rootfs {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Busybox, Self::Debian, Self::Fio];

    /// A short name, also that of the machine.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox",
            Self::Debian => "debian",
            Self::Fio => "fio",
        }
    }

    /// The length of an image in bytes, where nobody wishes another: what's in it and room to write. Files are sparse.
    pub fn default_len(self) -> u64 {
        match self {
            // 2 MiB of Busybox, 4 MiB of journal.
            Self::Busybox => 64 << 20,
            // A third of it is in use.
            Self::Debian => 1 << 30,
            // 83 MiB of fio, which can do with disks of every kind and has a library for each.
            Self::Fio => 128 << 20,
        }
    }
}

/// What a file is called until it's whole. Its own name comes first, by which the cache finds what an interrupted process
/// left.
pub(super) fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_keeps_directory_and_name() {
        let part = part_of(Path::new("/tmp/disk.ext4"));
        assert_eq!(part, PathBuf::from(format!("/tmp/disk.ext4.{}.part", std::process::id())));
    }

    #[test]
    fn root_password_is_sha512_crypt_as_openssl_makes_it() {
        let fields: Vec<&str> = ROOT_PASSWORD.split('$').collect();
        // Nothing, the method, the salt, and 512 bits with six in each character.
        assert_eq!(fields[..3], ["", "6", "vmmrootfs"]);
        assert_eq!(fields[3].len(), 86);
    }
}
