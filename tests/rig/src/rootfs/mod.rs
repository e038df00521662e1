//! Root file systems for a guest's disk: bootable ext4 images with a login, where root's password is root.
//! They are built without root.
//!
//! [`Assets::rootfs`](crate::Assets::rootfs) returns one to copy,
//! [`Assets::build_rootfs`](crate::Assets::build_rootfs) builds one at a given path, and
//! [`Assets::disk_initrd`](crate::Assets::disk_initrd) is the initramfs that boots them.

mod busybox;
mod debian;
mod ext4;
pub mod fio;
mod initrd;
mod kind;
pub(crate) mod newest_libc;
pub mod programs;
mod tools;

use std::path::{Path, PathBuf};

pub use debian::try_package;
pub(crate) use debian::{
    RECIPE as DEBIAN_RECIPE, build_tar as build_debian_tar, copy_boot_files as copy_debian_boot_files,
};
pub(crate) use initrd::{initramfs as disk_initramfs, inputs as disk_initrd_inputs};
pub use kind::Rootfs;
pub(crate) use programs::Programs;

use crate::assets::Assets;
use crate::error::Result;
use crate::run_dir::RunDir;

impl Assets {
    /// A pristine root file system of the default length, built on first use. Guests must use a copy with
    /// holes preserved (`cp --sparse=always`), because writing to this file would spoil it for others.
    pub fn rootfs(&self, rootfs: Rootfs) -> Result<PathBuf> {
        let inputs = rootfs.inputs(self)?;
        self.large(rootfs.name(), "ext4", &inputs, |path| rootfs.build(self, rootfs.default_len(), path))
    }

    /// Builds a root file system of `len` bytes as the file `path`, replacing what is there. The slow part,
    /// the packages of [`Rootfs::Debian`], is cached.
    pub fn build_rootfs(&self, rootfs: Rootfs, len: u64, path: &Path) -> Result<()> {
        rootfs.build(self, len, path)
    }
}

impl Rootfs {
    /// Everything the image depends on, to identify images in the cache.
    fn inputs(self, assets: &Assets) -> Result<Vec<String>> {
        let mut inputs = match self {
            Self::Busybox => busybox::inputs(&assets.busybox()?)?,
            Self::Debian => debian::RECIPE.iter().copied().map(str::to_owned).collect(),
            Self::Fio => [busybox::inputs(&assets.busybox()?)?, fio::inputs()].concat(),
        };
        inputs.push(ext4::OPTIONS.join(" "));
        inputs.push(self.default_len().to_string());
        Ok(inputs)
    }

    /// Builds the image `path` of `len` bytes atomically.
    fn build(self, assets: &Assets, len: u64, path: &Path) -> Result<()> {
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
