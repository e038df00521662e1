//! ELF kernels.

use std::fmt;
use std::io::{Read, Seek};
use std::ops::Range;

use crate::elf_error::ElfError;
use crate::elf_format::{
    self, EM_386, EM_AARCH64, EM_ARM, EM_RISCV, EM_X86_64, ET_EXEC, ElfClass, MAX_NOTES_LEN, Segment,
};
use crate::elf_header::{self, Header, Identity, ProgramHeader};
use crate::note::{self, NoteError};
use crate::platform::x86_64::image_error::ImageError;
use crate::reader::Reader;

/// Maximum length of an x86 kernel's command line, without the NUL: COMMAND_LINE_SIZE less 1 (Linux
/// arch/x86/include/asm/setup.h). The ELF headers don't contain it.
pub(crate) const ELF_CMDLINE_MAX_LEN: u64 = 2048 - 1;
/// Exclusive limit of the initrd. The ELF headers don't contain it either, but it is the same kernel as in a
/// bzImage, and every x86_64 setup header has 0x7fffffff in `initrd_addr_max` (Linux arch/x86/boot/header.S).
pub(crate) const ELF_INITRD_LIMIT: u64 = 0x8000_0000;

/// An ELF kernel: its segments and entries. A 32-bit one, such as Xen, only has a PVH entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfImage {
    segments: Vec<Segment>,
    linux64_entry: Option<u64>,
    pvh_entry: Option<u64>,
}

impl ElfImage {
    /// The segments, in ascending order of address; never empty, never overlapping.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The 64-bit entry point, if it is inside a segment.
    pub fn linux64_entry(&self) -> Option<u64> {
        self.linux64_entry
    }

    /// The entry in the PVH note.
    pub fn pvh_entry(&self) -> Option<u64> {
        self.pvh_entry
    }

    pub(crate) fn footprint(&self) -> Range<u64> {
        let start = self.segments.first().map_or(0, |s| s.paddr);
        let end = self.segments.last().map_or(0, |s| s.memory().end);
        start..end
    }
}

impl fmt::Display for ElfImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ELF, {} segments", self.segments.len())?;
        if let Some(entry) = self.linux64_entry {
            write!(f, ", entry {entry:#x}")?;
        }
        if let Some(entry) = self.pvh_entry {
            write!(f, ", PVH entry {entry:#x}")?;
        }
        Ok(())
    }
}

/// Reads and checks the ELF's headers.
pub(crate) fn inspect<F: Read + Seek>(reader: &mut Reader<'_, F>) -> Result<ElfImage, ImageError> {
    let file_len = reader.len();
    let truncated = ImageError::Truncated { len: file_len, structure: "ELF header" };
    if file_len < ElfClass::Elf32.header_len() {
        return Err(truncated);
    }
    let class = check_kind(&Identity::read(reader)?)?;
    if file_len < class.header_len() {
        return Err(truncated);
    }
    let header = Header::read(class, reader)?;

    let mut segments = Vec::new();
    let mut pvh_entry = None;
    for index in header.program_headers(file_len)? {
        let program = header.program_header(index, reader)?;
        match program.kind {
            elf_format::PT_LOAD => segments.extend(program.segment(file_len)?),
            elf_format::PT_NOTE => pvh_entry = pvh_entry.or(note_segment(&program, reader)?),
            _ => {}
        }
    }
    let segments = elf_header::in_order(segments)?;

    let loaded = |entry: u64| segments.iter().any(|s| s.file_backed().contains(&entry));
    let entry = header.entry;
    // No boot protocol of Linux uses the entry of a 32-bit ELF.
    let linux64_entry = Some(entry).filter(|entry| class == ElfClass::Elf64 && loaded(*entry));
    match pvh_entry {
        Some(entry) if !loaded(entry) => Err(ElfError::PvhEntry { entry }.into()),
        None if class == ElfClass::Elf32 => Err(ElfError::NoPvhNote.into()),
        None if linux64_entry.is_none() => Err(ElfError::Entry { entry }.into()),
        _ => Ok(ElfImage { segments, linux64_entry, pvh_entry }),
    }
}

/// Checks that it is a little-endian executable for x86_64 or i386, and returns its class.
fn check_kind(identity: &Identity) -> Result<ElfClass, ImageError> {
    let &Identity { class, data, kind, machine } = identity;
    if data != elf_format::ELFDATA2LSB {
        return Err(ElfError::Endianness { data }.into());
    }
    let class = match (class, machine) {
        (elf_format::ELFCLASS64, EM_X86_64) => ElfClass::Elf64,
        (elf_format::ELFCLASS32, EM_386) => ElfClass::Elf32,
        (elf_format::ELFCLASS64, EM_AARCH64) => {
            return Err(ImageError::Foreign { kernel: "an aarch64 kernel" });
        }
        (elf_format::ELFCLASS64, EM_RISCV) => {
            return Err(ImageError::Foreign { kernel: "a riscv64 kernel" });
        }
        (elf_format::ELFCLASS64, machine) => return Err(ElfError::Machine { machine }.into()),
        (_, EM_ARM) => return Err(ImageError::Foreign { kernel: "an arm kernel (a 32-bit ELF)" }),
        (class, machine) => return Err(ElfError::Class { class, machine }.into()),
    };
    let name = match kind {
        ET_EXEC => return Ok(class),
        1 => "an object file or a module",
        elf_format::ET_DYN => "a position-independent executable or a shared library",
        4 => "a core file",
        _ => "unknown",
    };
    Err(ElfError::Type { kind, name }.into())
}

/// The PVH entry in the notes of a PT_NOTE segment.
fn note_segment<F: Read + Seek>(
    program: &ProgramHeader,
    reader: &mut Reader<'_, F>,
) -> Result<Option<u64>, ImageError> {
    program.check_file_range(reader.len())?;
    let &ProgramHeader { index: segment, offset, file_len: len, .. } = program;
    if len > MAX_NOTES_LEN {
        return Err(ElfError::NotesTooLong { segment, len }.into());
    }
    let mut notes = vec![0; len as usize];
    reader.fill(offset, &mut notes)?;
    note::pvh_entry(&notes, program.align).map_err(|error| {
        match error {
            NoteError::TooLong { at } => ElfError::NoteTooLong { segment, at: at as u64 },
            NoteError::Descriptor { len } => ElfError::PvhNoteLen { len },
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_arch::boot::Protocol;

    use crate::platform::x86_64::flat::testing as flat;
    use crate::platform::x86_64::image::KernelImage;
    use crate::testing::{
        Part, complaint, elf, inspected, note, patched, program_header, pvh_notes, vmlinux,
    };

    fn elf_image(file: &[u8]) -> ElfImage {
        match inspected(file) {
            KernelImage::Elf(elf) => elf,
            KernelImage::BzImage(_) => panic!("an ELF"),
        }
    }

    fn load(paddr: u64, len: usize, mem_len: u64) -> Part {
        Part::Load { paddr, bytes: vec![0xcc; len], mem_len }
    }

    #[test]
    fn elf_segments_are_sorted_and_empty_ones_dropped() {
        let image =
            elf_image(&elf(0x30_0000, &[load(0x30_0000, 8, 8), load(0, 0, 0), load(0x20_0000, 4, 0x1000)]));
        // The segments' bytes follow three program headers, at 64 + 3 * 56 = 232.
        let expected = [
            Segment { offset: 240, paddr: 0x20_0000, file_len: 4, mem_len: 0x1000 },
            Segment { offset: 232, paddr: 0x30_0000, file_len: 8, mem_len: 8 },
        ];
        assert_eq!(image.segments(), expected);
        assert_eq!(image.footprint(), 0x20_0000..0x30_0008);
    }

    #[test]
    fn elf_segments_that_touch_do_not_overlap() {
        let image = elf_image(&elf(0x20_0000, &[load(0x20_0000, 4, 0x1000), load(0x20_1000, 4, 4)]));
        assert_eq!(image.segments().len(), 2);
    }

    #[test]
    fn elf_pvh_note_in_the_first_of_two_note_segments_counts() {
        let other = Part::Notes { bytes: note("GNU", 3, &[1; 20], 4), align: 4 };
        let image = elf_image(&elf(0, &[load(0x20_0000, 256, 256), pvh_notes(0x20_0040), other]));
        assert_eq!(image.pvh_entry(), Some(0x20_0040));
    }

    #[test]
    fn elf_pvh_note_in_the_second_of_two_note_segments_counts() {
        let other = Part::Notes { bytes: note("GNU", 3, &[1; 20], 8), align: 8 };
        let image = elf_image(&elf(0, &[load(0x20_0000, 256, 256), other, pvh_notes(0x20_0040)]));
        assert_eq!(image.pvh_entry(), Some(0x20_0040));
    }

    /// An i386 kernel of 256 bytes at 2 MiB with its entry there, and with these notes.
    fn elf32_kernel(notes: Vec<u8>) -> Vec<u8> {
        let note = flat::Part { kind: 4, vaddr: 0, paddr: 0, mem_len: notes.len() as u64, bytes: notes };
        flat::elf32(2, 0x20_0000, &[flat::load(0x20_0000, 256, 4096), note])
    }

    /// Like Xen built for PVH.
    #[test]
    fn elf_of_32_bits_with_a_pvh_note_is_entered_by_pvh_alone() {
        let image = inspected(&elf32_kernel(note("Xen", 18, &0x20_0040_u32.to_le_bytes(), 4)));
        assert_eq!(image.protocols(), [Protocol::Pvh]);
        assert_eq!(image.default_protocol(), Protocol::Pvh);
        assert_eq!(image.to_string(), "ELF, 1 segments, PVH entry 0x200040");
        assert_eq!(image.footprint(), 0x20_0000..0x20_1000);
    }

    /// Debian's Xen 4.17 only has a build id note.
    #[test]
    fn elf_of_32_bits_without_a_pvh_note_says_how_else_it_may_boot() {
        assert_eq!(
            complaint(&elf32_kernel(note("GNU", 3, &[7; 20], 4))),
            "a 32-bit ELF without a PVH note; one with a multiboot header boots as a flat image (--flat, boot.flat), another \
             needs an x86_64 kernel"
        );
    }

    #[test]
    fn elf_of_32_bits_with_a_pvh_entry_outside_it_is_refused() {
        let file = elf32_kernel(note("Xen", 18, &0x20_0100_u32.to_le_bytes(), 4));
        assert_eq!(complaint(&file), "the PVH entry 0x200100 is outside every segment");
    }

    #[test]
    fn elf_x32_is_refused() {
        let file = patched(vmlinux(), 4, &[1]);
        assert_eq!(complaint(&file), "an ELF of class 1 for machine 62; an x86_64 kernel is needed");
    }

    #[test]
    fn elf_aarch64_is_named() {
        let file = patched(vmlinux(), 18, &[183, 0]);
        assert_eq!(complaint(&file), "an aarch64 kernel; an x86_64 kernel is needed");
    }

    #[test]
    fn elf_of_another_machine_is_refused() {
        // 21 is 64-bit PowerPC.
        let file = patched(vmlinux(), 18, &[21, 0]);
        assert_eq!(complaint(&file), "an ELF for machine 21; an x86_64 kernel (machine 62) is needed");
    }

    #[test]
    fn elf_big_endian_is_refused() {
        let file = patched(vmlinux(), 5, &[2]);
        assert_eq!(complaint(&file), "a big-endian ELF (data 2); an x86_64 kernel is needed");
    }

    #[test]
    fn elf_position_independent_is_refused() {
        let file = patched(vmlinux(), 16, &[3, 0]);
        let expected = "e_type 3: a position-independent executable or a shared library; \
                        an executable linked to fixed addresses (e_type 2) is needed";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_module_is_refused() {
        let file = patched(vmlinux(), 16, &[1, 0]);
        let expected = "e_type 1: an object file or a module; \
                        an executable linked to fixed addresses (e_type 2) is needed";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_wrong_phentsize_is_refused() {
        let file = patched(vmlinux(), 54, &[32, 0]);
        assert_eq!(complaint(&file), "e_phentsize 32: the program headers of a 64-bit ELF have 56 bytes");
    }

    #[test]
    fn elf_without_program_headers_is_refused() {
        let file = patched(vmlinux(), 56, &[0, 0]);
        assert_eq!(complaint(&file), "e_phnum 0: a kernel has 1 to 128 program headers");
    }

    #[test]
    fn elf_with_too_many_program_headers_is_refused() {
        let file = patched(vmlinux(), 56, &[0xff, 0xff]);
        assert_eq!(complaint(&file), "e_phnum 65535: a kernel has 1 to 128 program headers");
    }

    #[test]
    fn elf_program_headers_beyond_the_file_are_refused() {
        let file = patched(vmlinux(), 32, &0x1000_u64.to_le_bytes());
        let expected = "e_phoff 0x1000: 3 program headers there lie outside the file of 560 bytes";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_program_headers_at_the_end_of_64_bits_are_refused() {
        let file = patched(vmlinux(), 32, &u64::MAX.to_le_bytes());
        let expected =
            "e_phoff 0xffffffffffffffff: 3 program headers there lie outside the file of 560 bytes";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_program_headers_inside_the_header_are_refused() {
        let file = patched(vmlinux(), 32, &63_u64.to_le_bytes());
        let expected = "e_phoff 0x3f: 3 program headers there lie outside the file of 560 bytes";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_segment_beyond_the_file_is_refused() {
        // p_filesz and p_memsz of the first segment.
        let lens = [0x9000_u64.to_le_bytes(), 0x9000_u64.to_le_bytes()].concat();
        let file = patched(vmlinux(), program_header(0) + 32, &lens);
        let expected =
            "program header 0: p_offset 0xe8 + p_filesz 0x9000 is beyond the end of the file at 0x230";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_segment_offset_that_wraps_is_refused() {
        let file = patched(vmlinux(), program_header(0) + 8, &u64::MAX.to_le_bytes());
        let expected = "program header 0: p_offset 0xffffffffffffffff + p_filesz 0x100 is beyond the end of \
                        the file at 0x230";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_segment_smaller_in_memory_than_in_the_file_is_refused() {
        let file = patched(vmlinux(), program_header(0) + 40, &0xff_u64.to_le_bytes());
        let expected = "program header 0: p_filesz 0x100 is larger than p_memsz 0xff";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_segment_address_that_wraps_is_refused() {
        let file = patched(vmlinux(), program_header(1) + 24, &0xffff_ffff_ffff_f001_u64.to_le_bytes());
        let expected =
            "program header 1: p_paddr 0xfffffffffffff001 + p_memsz 0x1000 is more than 64 bits hold";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_segments_that_overlap_are_refused() {
        let file = patched(vmlinux(), program_header(1) + 24, &0x20_00ff_u64.to_le_bytes());
        let expected = "segments overlap in memory: 0x200000..0x200100 and 0x2000ff..0x2010ff";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_without_a_segment_is_refused() {
        assert_eq!(complaint(&elf(0, &[pvh_notes(0x20_0040)])), "has no segment to load");
    }

    #[test]
    fn elf_notes_beyond_the_file_are_refused() {
        let file = patched(vmlinux(), program_header(2) + 32, &0x1000_u64.to_le_bytes());
        let expected =
            "program header 2: p_offset 0x1f8 + p_filesz 0x1000 is beyond the end of the file at 0x230";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_with_too_many_notes_is_refused() {
        let notes = Part::Notes { bytes: vec![0; 65537], align: 4 };
        let expected = "program header 0: 65537 bytes of notes; at most 65536 are read";
        assert_eq!(complaint(&elf(0, &[notes, load(0x20_0000, 1, 1)])), expected);
    }

    #[test]
    fn elf_note_longer_than_its_segment_is_refused() {
        let mut bytes = note("Xen", 18, &[0; 4], 4);
        bytes[4] = 5; // n_descsz
        let notes = Part::Notes { bytes, align: 4 };
        let expected = "program header 0: the note at 0x0 is longer than its segment";
        assert_eq!(complaint(&elf(0, &[notes, load(0x20_0000, 1, 1)])), expected);
    }

    #[test]
    fn elf_pvh_note_of_2_bytes_is_refused() {
        let notes = Part::Notes { bytes: note("Xen", 18, &[0; 2], 4), align: 4 };
        let expected = "the PVH note has 2 bytes; 4 or 8 are an address";
        assert_eq!(complaint(&elf(0, &[notes, load(0x20_0000, 1, 1)])), expected);
    }

    #[test]
    fn elf_pvh_entry_outside_every_segment_is_refused() {
        let file = elf(0x20_0000, &[load(0x20_0000, 256, 4096), pvh_notes(0x20_0100)]);
        assert_eq!(complaint(&file), "the PVH entry 0x200100 is outside every segment");
    }

    #[test]
    fn elf_entry_outside_every_segment_is_refused() {
        let file = elf(0x20_0100, &[load(0x20_0000, 256, 4096)]);
        assert_eq!(complaint(&file), "the entry 0x200100 is outside every segment, and there is no PVH note");
    }
}
