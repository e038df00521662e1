//! What a file's bytes look like.

use std::io;
use std::os::unix::fs::FileExt;

use super::file::DiskFile;
use super::qcow2::header::MAGIC as QCOW2_MAGIC;
use super::request::SECTOR_LEN;

/// What a file can look like that isn't meant to be a raw disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    Qcow2,
    /// A format that isn't supported: its name, and what qemu-img calls it.
    Other(&'static str, &'static str),
}

/// What a format's bytes start with, and where.
const MAGICS: [(u64, &[u8], Likeness); 9] = [
    (0, b"KDMV", VMDK),
    (0, b"COWD", VMDK),
    (0, b"# Disk DescriptorFile", VMDK),
    // 64 bytes of text, and then the signature in little-endian order (VirtualBox, include/VBox/vd.h, VDI_IMAGE_SIGNATURE).
    (64, &0xbeda_107f_u32.to_le_bytes(), Likeness::Other("VDI", "vdi")),
    (0, b"vhdxfile", Likeness::Other("VHDX", "vhdx")),
    // A growing image's copy of its footer; one of a fixed size has only that.
    (0, VHD_COOKIE, VHD),
    (0, b"QED\0", Likeness::Other("QED", "qed")),
    (0, b"QFI\xfb\0\0\0\x01", Likeness::Other("qcow (version 1)", "qcow")),
    (0, &QCOW2_MAGIC, Likeness::Qcow2),
];

const VMDK: Likeness = Likeness::Other("VMDK", "vmdk");
const VHD: Likeness = Likeness::Other("VHD", "vpc");
const VHD_COOKIE: &[u8] = b"conectix";

/// What the file looks like, if it is anything but a raw disk.
pub(super) fn likeness(file: &DiskFile) -> io::Result<Option<Likeness>> {
    let len = file.len()?;
    let has = |at: u64, magic: &[u8]| -> io::Result<bool> {
        if at.checked_add(magic.len() as u64).is_none_or(|end| end > len) {
            return Ok(false);
        }
        let mut found = [0; 32];
        let found = &mut found[..magic.len()];
        file.file.read_exact_at(found, at)?;
        Ok(found == magic)
    };
    for (at, magic, likeness) in MAGICS {
        if has(at, magic)? {
            return Ok(Some(likeness));
        }
    }
    // Old makers of VHDs wrote a footer of 511 bytes.
    let footers = [SECTOR_LEN, SECTOR_LEN - 1];
    for at in footers.into_iter().filter_map(|footer_len| len.checked_sub(footer_len)) {
        if has(at, VHD_COOKIE)? {
            return Ok(Some(VHD));
        }
    }
    Ok(None)
}

impl Likeness {
    /// What to change where the config doesn't say what the bytes mean; to be read after the file's path.
    pub(super) fn ask(self, path: &std::path::Path) -> String {
        let raw = "\"raw\" if its bytes are the disk's";
        match self {
            Self::Qcow2 => format!("looks like a qcow2 image: add \"format\": \"qcow2\", or {raw}"),
            Self::Other(name, driver) => format!(
                "looks like a {name} image, which isn't supported: convert it, qemu-img convert -f {driver} -O qcow2 {} \
                 NEW.qcow2, or add \"format\": {raw}",
                path.display()
            ),
        }
    }

    /// What is wrong with a file that the config calls a qcow2 image; to be read after its path.
    pub(super) fn instead_of_qcow2(self, path: &std::path::Path) -> String {
        match self {
            Self::Qcow2 => "is a qcow2 image".to_owned(),
            Self::Other(name, driver) => format!(
                "isn't a qcow2 image, it looks like a {name} image: convert it, qemu-img convert -f {driver} -O qcow2 {} \
                 NEW.qcow2",
                path.display()
            ),
        }
    }
}
