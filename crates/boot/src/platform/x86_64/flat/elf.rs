//! Bare-metal executables: 32-bit for i386, 64-bit for x86_64.

use std::fmt;
use std::io::{Read, Seek};

use vmm_arch::flat::Mode;

use crate::elf_format::{self, EM_386, EM_X86_64, ElfClass, Segment};
use crate::elf_header::{self, Header, Identity};
use crate::platform::x86_64::flat::image_error::FlatImageError;
use crate::platform::x86_64::flat::relocation::{self, Relocations};
use crate::reader::Reader;

/// An executable: its segments, its entry and its relocations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatElf {
    class: ElfClass,
    segments: Vec<Segment>,
    e_entry: u64,
    entry: Option<u64>,
    relocations: Option<Relocations>,
}

impl FlatElf {
    /// Size of its addresses.
    pub fn class(&self) -> ElfClass {
        self.class
    }

    /// The segments, in ascending order of address; never empty, never overlapping. Addresses are physical if
    /// the executable has fixed addresses, and virtual if it is position-independent.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Address of the first instruction, in the same address space as the segments; `None` if it is in no
    /// segment.
    pub fn entry(&self) -> Option<u64> {
        self.entry
    }

    /// Whether it can be loaded anywhere.
    pub fn is_position_independent(&self) -> bool {
        self.relocations.is_some()
    }

    /// e_entry, a virtual address.
    pub(crate) fn e_entry(&self) -> u64 {
        self.e_entry
    }

    /// The relocations of a position-independent executable.
    pub(crate) fn relocations(&self) -> Option<&Relocations> {
        self.relocations.as_ref()
    }

    pub(crate) fn default_mode(&self) -> Mode {
        match self.class {
            ElfClass::Elf32 => Mode::Protected,
            ElfClass::Elf64 => Mode::Long,
        }
    }
}

impl fmt::Display for FlatElf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ELF{}, {} segments", self.class.bits(), self.segments.len())?;
        if self.is_position_independent() {
            write!(f, ", position-independent")?;
        }
        if let Some(entry) = self.entry {
            write!(f, ", entry {entry:#x}")?;
        }
        Ok(())
    }
}

/// Reads and checks the ELF's headers.
pub(crate) fn inspect<F: Read + Seek>(reader: &mut Reader<'_, F>) -> Result<FlatElf, FlatImageError> {
    let file_len = reader.len();
    let truncated = FlatImageError::Truncated { len: file_len, structure: "ELF header" };
    if file_len < ElfClass::Elf32.header_len() {
        return Err(truncated);
    }
    let identity = Identity::read(reader)?;
    let class = class(&identity)?;
    if file_len < class.header_len() {
        return Err(truncated);
    }
    let header = Header::read(class, reader)?;
    let anywhere = is_position_independent(identity.kind)?;

    let mut segments = Vec::new();
    let mut entry = None;
    let mut dynamic = None;
    for index in header.program_headers(file_len)? {
        let mut program = header.program_header(index, reader)?;
        if anywhere {
            // Dynamic loaders use only virtual addresses, and so do relocations.
            program.paddr = program.vaddr;
        }
        match program.kind {
            elf_format::PT_LOAD => {
                let segment = program.segment(file_len)?;
                // e_entry is virtual: its offset in the segment is the same as that of the physical address.
                let into = header.entry.checked_sub(program.vaddr).filter(|into| *into < program.file_len);
                entry = entry.or(segment.zip(into).map(|(segment, into)| segment.paddr + into));
                segments.extend(segment);
            }
            elf_format::PT_DYNAMIC => dynamic = Some(program),
            elf_format::PT_INTERP if anywhere => {
                return Err(FlatImageError::Interpreter { segment: index });
            }
            _ => {}
        }
    }
    let segments = elf_header::in_order(segments)?;
    let relocations =
        anywhere.then(|| relocation::inspect(class, dynamic.as_ref(), &segments, reader)).transpose()?;
    Ok(FlatElf { class, segments, e_entry: header.entry, entry, relocations })
}

/// Checks that the ELF is little-endian and for i386 or x86_64, and returns its class.
fn class(identity: &Identity) -> Result<ElfClass, FlatImageError> {
    let &Identity { class, data, machine, .. } = identity;
    if data != elf_format::ELFDATA2LSB {
        return Err(FlatImageError::Endianness { data });
    }
    match (class, machine) {
        (elf_format::ELFCLASS32, EM_386) => Ok(ElfClass::Elf32),
        (elf_format::ELFCLASS64, EM_X86_64) => Ok(ElfClass::Elf64),
        (class, machine) => Err(FlatImageError::Machine { class, machine }),
    }
}

fn is_position_independent(kind: u16) -> Result<bool, FlatImageError> {
    let name = match kind {
        elf_format::ET_EXEC => return Ok(false),
        elf_format::ET_DYN => return Ok(true),
        1 => "an object file or a module",
        4 => "a core file",
        _ => "unknown",
    };
    Err(FlatImageError::Type { kind, name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::x86_64::flat::image::FlatImage;
    use crate::platform::x86_64::flat::testing::{Part, complaint, elf32, elf64, inspected, load};
    use crate::testing::patched;

    fn flat_elf(file: &[u8]) -> FlatElf {
        match inspected(file) {
            FlatImage::Elf(elf) => elf,
            other => panic!("an ELF, not {other}"),
        }
    }

    #[test]
    fn elf32_is_read_by_its_own_layout() {
        let elf = flat_elf(&elf32(2, 0x10_0004, &[load(0x10_0000, 16, 4096)]));
        // The segment's bytes follow the header and one program header, at 52 + 32 = 84.
        let expected = [Segment { offset: 84, paddr: 0x10_0000, file_len: 16, mem_len: 4096 }];
        assert_eq!((elf.segments(), elf.entry()), (&expected[..], Some(0x10_0004)));
        assert_eq!(elf.to_string(), "ELF32, 1 segments, entry 0x100004");
    }

    #[test]
    fn elf32_is_started_in_protected_mode_and_elf64_in_long_mode() {
        let parts = [load(0x10_0000, 16, 16)];
        assert_eq!(inspected(&elf32(2, 0x10_0000, &parts)).default_mode(), Mode::Protected);
        assert_eq!(inspected(&elf64(2, 0x10_0000, &parts)).default_mode(), Mode::Long);
    }

    #[test]
    fn elf_virtual_entry_is_translated() {
        // A higher-half kernel: linked at -2 GiB + 2 MiB, loaded at 2 MiB.
        let part = Part { vaddr: 0xffff_ffff_8020_0000, ..load(0x20_0000, 256, 256) };
        let elf = flat_elf(&elf64(2, 0xffff_ffff_8020_0010, &[part]));
        assert_eq!(elf.entry(), Some(0x20_0010));
    }

    #[test]
    fn elf_entry_in_the_second_segment_is_translated_by_that() {
        let low = Part { vaddr: 0x4000_0000, ..load(0x20_0000, 16, 16) };
        let high = Part { vaddr: 0x5000_0000, ..load(0x10_0000, 16, 16) };
        assert_eq!(flat_elf(&elf64(2, 0x5000_0008, &[low, high])).entry(), Some(0x10_0008));
    }

    #[test]
    fn elf_entry_in_the_bss_is_none() {
        assert_eq!(flat_elf(&elf64(2, 0x10_0010, &[load(0x10_0000, 16, 4096)])).entry(), None);
    }

    #[test]
    fn elf_position_independent_counts_virtual_addresses() {
        let part = Part { vaddr: 0x1000, ..load(0x9000, 16, 16) };
        let elf = flat_elf(&elf64(3, 0x1008, &[part]));
        assert_eq!((elf.segments()[0].paddr, elf.entry()), (0x1000, Some(0x1008)));
        assert_eq!(elf.to_string(), "ELF64, 1 segments, position-independent, entry 0x1008");
    }

    #[test]
    fn elf_x32_is_refused() {
        let file = patched(elf32(2, 0x10_0000, &[load(0x10_0000, 16, 16)]), 18, &[62, 0]);
        let expected = "a 32-bit ELF for x86_64 (machine 62); a 32-bit one for i386 (machine 3) or a 64-bit \
                        one for x86_64 (machine 62) is needed";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_for_another_machine_is_named() {
        let file = patched(elf64(2, 0x10_0000, &[load(0x10_0000, 16, 16)]), 18, &[183, 0]);
        let expected = "a 64-bit ELF for aarch64 (machine 183); a 32-bit one for i386 (machine 3) or a 64-bit \
                        one for x86_64 (machine 62) is needed";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_big_endian_is_refused() {
        let file = patched(elf32(2, 0x10_0000, &[load(0x10_0000, 16, 16)]), 5, &[2]);
        let expected = "a big-endian ELF (data 2); a little-endian one for i386 or x86_64 is needed";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_object_file_is_refused() {
        let file = elf64(1, 0, &[load(0x10_0000, 16, 16)]);
        let expected = "e_type 1: an object file or a module; an executable (e_type 2, or 3 if it is static) \
                        is needed";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf_with_an_interpreter_is_refused() {
        let interpreter = Part { kind: 3, ..load(0x100, 16, 16) };
        let expected = "needs a dynamic loader (program header 1 is PT_INTERP); link it with -static-pie or \
                        -no-pie";
        assert_eq!(complaint(&elf64(3, 0, &[load(0, 16, 16), interpreter])), expected);
    }

    #[test]
    fn elf64_of_60_bytes_is_truncated() {
        let file = elf64(2, 0x10_0000, &[load(0x10_0000, 16, 16)]);
        assert_eq!(complaint(&file[..60]), "ends after 60 bytes, inside its ELF header");
    }

    #[test]
    fn elf32_wrong_phentsize_is_refused() {
        let file = patched(elf32(2, 0x10_0000, &[load(0x10_0000, 16, 16)]), 42, &[56, 0]);
        assert_eq!(complaint(&file), "e_phentsize 56: the program headers of a 32-bit ELF have 32 bytes");
    }

    #[test]
    fn elf32_segment_beyond_the_file_is_refused() {
        let file = patched(elf32(2, 0x10_0000, &[load(0x10_0000, 16, 16)]), 52 + 16, &[0xff; 8]);
        let expected = "program header 0: p_offset 0x54 + p_filesz 0xffffffff is beyond the end of the file at \
                        0x64";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn elf32_segments_that_overlap_are_refused() {
        let file = elf32(2, 0x10_0000, &[load(0x10_0000, 16, 4096), load(0x10_0fff, 1, 1)]);
        let expected = "segments overlap in memory: 0x100000..0x101000 and 0x100fff..0x101000";
        assert_eq!(complaint(&file), expected);
    }
}
