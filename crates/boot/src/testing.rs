//! Kernel images for tests, built byte by byte.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::platform::KernelImage;

/// A file whose reads return at most 7 bytes.
pub(crate) struct ShortReads<'a>(Cursor<&'a [u8]>);

impl<'a> ShortReads<'a> {
    const MAX: usize = 7;

    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Cursor::new(bytes))
    }
}

impl ReadVolatile for ShortReads<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        slice: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.0.read_volatile(&mut slice.subslice(0, slice.len().min(Self::MAX))?)
    }
}

impl Read for ShortReads<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = bytes.len().min(Self::MAX);
        self.0.read(&mut bytes[..count])
    }
}

impl Seek for ShortReads<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

/// Offset of program header `n` in an image made by [`elf`].
pub(crate) const fn program_header(n: usize) -> usize {
    64 + 56 * n
}

/// A program header and its contents.
pub(crate) enum Part {
    Load { paddr: u64, bytes: Vec<u8>, mem_len: u64 },
    Notes { bytes: Vec<u8>, align: u64 },
}

/// An x86_64 executable: header, program headers, and the contents of `parts` in order.
pub(crate) fn elf(entry: u64, parts: &[Part]) -> Vec<u8> {
    let mut file = vec![0; program_header(parts.len())];
    file[0..8].copy_from_slice(b"\x7fELF\x02\x01\x01\x00");
    file[16..18].copy_from_slice(&2_u16.to_le_bytes()); // e_type ET_EXEC
    file[18..20].copy_from_slice(&62_u16.to_le_bytes()); // e_machine EM_X86_64
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32..40].copy_from_slice(&64_u64.to_le_bytes()); // e_phoff
    file[54..56].copy_from_slice(&56_u16.to_le_bytes()); // e_phentsize
    file[56..58].copy_from_slice(&(parts.len() as u16).to_le_bytes());
    for (n, part) in parts.iter().enumerate() {
        let (kind, paddr, bytes, mem_len, align) = match part {
            Part::Load { paddr, bytes, mem_len } => (1_u32, *paddr, bytes, *mem_len, 0x1000),
            Part::Notes { bytes, align } => (4_u32, 0, bytes, bytes.len() as u64, *align),
        };
        let offset = file.len() as u64;
        let header = [offset, 0, paddr, bytes.len() as u64, mem_len, align];
        let at = program_header(n);
        file[at..at + 4].copy_from_slice(&kind.to_le_bytes());
        file[at + 8..at + 56].copy_from_slice(&header.map(u64::to_le_bytes).concat());
        file.extend(bytes);
    }
    file
}

/// A note with its fields padded to `align` bytes.
pub(crate) fn note(owner: &str, kind: u32, descriptor: &[u8], align: usize) -> Vec<u8> {
    let name = [owner.as_bytes(), b"\0"].concat();
    let sizes = [name.len() as u32, descriptor.len() as u32, kind];
    let mut note = sizes.map(u32::to_le_bytes).concat();
    note.extend(name);
    note.resize(note.len().next_multiple_of(align), 0);
    note.extend(descriptor);
    note.resize(note.len().next_multiple_of(align), 0);
    note
}

/// The notes of a kernel with its PVH entry at `entry`.
pub(crate) fn pvh_notes(entry: u32) -> Part {
    let notes = [note("GNU", 3, &[7; 20], 4), note("Xen", 18, &entry.to_le_bytes(), 4)];
    Part::Notes { bytes: notes.concat(), align: 4 }
}

/// A kernel with two segments: 256 bytes of code at 2 MiB, and 16 bytes of data with a BSS of 4080 at 2 MiB +
/// 8 KiB. Its entry is at 2 MiB, its PVH entry at 2 MiB + 0x40.
pub(crate) fn vmlinux() -> Vec<u8> {
    elf(
        0x20_0000,
        &[
            Part::Load { paddr: 0x20_0000, bytes: vec![0xcc; 256], mem_len: 256 },
            Part::Load { paddr: 0x20_2000, bytes: vec![0xdd; 16], mem_len: 4096 },
            pvh_notes(0x20_0040),
        ],
    )
}

/// A bzImage of boot protocol 2.15 with a sector of setup code and 1 KiB of kernel: loaded at 1 MiB,
/// relocatable, with a 64-bit entry. It unpacks to 2 MiB and needs 1 MiB there.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut file = vec![0xaa; 1024];
    file[0x1f1..0x26c].fill(0);
    file[0..2].copy_from_slice(b"MZ");
    file[0x1f1] = 1; // setup_sects
    file[0x1f4..0x1f8].copy_from_slice(&64_u32.to_le_bytes()); // syssize, in 16 bytes
    file[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes()); // boot_flag
    file[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]); // a jump to 0x26c, the end of the header
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes()); // version
    file[0x211] = 1; // loadflags: LOADED_HIGH
    file[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // code32_start
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    file[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes()); // kernel_alignment
    file[0x234] = 1; // relocatable_kernel
    file[0x236..0x238].copy_from_slice(&0x7f_u16.to_le_bytes()); // xloadflags
    file[0x238..0x23c].copy_from_slice(&255_u32.to_le_bytes()); // cmdline_size
    file[0x248..0x24c].copy_from_slice(&0x2cc_u32.to_le_bytes()); // payload_offset
    file[0x24c..0x250].copy_from_slice(&0x100_u32.to_le_bytes()); // payload_length
    file[0x258..0x260].copy_from_slice(&0x20_0000_u64.to_le_bytes()); // pref_address
    file[0x260..0x264].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // init_size
    file[0x264..0x268].copy_from_slice(&0x1234_u32.to_le_bytes()); // handover_offset
    file[0x268..0x26c].copy_from_slice(&0x5678_u32.to_le_bytes()); // kernel_info_offset
    file.extend([0xcc; 1024]);
    file
}

/// `file` with `bytes` at `at`.
pub(crate) fn patched(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// The image in `file`, which must be valid.
pub(crate) fn inspected(file: &[u8]) -> KernelImage {
    KernelImage::inspect(&mut Cursor::new(file)).expect("a good image")
}

/// The error for `file`, which must be invalid.
pub(crate) fn complaint(file: &[u8]) -> String {
    KernelImage::inspect(&mut Cursor::new(file)).expect_err("a bad image").to_string()
}
