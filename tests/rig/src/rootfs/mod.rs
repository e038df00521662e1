//! Root file systems for a guest's disk: ext4 images that start on their own and ask for a login, root with the password
//! root. Nobody needs to be root to build one.
//!
//! [`Assets::rootfs`](crate::Assets::rootfs) gives one to copy, [`Assets::build_rootfs`](crate::Assets::build_rootfs)
//! builds one where it's wanted, and [`Assets::disk_initrd`](crate::Assets::disk_initrd) is what boots them.

mod busybox;
mod debian;
mod ext4;
pub mod fio;
mod initrd;
pub mod programs;
mod tools;

use std::path::{Path, PathBuf};

pub(crate) use debian::{RECIPE as DEBIAN_RECIPE, build_tar as build_debian_tar};
pub(crate) use initrd::{initramfs as disk_initramfs, inputs as disk_initrd_inputs};
pub(crate) use programs::Programs;

use crate::assets::Assets;
use crate::error::Result;
use crate::run_dir::RunDir;

/// The label of every image's file system: `root=LABEL=rootfs` finds it whatever the disk is called.
const LABEL: &str = "rootfs";

/// SHA-512 crypt of "root", which Busybox and every libcrypt know: `openssl passwd -6 -salt vmmrootfs root`.
const ROOT_PASSWORD: &str =
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

    /// Whatever the image depends on, to tell images in the cache apart.
    pub(crate) fn inputs(self, assets: &Assets) -> Result<Vec<String>> {
        let mut inputs = match self {
            Self::Busybox => busybox::inputs(&assets.busybox()?)?,
            Self::Debian => debian::RECIPE.iter().copied().map(str::to_owned).collect(),
            Self::Fio => [busybox::inputs(&assets.busybox()?)?, fio::inputs()].concat(),
        };
        inputs.push(ext4::OPTIONS.join(" "));
        inputs.push(self.default_len().to_string());
        Ok(inputs)
    }

    /// Builds the image `path` of `len` bytes; it appears whole or not.
    pub(crate) fn build(self, assets: &Assets, len: u64, path: &Path) -> Result<()> {
        let run_dir = RunDir::create(&assets.runs_dir())?;
        let tree = run_dir.path().join("root");
        match self {
            Self::Busybox => {
                busybox::write_tree(&assets.busybox()?, &tree)?;
                ext4::from_tree(&tree, len, path)
            }
            Self::Debian => ext4::from_tar(&assets.debian_tar()?, &tree, len, path),
            Self::Fio => {
                busybox::write_tree(&assets.busybox()?, &tree)?;
                fio::write_tree(&assets.fio()?, &tree)?;
                ext4::from_tree(&tree, len, path)
            }
        }
    }
}

/// What a file is called until it's whole. Its own name comes first, by which the cache finds what an interrupted process
/// left.
fn part_of(path: &Path) -> PathBuf {
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
