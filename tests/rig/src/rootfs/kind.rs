//! The kinds of root file systems, and their common properties.

use std::path::{Path, PathBuf};

/// Label of every image's file system: `root=LABEL=rootfs` finds it whatever the disk's name.
pub(super) const LABEL: &str = "rootfs";

/// SHA-512 crypt hash of "root", supported by Busybox and every libcrypt: `openssl passwd -6 -salt vmmrootfs
/// root`.
pub(super) const ROOT_PASSWORD: &str =
    "$6$vmmrootfs$gI8au6db/yRLD3w.7g8qF41uFLm2CFSRchU06SpWYtrPU./hBb/djSXXF4bLv97ypuI3tEN2.Vnc9DJaFFBkP1";

/// A root file system for tests, identified by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rootfs {
    /// Static Busybox alone: its init, getty on ttyS0, login, and acpid for the power button.
    Busybox,
    /// A minimal Debian of the host's release with systemd, udev and dbus. No network.
    Debian,
    /// The Busybox one with fio, for a guest whose second disk is tested or measured.
    Fio,
}

impl Rootfs {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Busybox, Self::Debian, Self::Fio];

    /// A short name, also the machine's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox",
            Self::Debian => "debian",
            Self::Fio => "fio",
        }
    }

    /// Default length of an image in bytes: its contents and space to write. Files are sparse.
    pub fn default_len(self) -> u64 {
        match self {
            // 2 MiB of Busybox, 4 MiB of journal.
            Self::Busybox => 64 << 20,
            // A third of it is used.
            Self::Debian => 1 << 30,
            // 83 MiB of fio, which has a library for each kind of storage.
            Self::Fio => 128 << 20,
        }
    }
}

/// Name of an incomplete file. It starts with the final name, so that the cache finds what an interrupted
/// process left.
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
        // An empty field, the method, the salt, and 512 bits in characters of six bits.
        assert_eq!(fields[..3], ["", "6", "vmmrootfs"]);
        assert_eq!(fields[3].len(), 86);
    }
}
