//! Relocations of a position-independent executable (System V ABI, "Dynamic Linking"; its processor
//! supplements for i386 and AMD64).

use std::io::{self, Read, Seek};

use crate::elf_format::{ElfClass, Segment};
use crate::elf_header::ProgramHeader;
use crate::platform::x86_64::flat::image_error::FlatImageError;
use crate::platform::x86_64::flat::relocation_error::{MAX_DYNAMIC_LEN, NONE, RELATIVE, RelocationError};
use crate::reader::{Reader, u32_at, u64_at};

/// The relocation tables of a static position-independent executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relocations {
    class: ElfClass,
    tables: Vec<Table>,
}

/// A relocation table, entirely inside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Table {
    offset: u64,
    len: u64,
}

/// A word that depends on the load address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relocation {
    /// Virtual address of the word.
    pub(crate) at: u64,
    /// The value to which the load address is added; the word's previous value if `None`.
    pub(crate) addend: Option<u64>,
}

/// Tags of dynamic entries.
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_PLTRELSZ: u64 = 2;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_REL: u64 = 17;
const DT_RELSZ: u64 = 18;
const DT_JMPREL: u64 = 23;
const DT_RELRSZ: u64 = 35;
/// Number of entries read at once.
const CHUNK: usize = 1024;
/// Length of an Elf64_Rela, the longer of both kinds.
const MAX_ENTRY_LEN: usize = 24;

/// Finds the relocations and checks each of them.
pub(crate) fn inspect<F: Read + Seek>(
    class: ElfClass,
    dynamic: Option<&ProgramHeader>,
    segments: &[Segment],
    reader: &mut Reader<'_, F>,
) -> Result<Relocations, FlatImageError> {
    let mut relocations = Relocations { class, tables: Vec::new() };
    let Some(dynamic) = dynamic else { return Ok(relocations) };
    let entries = dynamic_entries(class, dynamic, reader)?;
    let value = |tag: u64| entries.iter().find(|entry| entry.0 == tag).map_or(0, |entry| entry.1);
    check_form(class, &entries)?;
    let main = match class {
        ElfClass::Elf32 => (value(DT_REL), value(DT_RELSZ)),
        ElfClass::Elf64 => (value(DT_RELA), value(DT_RELASZ)),
    };
    for (at, len) in [main, (value(DT_JMPREL), value(DT_PLTRELSZ))] {
        if len > 0 {
            relocations.tables.push(table(class, at, len, segments)?);
        }
    }
    relocations.for_each(reader, |Relocation { at, .. }| -> Result<(), FlatImageError> {
        let inside = segments.iter().any(|segment| relocations.fits(at, segment));
        if inside { Ok(()) } else { Err(RelocationError::Target { at }.into()) }
    })?;
    Ok(relocations)
}

impl Relocations {
    /// Length of a relocated word in bytes.
    pub(crate) fn word_len(&self) -> u64 {
        u64::from(self.class.bits() / 8)
    }

    /// Passes every relocation of the file to `apply`, reading a bounded number at a time.
    ///
    /// # Errors
    /// The file can't be read, a relocation isn't relative, or `apply` fails.
    pub(crate) fn for_each<F, E>(
        &self,
        reader: &mut Reader<'_, F>,
        mut apply: impl FnMut(Relocation) -> Result<(), E>,
    ) -> Result<(), E>
    where
        F: Read + Seek,
        E: From<io::Error> + From<RelocationError>,
    {
        let entry_len = entry_len(self.class);
        let mut buffer = [0; CHUNK * MAX_ENTRY_LEN];
        for table in &self.tables {
            let mut offset = table.offset;
            let end = table.offset + table.len;
            while offset < end {
                let len = (end - offset).min((CHUNK * entry_len) as u64) as usize;
                reader.fill(offset, &mut buffer[..len])?;
                for entry in buffer[..len].chunks_exact(entry_len) {
                    parse(self.class, entry)?.map_or(Ok(()), &mut apply)?;
                }
                offset += len as u64;
            }
        }
        Ok(())
    }

    /// Whether the word at `at` is inside `segment`, whose address is virtual too.
    fn fits(&self, at: u64, segment: &Segment) -> bool {
        let into = at.checked_sub(segment.paddr);
        into.and_then(|into| into.checked_add(self.word_len())).is_some_and(|end| end <= segment.mem_len)
    }
}

/// Tags and values of the dynamic section.
fn dynamic_entries<F: Read + Seek>(
    class: ElfClass,
    dynamic: &ProgramHeader,
    reader: &mut Reader<'_, F>,
) -> Result<Vec<(u64, u64)>, FlatImageError> {
    dynamic.check_file_range(reader.len())?;
    if dynamic.file_len > MAX_DYNAMIC_LEN {
        return Err(RelocationError::DynamicTooLong { len: dynamic.file_len }.into());
    }
    let mut bytes = vec![0; dynamic.file_len as usize];
    reader.fill(dynamic.offset, &mut bytes)?;
    let entries: Box<dyn Iterator<Item = (u64, u64)>> = match class {
        ElfClass::Elf32 => {
            Box::new(bytes.chunks_exact(8).map(|e| (u32_at(e, 0).into(), u32_at(e, 4).into())))
        }
        ElfClass::Elf64 => Box::new(bytes.chunks_exact(16).map(|e| (u64_at(e, 0), u64_at(e, 8)))),
    };
    Ok(entries.take_while(|entry| entry.0 != DT_NULL).collect())
}

/// Refuses executables that need a dynamic loader, and kinds of relocations that the ABI doesn't use on this
/// processor.
fn check_form(class: ElfClass, entries: &[(u64, u64)]) -> Result<(), RelocationError> {
    let foreign = match class {
        ElfClass::Elf32 => (DT_RELASZ, "DT_RELA"),
        ElfClass::Elf64 => (DT_RELSZ, "DT_REL"),
    };
    for (tag, value) in entries.iter().copied() {
        match tag {
            DT_NEEDED => return Err(RelocationError::Needed),
            DT_RELRSZ if value > 0 => {
                let remedy = "link it without -z pack-relative-relocs";
                return Err(RelocationError::Form { name: "DT_RELR", remedy });
            }
            tag if tag == foreign.0 && value > 0 => {
                let remedy = "link it with -no-pie";
                return Err(RelocationError::Form { name: foreign.1, remedy });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Finds the table at virtual address `at` in the file.
fn table(class: ElfClass, at: u64, len: u64, segments: &[Segment]) -> Result<Table, RelocationError> {
    let entry_len = entry_len(class) as u64;
    if !len.is_multiple_of(entry_len) {
        return Err(RelocationError::Partial { len, entry_len });
    }
    let offset = segments.iter().find_map(|segment| {
        let into = at.checked_sub(segment.paddr)?;
        (into.checked_add(len)? <= segment.file_len).then_some(segment.offset + into)
    });
    let offset = offset.ok_or(RelocationError::Outside { at, len })?;
    Ok(Table { offset, len })
}

/// Length of an Elf32_Rel or an Elf64_Rela.
fn entry_len(class: ElfClass) -> usize {
    match class {
        ElfClass::Elf32 => 8,
        ElfClass::Elf64 => MAX_ENTRY_LEN,
    }
}

/// Parses an entry; `None` if it has no effect.
fn parse(class: ElfClass, entry: &[u8]) -> Result<Option<Relocation>, RelocationError> {
    let (at, kind, addend) = match class {
        // The type is the low byte of r_info; the symbol is above it.
        ElfClass::Elf32 => (u32_at(entry, 0).into(), u32_at(entry, 4) & 0xff, None),
        ElfClass::Elf64 => (u64_at(entry, 0), u32_at(entry, 8), Some(u64_at(entry, 16))),
    };
    match kind {
        NONE => Ok(None),
        RELATIVE => Ok(Some(Relocation { at, addend })),
        kind => Err(RelocationError::Type { class, at, kind }),
    }
}

#[cfg(test)]
mod tests {
    use crate::platform::x86_64::flat::testing::{complaint, inspected, pie32, pie64, rela};

    #[test]
    fn relocations_that_are_relative_are_taken() {
        inspected(&pie64(&[(7, 0x100), (8, 24)], &rela(0x80, 8, 0x10)));
        inspected(&pie32(&[(17, 0x100), (18, 8)], &[0x80_u32, 8].map(u32::to_le_bytes).concat()));
    }

    #[test]
    fn relocation_of_type_none_is_skipped() {
        inspected(&pie64(&[(7, 0x100), (8, 24)], &rela(u64::MAX, 0, 0)));
    }

    #[test]
    fn relocation_of_another_type_is_named() {
        let expected = "the relocation at 0x80 is of type 6 (R_X86_64_GLOB_DAT); only R_X86_64_RELATIVE is \
                        applied, so link it with -static-pie or -no-pie";
        assert_eq!(complaint(&pie64(&[(7, 0x100), (8, 24)], &rela(0x80, 6, 0))), expected);
    }

    #[test]
    fn relocation_of_the_procedure_linkage_table_is_named() {
        let expected = "the relocation at 0x80 is of type 7 (R_386_JMP_SLOT); only R_386_RELATIVE is applied, \
                        so link it with -static-pie or -no-pie";
        let table = [0x80_u32, 0x507].map(u32::to_le_bytes).concat();
        assert_eq!(complaint(&pie32(&[(23, 0x100), (2, 8)], &table)), expected);
    }

    #[test]
    fn relocation_outside_every_segment_is_refused() {
        // The last byte of the word at 0x1f9 is just past the segment's 0x200 bytes.
        let file = pie64(&[(7, 0x100), (8, 24)], &rela(0x1f9, 8, 0));
        assert_eq!(complaint(&file), "the relocation at 0x1f9 is outside every segment");
    }

    #[test]
    fn relocation_at_the_end_of_64_bits_is_refused() {
        let file = pie64(&[(7, 0x100), (8, 24)], &rela(u64::MAX - 7, 8, 0));
        assert_eq!(complaint(&file), "the relocation at 0xfffffffffffffff8 is outside every segment");
    }

    #[test]
    fn relocation_table_outside_the_file_is_refused() {
        let file = pie64(&[(7, 0x1e9), (8, 24)], &[]);
        let expected = "the 0x18 bytes of relocations at 0x1e9 lie outside what the file fills of a segment";
        assert_eq!(complaint(&file), expected);
    }

    #[test]
    fn relocation_table_that_ends_inside_an_entry_is_refused() {
        let expected = "25 bytes of relocations are no multiple of 24, the length of one";
        assert_eq!(complaint(&pie64(&[(7, 0x100), (8, 25)], &[])), expected);
    }

    #[test]
    fn relocations_that_are_packed_are_refused() {
        let expected = "has relocations of a kind that isn't applied (DT_RELR); link it without -z \
                        pack-relative-relocs";
        assert_eq!(complaint(&pie64(&[(36, 0x100), (35, 8)], &[])), expected);
    }

    #[test]
    fn relocations_of_the_other_class_are_refused() {
        let expected = "has relocations of a kind that isn't applied (DT_REL); link it with -no-pie";
        assert_eq!(complaint(&pie64(&[(17, 0x100), (18, 16)], &[])), expected);
        let expected = "has relocations of a kind that isn't applied (DT_RELA); link it with -no-pie";
        assert_eq!(complaint(&pie32(&[(7, 0x100), (8, 12)], &[])), expected);
    }

    #[test]
    fn shared_libraries_are_refused() {
        let expected = "needs shared libraries (DT_NEEDED); link it with -static-pie or -no-pie";
        assert_eq!(complaint(&pie64(&[(1, 7)], &[])), expected);
    }

    #[test]
    fn dynamic_entries_behind_the_null_entry_are_ignored() {
        inspected(&pie64(&[(0, 0), (1, 7)], &[]));
    }

    #[test]
    fn dynamic_section_of_more_than_64_kib_is_refused() {
        let expected = "the dynamic section has 65552 bytes; at most 65536 are read";
        assert_eq!(complaint(&pie64(&[(5, 0); 4097], &[])), expected);
    }
}
