//! Builds initramfs images: static Busybox, its applets, an init script, additional files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::command::output_of;
use crate::error::{At, Error, Result};
use crate::kernels::Module;
use crate::newc::Archive;

/// The first process of a guest: prints a line that starts with `INIT-UP `, then runs a shell on the console.
pub const GUEST_INIT: &str = include_str!("../../../resources/busybox/init");

/// The script of Busybox's DHCP client, and its path.
pub(crate) const DHCP_SCRIPT: &str = include_str!("../../../resources/busybox/udhcpc");
pub(crate) const DHCP_SCRIPT_PATH: &str = "etc/udhcpc/default.script";

/// Directory of the files of [`Initramfs::modules`], numbered in load order.
pub const MODULE_DIR: &str = "modules";

const DIRS: [&str; 10] = ["bin", "dev", "etc", "etc/udhcpc", "mnt", "proc", "root", "sys", "tmp", "var"];

/// An initramfs under construction.
#[derive(Debug)]
pub struct Initramfs {
    archive: Archive,
}

impl Initramfs {
    /// Common inputs of all images, besides Busybox.
    pub(crate) const INPUTS: [&str; 2] = [DHCP_SCRIPT_PATH, DHCP_SCRIPT];

    /// A Busybox system whose first process is the script `init`. `busybox` must be statically linked,
    /// because there are no libraries.
    pub fn new(busybox: &Path, init: &str) -> Result<Self> {
        let binary = fs::read(busybox).at("read", busybox)?;
        if !is_static(&binary) {
            return Err(Error::format(
                busybox.display().to_string(),
                "not a statically linked x86-64 program",
            ));
        }
        let mut archive = Archive::new();
        DIRS.iter().for_each(|dir| archive.dir(dir, 0o755));
        // The kernel opens the console for the first process before anything is mounted.
        archive.char_device("dev/console", 0o600, (5, 1));
        archive.char_device("dev/null", 0o666, (1, 3));
        archive.file("bin/busybox", 0o755, &binary);
        let applets = output_of(Command::new(busybox).arg("--list"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            archive.symlink(&format!("bin/{applet}"), "busybox");
        }
        archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\n");
        archive.file(DHCP_SCRIPT_PATH, 0o755, DHCP_SCRIPT.as_bytes());
        archive.file("init", 0o755, init.as_bytes());
        Ok(Self { archive })
    }

    /// Adds a directory.
    pub fn dir(mut self, path: &str) -> Self {
        self.archive.dir(path, 0o755);
        self
    }

    /// Adds a file, whose directory must have been added before.
    pub fn file(mut self, path: &str, permissions: u32, contents: &[u8]) -> Self {
        self.archive.file(path, permissions, contents);
        self
    }

    /// Adds decompressed modules as `/modules/NN-name.ko`, to be loaded in the order of their names.
    pub fn modules(mut self, modules: &[Module]) -> Result<Self> {
        self.archive.dir(MODULE_DIR, 0o755);
        for (index, module) in modules.iter().enumerate() {
            self.archive.file(&format!("{MODULE_DIR}/{index:02}-{}.ko", module.name), 0o644, &module.read()?);
        }
        Ok(self)
    }

    /// The finished archive, compressed with gzip.
    pub fn gzip(self) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&self.archive.finish()).expect("writing to a vector can't fail");
        encoder.finish().expect("writing to a vector can't fail")
    }
}

/// Whether this is an x86-64 program without an interpreter, which dynamically linked ones have.
pub(crate) fn is_static(elf: &[u8]) -> bool {
    const E_MACHINE: usize = 0x12;
    const EM_X86_64: &[u8] = &[62, 0];
    const PT_INTERP: &[u8] = &[3, 0, 0, 0];
    let u16_at =
        |at: usize| elf.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u16::from_le_bytes);
    let headers =
        elf.get(0x20..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_le_bytes) as usize;
    let (entry_len, count) = (usize::from(u16_at(0x36)), usize::from(u16_at(0x38)));
    let interpreted = (0..count).any(|index| {
        let at = headers.saturating_add(index * entry_len);
        elf.get(at..at.saturating_add(4)).is_some_and(|kind| kind == PT_INTERP)
    });
    elf.starts_with(b"\x7fELF\x02\x01")
        && elf.get(E_MACHINE..E_MACHINE + 2) == Some(EM_X86_64)
        && !interpreted
}
