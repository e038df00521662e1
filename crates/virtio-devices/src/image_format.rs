//! Recognises the format of a file: an image, or raw.
//!
//! A guest can make its disk look like any format. So a file is never opened based on this; the user must
//! specify the format.

mod foreign;
mod vmdk;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

pub(crate) use self::foreign::Foreign;
use crate::host_file::read_range;
use crate::shell;

/// Magic number of qcow2: "QFI" and 0xfb. Also that of version 1, a different format.
pub(crate) const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// A format other than raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageFormat {
    Qcow2,
    /// Encrypted, with this version: 1 or 2.
    Luks(u16),
    /// Another format: its name, and what qemu-img calls it.
    Other(&'static str, &'static str),
    /// A format that qemu-img doesn't support.
    Foreign(Foreign),
}

/// Magic numbers and their offsets in the file.
const MAGICS: [(usize, &[u8], ImageFormat); 14] = [
    (0, b"KDMV", VMDK),
    (0, b"COWD", VMDK),
    // 64 bytes of text, then the signature in little-endian order (VirtualBox, include/VBox/vd.h,
    // VDI_IMAGE_SIGNATURE).
    (64, &0xbeda_107f_u32.to_le_bytes(), ImageFormat::Other("VDI", "vdi")),
    (0, b"vhdxfile", ImageFormat::Other("VHDX", "vhdx")),
    // The copy of the footer in a dynamic image; a fixed-size image has only the footer.
    (0, VHD_COOKIE, VHD),
    (0, b"QED\0", ImageFormat::Other("QED", "qed")),
    (0, b"QFI\xfb\0\0\0\x01", ImageFormat::Other("qcow (version 1)", "qcow")),
    (0, &QCOW2_MAGIC, ImageFormat::Qcow2),
    (0, b"LUKS\xba\xbe\0\x01", ImageFormat::Luks(1)),
    (0, b"LUKS\xba\xbe\0\x02", ImageFormat::Luks(2)),
    (0, b"WithoutFreeSpace", PARALLELS),
    (0, b"WithouFreSpacExt", PARALLELS),
    (0, b"Bochs Virtual HD Image", ImageFormat::Other("Bochs", "bochs")),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", ImageFormat::Other("cloop", "cloop")),
];

const VMDK: ImageFormat = ImageFormat::Other("VMDK", "vmdk");
const VHD: ImageFormat = ImageFormat::Other("VHD", "vpc");
const VHD_COOKIE: &[u8] = b"conectix";
const PARALLELS: ImageFormat = ImageFormat::Other("Parallels", "parallels");
const DMG: ImageFormat = ImageFormat::Other("DMG", "dmg");

/// Magic number of a DMG's trailer, and the trailer's length.
const DMG_MAGIC: &[u8] = b"koly";
const DMG_TRAILER_LEN: usize = 512;

/// Bytes examined at the start: QEMU's limit for a VMDK descriptor (block/vmdk.c, DESC_SIZE).
const HEAD_LEN: u64 = 20 * 512;
/// Bytes examined at the end: a DMG's trailer, followed by padding to whole sectors.
const TAIL_LEN: u64 = DMG_TRAILER_LEN as u64 + 511;

/// The format that the file seems to have, `None` for raw. Reads at most 11 KiB.
pub(crate) fn detect(mut file: &File) -> io::Result<Option<ImageFormat>> {
    let len = file.seek(SeekFrom::End(0))?;
    let head = read_range(file, 0, len.min(HEAD_LEN) as usize)?;
    let tail_len = len.min(TAIL_LEN);
    let tail = read_range(file, len - tail_len, tail_len as usize)?;
    Ok(recognise(&head, &tail))
}

/// The format of a file with this start and end.
fn recognise(head: &[u8], tail: &[u8]) -> Option<ImageFormat> {
    let known =
        MAGICS.iter().find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    if let Some((.., format)) = known {
        return Some(*format);
    }
    let foreign = foreign::MAGICS.iter().find(|(magic, _)| head.starts_with(magic));
    if let Some(format) = foreign.map(|(_, format)| *format).or_else(|| foreign::recognise(head)) {
        return Some(ImageFormat::Foreign(format));
    }
    if vmdk::is_descriptor(head) {
        return Some(VMDK);
    }
    // Old VHD writers produced a footer of 511 bytes.
    let ends = |footer_len: usize| {
        tail.len().checked_sub(footer_len).is_some_and(|at| tail[at..].starts_with(VHD_COOKIE))
    };
    if ends(512) || ends(511) {
        return Some(VHD);
    }
    let trailer_starts = tail.len().checked_sub(DMG_TRAILER_LEN).map(|last| &tail[..last + DMG_MAGIC.len()]);
    let is_dmg =
        trailer_starts.is_some_and(|bytes| bytes.windows(DMG_MAGIC.len()).any(|word| word == DMG_MAGIC));
    is_dmg.then_some(DMG)
}

impl ImageFormat {
    /// A description of such a file, with an article.
    pub(crate) fn noun(self) -> String {
        match self {
            Self::Qcow2 => "a qcow2 image".to_owned(),
            Self::Luks(1) => "a LUKS volume".to_owned(),
            Self::Luks(version) => format!("a LUKS{version} volume"),
            // All with "a": VMDK, VDI, VHDX, VHD, qcow, Parallels, Bochs, cloop, DMG and QED.
            Self::Other(name, _) => format!("a {name} image"),
            Self::Foreign(Foreign { noun, .. }) => noun.to_owned(),
        }
    }

    /// How to get the contents of the file at `path` as `wanted`, "qcow2" or "raw".
    pub(crate) fn conversion(self, path: &Path, wanted: &str) -> String {
        let shown = shell::path(path);
        let driver = match self {
            Self::Qcow2 => "qcow2",
            Self::Other(_, driver) => driver,
            Self::Luks(1) => {
                let shown = shell::option_value(path);
                return format!(
                    "decrypt it, qemu-img convert --object secret,id=key,file=KEYFILE --image-opts \
                     driver=luks,file.filename={shown},key-secret=key -O {wanted} NEW.{wanted}"
                );
            }
            Self::Foreign(Foreign { before, after, .. }) => return format!("{before} {shown}{after}"),
            // Not supported by qemu-img.
            Self::Luks(_) => {
                return format!("unlock it, cryptsetup open {shown} NAME, and use /dev/mapper/NAME");
            }
        };
        format!("convert it, qemu-img convert -f {driver} -O {wanted} {shown} NEW.{wanted}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format of a 1 MiB disk that starts with these bytes.
    fn starting_with(bytes: &[u8]) -> Option<ImageFormat> {
        looked_at(|disk| disk[..bytes.len()].copy_from_slice(bytes))
    }

    /// The format of a disk with these bytes at this distance from its end.
    fn ending_with(bytes: &[u8], before_end: usize) -> Option<ImageFormat> {
        looked_at(|disk| {
            let at = disk.len() - before_end;
            disk[at..at + bytes.len()].copy_from_slice(bytes);
        })
    }

    fn looked_at(change: impl FnOnce(&mut [u8])) -> Option<ImageFormat> {
        let mut disk = vec![0; 1 << 20];
        change(&mut disk);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), disk).unwrap();
        detect(file.as_file()).unwrap()
    }

    #[test]
    fn zeros_are_raw() {
        assert_eq!(starting_with(b""), None);
    }

    #[test]
    fn file_shorter_than_any_magic_is_raw() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(detect(file.as_file()).unwrap(), None);
        std::fs::write(file.path(), b"QF").unwrap();
        assert_eq!(detect(file.as_file()).unwrap(), None);
    }

    #[test]
    fn luks_of_both_versions_is_recognised() {
        assert_eq!(starting_with(b"LUKS\xba\xbe\0\x01aes"), Some(ImageFormat::Luks(1)));
        assert_eq!(starting_with(b"LUKS\xba\xbe\0\x02\0\0"), Some(ImageFormat::Luks(2)));
        // A version that doesn't exist.
        assert_eq!(starting_with(b"LUKS\xba\xbe\0\x03\0\0"), None);
    }

    #[test]
    fn parallels_bochs_and_cloop_are_recognised() {
        assert_eq!(starting_with(b"WithoutFreeSpace\x02\0\0\0"), Some(PARALLELS));
        assert_eq!(starting_with(b"WithouFreSpacExt\x02\0\0\0"), Some(PARALLELS));
        let bochs = ImageFormat::Other("Bochs", "bochs");
        assert_eq!(starting_with(b"Bochs Virtual HD Image\0\0"), Some(bochs));
        let cloop = ImageFormat::Other("cloop", "cloop");
        assert_eq!(starting_with(b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0"), Some(cloop));
        // A different script.
        assert_eq!(starting_with(b"#!/bin/sh\n#V2.0 Format\nexit"), None);
    }

    #[test]
    fn dmg_is_recognised_by_its_trailer() {
        assert_eq!(ending_with(b"koly\0\0\0\x04", 512), Some(DMG));
        // Padded to a whole sector: one whose last sector had 1 byte, and one whose last sector lacked 1
        // byte.
        assert_eq!(ending_with(b"koly\0\0\0\x04", 512 + 511), Some(DMG));
        assert_eq!(ending_with(b"koly\0\0\0\x04", 513), Some(DMG));
        // No trailer can start there.
        assert_eq!(ending_with(b"koly\0\0\0\x04", 511), None);
        assert_eq!(ending_with(b"koly\0\0\0\x04", 512 + 512), None);
        assert_eq!(starting_with(b"koly\0\0\0\x04"), None);
    }

    #[test]
    fn dmg_of_nothing_but_its_trailer_is_recognised() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut trailer = [0; 512];
        trailer[..4].copy_from_slice(b"koly");
        std::fs::write(file.path(), trailer).unwrap();
        assert_eq!(detect(file.as_file()).unwrap(), Some(DMG));
    }

    #[test]
    fn vhd_is_recognised_by_its_footer() {
        assert_eq!(ending_with(VHD_COOKIE, 512), Some(VHD));
        assert_eq!(ending_with(VHD_COOKIE, 511), Some(VHD));
        assert_eq!(ending_with(VHD_COOKIE, 513), None);
    }

    #[test]
    fn vmdk_descriptor_is_recognised_after_comments_and_empty_lines() {
        assert_eq!(starting_with(b"# Disk DescriptorFile\nversion=1\n"), Some(VMDK));
        assert_eq!(starting_with(b"version=1\n"), Some(VMDK));
        assert_eq!(starting_with(b"version=3\r\nCID=fffffffe\r\n"), Some(VMDK));
        assert_eq!(starting_with(b"# mine\n#\n  \n \r\n\nversion=2\nCID=1\n"), Some(VMDK));
    }

    #[test]
    fn vmdk_descriptor_is_recognised_in_any_case_and_with_spaces() {
        assert_eq!(starting_with(b"Version = 1\n"), Some(VMDK));
        assert_eq!(starting_with(b"\tVERSION=1 \n"), Some(VMDK));
        assert_eq!(starting_with(b"# DISK DESCRIPTORFILE\nencoding=\"UTF-8\"\n"), Some(VMDK));
        assert_eq!(starting_with(b"# made by me\n#Disk Descriptor File\nencoding=\"UTF-8\"\n"), Some(VMDK));
    }

    #[test]
    fn vmdk_descriptor_is_recognised_after_a_byte_order_mark_and_with_any_ends_of_lines() {
        assert_eq!(starting_with(b"\xef\xbb\xbf# Disk DescriptorFile\r\nversion=1\r\n"), Some(VMDK));
        assert_eq!(starting_with(b"\xef\xbb\xbfversion=1\n"), Some(VMDK));
        assert_eq!(starting_with(b"# a comment\rversion=1\r"), Some(VMDK));
        assert_eq!(starting_with(b"; not one\nversion=1\n"), None);
    }

    #[test]
    fn vmdk_descriptor_is_recognised_whatever_comes_first() {
        assert_eq!(starting_with(b"encoding=\"windows-1252\"\r\nversion=1\r\n"), Some(VMDK));
        assert_eq!(starting_with(b"CID=fffffffe\nversion=1\n"), Some(VMDK));
        assert_eq!(starting_with(b"createType=\"monolithicFlat\"\n"), Some(VMDK));
    }

    #[test]
    fn text_that_is_no_vmdk_descriptor_is_raw() {
        assert_eq!(starting_with(b"# a script\necho version=1\n"), None);
        assert_eq!(starting_with(b"versions=1\n"), None);
        assert_eq!(starting_with(b"version=one\n"), None);
        assert_eq!(starting_with(b"version=\n"), None);
        assert_eq!(starting_with(b"encoding=\"UTF-8\"\nlang=en\n"), None);
        assert_eq!(starting_with(b"\xef\xbb\xbf# a text\n"), None);
        assert_eq!(starting_with(b"version"), None);
    }

    /// QEMU's limit: 10 KiB.
    #[test]
    fn vmdk_descriptor_is_looked_for_in_bounds() {
        let after = |comment_len: usize| {
            let comment = [&b"#"[..], &vec![b'x'; comment_len - 2], b"\n"].concat();
            starting_with(&[&comment[..], b"version=1\n"].concat())
        };
        assert_eq!(after(20 * 512 - b"version=1\n".len()), Some(VMDK));
        assert_eq!(after(20 * 512), None);
    }

    /// The description of a file that starts with these bytes.
    fn noun_of(bytes: &[u8]) -> Option<String> {
        starting_with(bytes).map(ImageFormat::noun)
    }

    #[test]
    fn images_of_other_programs_are_recognised() {
        let nouns = [
            &b"\xbe\xba\xfe\xca\0\0\0\0\x01\0\0\0\x02"[..],
            b"EVF\x09\x0d\x0a\xff\0\x01",
            b"EVF2\x0d\x0a\x81\0\x02",
            b"AFF10\r\n\0",
            b"MSWIM\0\0\0\xd0",
            b"\x3a\xff\x26\xed\x01\0",
            b"sprs\0\0\0\x03",
            b"encrcdsa\0\0\0\x02",
            b"OOOM\0\0\0\x02",
            b"MComprHD\0\0\0\x7c",
            b"VMA\0\0\0\0\x01",
            b"rbd image v2\n",
            b"partclone-image0001",
            b"\0ntfsclone-image",
            b"PaRtImAgE-VoLuMe",
            b"FsA00002",
            b"\x40\0\0\0SignedImage ",
        ]
        .map(|magic| noun_of(magic).unwrap_or_default());
        assert_eq!(
            nouns,
            [
                "a part of a VMDK image (seSparse)",
                "an Expert Witness image",
                "an Expert Witness image",
                "an image of the Advanced Forensic Format",
                "a Windows image (WIM)",
                "an Android sparse image",
                "a sparse image of macOS",
                "an encrypted image of macOS",
                "a COW file of User Mode Linux",
                "a CHD image",
                "a Proxmox backup",
                "an exported RBD image",
                "a Partclone image",
                "an ntfsclone image",
                "a PartImage image",
                "an FSArchiver archive",
                "a Full Flash Update image",
            ]
        );
    }

    /// What each program produces for an empty file, or the start of its output.
    #[test]
    fn compressed_files_are_recognised() {
        let nouns = [
            &b"\x1f\x8b\x08\x00\0\0\0\0\0\x03"[..],
            b"\xfd7zXZ\0\0\x04",
            b"\x28\xb5\x2f\xfd\x24\0",
            b"\x50\x2a\x4d\x18\x04\0\0\0",
            b"BZh91AY&SY",
            b"BZh9\x17rE8P\x90",
            b"\x04\x22\x4d\x18\x64\x40",
            b"\x5d\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0",
            b"LZIP\x01",
            b"\x89LZO\0\r\n\x1a\n",
            b"PK\x03\x04\x14",
            b"7z\xbc\xaf\x27\x1c\0",
            b"Rar!\x1a\x07\x01",
            b"\x1f\x9d\x90",
        ]
        .map(|magic| noun_of(magic).unwrap_or_default());
        assert_eq!(
            nouns,
            [
                "a gzip-compressed file",
                "an xz-compressed file",
                "a zstd-compressed file",
                "a zstd-compressed file",
                "a bzip2-compressed file",
                "a bzip2-compressed file",
                "an lz4-compressed file",
                "an LZMA-compressed file",
                "an lzip-compressed file",
                "an lzop-compressed file",
                "a zip archive",
                "a 7z archive",
                "a RAR archive",
                "a file compressed by compress",
            ]
        );
    }

    /// First bytes of disks and file systems: a boot sector, squashfs, EROFS's and ext4's empty first KiB,
    /// XFS, Btrfs.
    #[test]
    fn disks_and_file_systems_are_raw() {
        assert_eq!(noun_of(b"\xeb\x63\x90\x10\x8e\xd0"), None);
        assert_eq!(noun_of(b"\xeb\x58\x90mkfs.fat"), None);
        assert_eq!(noun_of(b"hsqs\x07\0\0\0"), None);
        assert_eq!(noun_of(b"XFSB\0\0\x10\0"), None);
        assert_eq!(noun_of(b"\x7fELF\x02\x01\x01"), None);
        // Almost the magic of another format.
        assert_eq!(noun_of(b"BZh9 is a text"), None);
        assert_eq!(noun_of(b"\x1f\x8b\x07"), None);
        assert_eq!(noun_of(b"\xca\xfe\xba\xbe\0\0\0\x34"), None);
        assert_eq!(noun_of(b"\x5d\0\0\x80\0\xff\xff\0"), None);
        assert_eq!(noun_of(b"OOOM\0\0\0\x09"), None);
    }

    /// Many guests get a tar archive as a disk.
    #[test]
    fn archive_of_a_virtual_machine_is_recognised_by_its_first_file() {
        let archive = |name: &[u8]| {
            looked_at(|disk| {
                disk[..name.len()].copy_from_slice(name);
                disk[257..262].copy_from_slice(b"ustar");
            })
        };
        assert_eq!(
            archive(b"machine.ovf").map(ImageFormat::noun).unwrap(),
            "an archive of a virtual machine"
        );
        assert_eq!(archive(b"ova.xml").map(ImageFormat::noun).unwrap(), "an archive of a virtual machine");
        assert_eq!(archive(b"etc/passwd"), None);
        assert_eq!(starting_with(b"machine.ovf"), None);
    }

    #[test]
    fn conversion_of_what_qemu_does_not_know_is_another_programs() {
        let path = Path::new("my disk.raw.xz");
        assert_eq!(
            ImageFormat::Foreign(foreign::XZ).conversion(path, "raw"),
            "decompress it, xz -dc 'my disk.raw.xz' > NEW.img"
        );
        assert_eq!(
            ImageFormat::Foreign(foreign::OVA).conversion(path, "raw"),
            "extract it, tar -xf 'my disk.raw.xz'"
        );
        let android = starting_with(b"\x3a\xff\x26\xed").unwrap();
        assert_eq!(android.conversion(path, "qcow2"), "convert it, simg2img 'my disk.raw.xz' NEW.raw");
    }

    #[test]
    fn conversion_is_a_command_for_the_shell() {
        let path = Path::new("my disk.dmg");
        assert_eq!(
            DMG.conversion(path, "qcow2"),
            "convert it, qemu-img convert -f dmg -O qcow2 'my disk.dmg' NEW.qcow2"
        );
        assert_eq!(
            ImageFormat::Luks(2).conversion(path, "raw"),
            "unlock it, cryptsetup open 'my disk.dmg' NAME, and use /dev/mapper/NAME"
        );
    }
}
