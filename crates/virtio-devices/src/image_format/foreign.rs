//! Files that contain a disk in a form that neither this monitor nor qemu-img can read: compressed, in an
//! archive, or an image of another program. The magic numbers are from those programs' formats; most are also
//! in the data of file(1) and libvirt's storage_file_probe.c.

/// A description of such a file, with an article, and the command for it, split around the file's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(super) noun: &'static str,
    pub(super) before: &'static str,
    pub(super) after: &'static str,
}

const fn foreign(noun: &'static str, before: &'static str, after: &'static str) -> Foreign {
    Foreign { noun, before, after }
}

/// A file whose decompressed contents the command writes to standard output, because decompression in place
/// may require another suffix.
const fn packed(noun: &'static str, before: &'static str) -> Foreign {
    foreign(noun, before, " > NEW.img")
}

pub(super) const XZ: Foreign = packed("an xz-compressed file", "decompress it, xz -dc");
const ZSTD: Foreign = packed("a zstd-compressed file", "decompress it, zstd -dc");
const LZ4: Foreign = packed("an lz4-compressed file", "decompress it, lz4 -dc");
const BZIP2: Foreign = packed("a bzip2-compressed file", "decompress it, bzip2 -dc");
const LZMA: Foreign = packed("an LZMA-compressed file", "decompress it, xz -dc");
pub(super) const OVA: Foreign = foreign("an archive of a virtual machine", "extract it, tar -xf", "");
const EWF: Foreign = foreign("an Expert Witness image", "convert it, ewfexport -f raw -t NEW", "");
const WIM: Foreign =
    foreign("a Windows image (WIM)", "apply it to a partition, wimapply", " 1 /dev/PARTITION");
const UML_COW: Foreign = foreign("a COW file of User Mode Linux", "merge it, uml_moo", " NEW.raw");
const RBD: Foreign = foreign("an exported RBD image", "import it, rbd import", " POOL/IMAGE");

/// Magic numbers at the start of a file.
pub(super) const MAGICS: &[(&[u8], Foreign)] = &[
    // ID1, ID2 and the only compression method (RFC 1952 §2.3.1).
    (b"\x1f\x8b\x08", packed("a gzip-compressed file", "decompress it, gzip -dc")),
    (b"\xfd7zXZ\0", XZ),
    (b"\x28\xb5\x2f\xfd", ZSTD),
    (b"\x04\x22\x4d\x18", LZ4),
    // The legacy frame format.
    (b"\x02\x21\x4c\x18", LZ4),
    (b"LZIP\x01", packed("an lzip-compressed file", "decompress it, lzip -dc")),
    (b"\x89LZO\0\r\n\x1a\n", packed("an lzop-compressed file", "decompress it, lzop -dc")),
    // compress(1) with its default of 16 bits.
    (b"\x1f\x9d\x90", packed("a file compressed by compress", "decompress it, gzip -dc")),
    (b"PK\x03\x04", packed("a zip archive", "extract it, unzip -p")),
    (b"7z\xbc\xaf\x27\x1c", packed("a 7z archive", "extract it, 7z x -so")),
    (b"Rar!\x1a\x07", packed("a RAR archive", "extract it, unrar p -inul")),
    // Signature of an extent (QEMU, block/vmdk.c, SESPARSE_CONST_HEADER_MAGIC).
    (
        &0xcafe_babe_u64.to_le_bytes(),
        foreign(
            "a part of a VMDK image (seSparse)",
            "convert the image whose text names",
            ", qemu-img convert -f vmdk -O raw IMAGE.vmdk NEW.raw",
        ),
    ),
    (b"EVF\x09\x0d\x0a\xff\0", EWF),
    (b"LVF\x09\x0d\x0a\xff\0", EWF),
    (b"EVF2\x0d\x0a\x81\0", EWF),
    (b"LEF2\x0d\x0a\x81\0", EWF),
    (b"AFF10\r\n\0", foreign("an image of the Advanced Forensic Format", "convert it, affconvert -r", "")),
    (b"MSWIM\0\0\0", WIM),
    (b"WLPWM\0\0\0", WIM),
    (b"\x3a\xff\x26\xed", foreign("an Android sparse image", "convert it, simg2img", " NEW.raw")),
    (
        b"sprs",
        foreign("a sparse image of macOS", "convert it on a Mac, hdiutil convert", " -format UDTO -o NEW"),
    ),
    (
        b"encrcdsa",
        foreign(
            "an encrypted image of macOS",
            "decrypt it on a Mac, hdiutil convert",
            " -format UDTO -o NEW",
        ),
    ),
    (b"OOOM\0\0\0\x02", UML_COW),
    (b"OOOM\0\0\0\x03", UML_COW),
    (b"MComprHD", foreign("a CHD image", "convert it, chdman extracthd -o NEW.raw -i", "")),
    (b"VMA\0", foreign("a Proxmox backup", "extract it, vma extract", " DIRECTORY")),
    (b"rbd image v", RBD),
    (b"rbd diff v", RBD),
    (b"partclone-image", foreign("a Partclone image", "restore it, partclone.restore -C -O NEW.raw -s", "")),
    (
        b"\0ntfsclone-image",
        foreign("an ntfsclone image", "restore it, ntfsclone --restore-image -O NEW.raw", ""),
    ),
    (
        b"PaRtImAgE-VoLuMe",
        foreign("a PartImage image", "restore it to a device, partimage restore DEVICE", ""),
    ),
    (b"FsA0", foreign("an FSArchiver archive", "restore it, fsarchiver restfs", " id=0,dest=DEVICE")),
];

/// Formats that need more than one comparison.
pub(super) fn recognise(head: &[u8]) -> Option<Foreign> {
    let at = |offset: usize| head.get(offset..).unwrap_or_default();
    let is_bzip2 = head.starts_with(b"BZh") && head.get(3).is_some_and(|level| (b'1'..=b'9').contains(level));
    match () {
        // The magic number of its first block, or of the end of the stream if it is empty.
        () if is_bzip2 && (at(4).starts_with(b"1AY&SY") || at(4).starts_with(b"\x17rE8P\x90")) => Some(BZIP2),
        // A skippable frame, of 16 kinds, before the first one, as in pzstd's output (RFC 8878 §3.1.2).
        () if at(1).starts_with(b"\x2a\x4d\x18") && head[0] & 0xf0 == 0x50 => Some(ZSTD),
        // The properties and a dictionary of whole KiB, as xz writes them, and an unknown length.
        () if head.starts_with(b"\x5d\0\0") && at(5).starts_with(&[0xff; 8]) => Some(LZMA),
        () if at(257).starts_with(b"ustar") && is_machine(head) => Some(OVA),
        () if at(4).starts_with(b"SignedImage ") => {
            Some(foreign("a Full Flash Update image", "apply to a disk on Windows (DISM /Apply-Ffu)", ""))
        }
        () => None,
    }
}

/// Whether the first file of an archive is a virtual machine's description. Any other archive may well be a
/// guest's disk: tar writes to devices.
fn is_machine(head: &[u8]) -> bool {
    let name: &[u8] = head.get(..100).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default().to_ascii_lowercase();
    name.ends_with(b".ovf") || name == b"ova.xml"
}
