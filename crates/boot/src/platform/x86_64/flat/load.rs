//! Executes a [`FlatPlan`]: writes guest memory.

use std::io::{self, Read, Seek};
use std::ops::Range;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError, ReadVolatile};
use vmm_memory::Memory;

use crate::copy::{self, FileError};
use crate::elf_format::Segment;
use crate::platform::x86_64::flat::contents::FlatContentsError;
use crate::platform::x86_64::flat::image::FlatImage;
use crate::platform::x86_64::flat::image_error::FlatImageError;
use crate::platform::x86_64::flat::plan::FlatPlan;
use crate::platform::x86_64::flat::relocation::{Relocation, Relocations};
use crate::platform::x86_64::flat::relocation_error::RelocationError;
use crate::reader::Reader;

/// Errors from writing guest memory. What has been written remains.
#[derive(Debug, thiserror::Error)]
pub enum FlatLoadError {
    /// The file differs from the one that was inspected.
    #[error("the image changed after it was inspected")]
    ImageChanged {
        /// What is wrong with it now, if anything.
        source: Option<FlatImageError>,
    },
    /// The contents of the image can't run.
    #[error(transparent)]
    Contents(#[from] FlatContentsError),
    /// Reading the image failed.
    #[error("copying the image into guest memory")]
    Image(#[source] GuestMemoryError),
    /// The number of modules isn't the planned one.
    #[error("{given} modules were given, but {planned} were planned")]
    ModuleCount {
        /// Number of modules in the plan.
        planned: usize,
        /// Number of files given.
        given: usize,
    },
    /// The length of a module isn't the planned one.
    #[error("module {index} has {found} bytes, but had {planned}")]
    ModuleChanged {
        /// Index of the module.
        index: usize,
        /// Length in the plan.
        planned: u64,
        /// Length now.
        found: u64,
    },
    /// Reading a module failed.
    #[error("copying module {index} into guest memory")]
    Module {
        /// Index of the module.
        index: usize,
        /// Error from the copy.
        source: GuestMemoryError,
    },
    /// There is no guest memory at an address.
    #[error("writing {what} at {gpa:#x}")]
    Write {
        /// Name of what was written.
        what: &'static str,
        /// Guest-physical address.
        gpa: u64,
        /// Error from the write.
        source: GuestMemoryError,
    },
}

impl FlatPlan {
    /// Writes the image, its modules and the tables of its mode to `memory`, which must be the plan's RAM.
    ///
    /// `image` is the file that was inspected; `modules` are those whose lengths were planned, in the same
    /// order. All are read directly into guest memory, and their positions are unspecified afterwards.
    /// Nothing outside [`FlatPlan::placements`] is written.
    ///
    /// # Errors
    /// A file can't be read or isn't as planned, the image can't run, or `memory` isn't the plan's RAM.
    pub fn load<'m, F>(
        &self,
        memory: &Memory,
        image: &mut F,
        modules: impl IntoIterator<Item = &'m mut F>,
    ) -> Result<(), FlatLoadError>
    where
        F: Read + ReadVolatile + Seek + 'm,
    {
        match FlatImage::inspect(image) {
            Ok(now) if now == *self.image() => {}
            Ok(_) => return Err(FlatLoadError::ImageChanged { source: None }),
            Err(error) => return Err(FlatLoadError::ImageChanged { source: Some(error) }),
        }
        self.check_contents(image)?;
        for segment in self.segments() {
            load_segment(memory, segment, image)?;
        }
        if let Some(relocations) = self.image().elf().and_then(|elf| elf.relocations()) {
            self.relocate(memory, relocations, image)?;
        }
        self.load_modules(memory, modules)?;
        for table in self.tables() {
            let write = memory.write_slice(&table.bytes, GuestAddress(table.gpa));
            write.map_err(|source| FlatLoadError::Write { what: table.what, gpa: table.gpa, source })?;
        }
        Ok(())
    }

    /// Adds the bias to each word that has a relocation.
    fn relocate<F: Read + Seek>(
        &self,
        memory: &Memory,
        relocations: &Relocations,
        file: &mut F,
    ) -> Result<(), FlatLoadError> {
        let word_len = relocations.word_len();
        relocations.for_each(&mut Reader::new(file)?, |Relocation { at, addend }| {
            let gpa = at.wrapping_add(self.bias());
            // Checked when the file was inspected, but it may have changed since.
            let inside = |segment: &Segment| {
                let memory = segment.memory();
                gpa >= memory.start && gpa.checked_add(word_len).is_some_and(|end| end <= memory.end)
            };
            if !self.segments().iter().any(inside) {
                return Err(RelocationError::Target { at }.into());
            }
            write_word(memory, gpa, word_len, addend, self.bias()).map_err(|source| FlatLoadError::Write {
                what: "a relocated address",
                gpa,
                source,
            })
        })
    }

    fn load_modules<'m, F>(
        &self,
        memory: &Memory,
        files: impl IntoIterator<Item = &'m mut F>,
    ) -> Result<(), FlatLoadError>
    where
        F: ReadVolatile + Seek + 'm,
    {
        let planned = self.modules().len();
        let mut files = files.into_iter();
        for (index, range) in self.modules().enumerate() {
            let file = files.next().ok_or(FlatLoadError::ModuleCount { planned, given: index })?;
            load_module(memory, index, range, file)?;
        }
        match files.count() {
            0 => Ok(()),
            more => Err(FlatLoadError::ModuleCount { planned, given: planned + more }),
        }
    }
}

impl From<io::Error> for FlatLoadError {
    fn from(error: io::Error) -> Self {
        Self::Image(GuestMemoryError::IOError(error))
    }
}

impl From<RelocationError> for FlatLoadError {
    /// The relocations were valid when the file was inspected.
    fn from(error: RelocationError) -> Self {
        Self::ImageChanged { source: Some(error.into()) }
    }
}

fn load_segment<F>(memory: &Memory, segment: &Segment, file: &mut F) -> Result<(), FlatLoadError>
where
    F: ReadVolatile + Seek,
{
    copy::segment(memory, segment, file).map_err(FlatLoadError::Image)?;
    let bss = segment.file_backed().end..segment.memory().end;
    let (what, gpa) = ("zeros behind a segment", bss.start);
    copy::zeros(memory, bss).map_err(|source| FlatLoadError::Write { what, gpa, source })
}

/// Writes a word of 4 or 8 bytes: `addend`, or its previous value, plus `bias`.
fn write_word(
    memory: &Memory,
    gpa: u64,
    len: u64,
    addend: Option<u64>,
    bias: u64,
) -> Result<(), GuestMemoryError> {
    let mut bytes = [0; 8];
    let word = &mut bytes[..len as usize];
    memory.read_slice(word, GuestAddress(gpa))?;
    let value = addend.unwrap_or(u64::from_le_bytes(bytes)).wrapping_add(bias);
    memory.write_slice(&value.to_le_bytes()[..len as usize], GuestAddress(gpa))
}

fn load_module<F>(memory: &Memory, index: usize, range: Range<u64>, file: &mut F) -> Result<(), FlatLoadError>
where
    F: ReadVolatile + Seek,
{
    copy::whole_file(memory, &range, file).map_err(|error| match error {
        FileError::Changed(found) => {
            FlatLoadError::ModuleChanged { index, planned: range.end - range.start, found }
        }
        FileError::Copy(source) => FlatLoadError::Module { index, source },
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use vmm_arch::flat::Mode;
    use vmm_arch::layout;
    use vmm_memory::GuestRam;

    use super::*;
    use crate::platform::x86_64::flat::spec::{FlatSpec, ModuleSpec};
    use crate::platform::x86_64::flat::testing::{
        Part, elf32, elf64, inspected, load, multiboot_elf, multiboot_raw, pie32, pie64, rela,
    };
    use crate::testing::{ShortReads, patched};

    const RAM_LEN: u64 = 4 << 20;

    /// RAM that has been used before.
    fn used_ram() -> GuestRam {
        let ram = GuestRam::new(&layout::ram_ranges(RAM_LEN)).unwrap();
        ram.memory().write_slice(&vec![0xee; RAM_LEN as usize], GuestAddress(0)).unwrap();
        ram
    }

    fn bytes<const N: usize>(ram: &GuestRam, gpa: u64) -> [u8; N] {
        let mut bytes = [0; N];
        ram.memory().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        bytes
    }

    fn word<T: vm_memory::ByteValued>(ram: &GuestRam, gpa: u64) -> T {
        ram.memory().read_obj(GuestAddress(gpa)).unwrap()
    }

    /// Plans `file` with `change` applied to the spec, and loads it.
    fn loaded(file: &[u8], change: impl FnOnce(&mut FlatSpec<'_>)) -> GuestRam {
        let (image, ranges) = (inspected(file), layout::ram_ranges(RAM_LEN));
        let mut spec = FlatSpec::new(&image, &ranges);
        change(&mut spec);
        let ram = used_ram();
        FlatPlan::new(&spec).unwrap().load(ram.memory(), &mut Cursor::new(file), []).unwrap();
        ram
    }

    fn multiboot_plan(file: &[u8], modules: &[ModuleSpec<'_>]) -> FlatPlan {
        let (image, ranges) = (inspected(file), layout::ram_ranges(RAM_LEN));
        FlatPlan::new(&FlatSpec { modules, ..FlatSpec::new(&image, &ranges) }).unwrap()
    }

    #[test]
    fn load_raw_writes_nothing_but_the_image() {
        let ram = loaded(b"\xb0\x2a\xf4", |_| {});
        assert_eq!(bytes(&ram, 0), [0xb0, 0x2a, 0xf4, 0xee]);
        assert_eq!(bytes(&ram, layout::GDT), [0xee; 48]);
    }

    #[test]
    fn load_raw_in_long_mode_writes_the_tables() {
        let ram = loaded(b"\xf4", |spec| spec.mode = Some(Mode::Long));
        assert_eq!(bytes(&ram, 0x10_0000), [0xf4, 0xee]);
        assert_eq!(word::<u64>(&ram, layout::GDT + 16), 0x00af_9b00_0000_ffff);
        assert_eq!(word::<[u64; 2]>(&ram, layout::PML4), [layout::PDPT | 3, 0]);
    }

    #[test]
    fn load_elf_zeroes_the_bss_and_nothing_behind_it() {
        let ram = loaded(&elf32(2, 0x10_0000, &[load(0x10_0000, 4, 8)]), |_| {});
        assert_eq!(bytes(&ram, 0x10_0000), [0xcc, 0xcc, 0xcc, 0xcc, 0, 0, 0, 0, 0xee]);
    }

    #[test]
    fn load_elf_goes_to_physical_addresses() {
        let part = Part { vaddr: 0xffff_8000_0000_0000, ..load(0x20_0000, 4, 4) };
        let ram = loaded(&elf64(2, 0xffff_8000_0000_0000, &[part]), |_| {});
        assert_eq!(bytes(&ram, 0x20_0000), [0xcc, 0xcc, 0xcc, 0xcc, 0xee]);
    }

    #[test]
    fn load_pie64_is_relocated_to_where_it_is() {
        let file = pie64(&[(7, 0x100), (8, 24)], &rela(0x80, 8, 0x1234));
        let ram = loaded(&file, |spec| spec.load_address = Some(0x20_0000));
        assert_eq!(word::<u64>(&ram, 0x20_0080), 0x20_1234);
        assert_eq!(bytes(&ram, 0x20_007f), [0xcc]);
        assert_eq!(bytes(&ram, 0x20_0088), [0xcc]);
    }

    #[test]
    fn load_pie32_adds_to_what_the_word_holds() {
        let table = [0x80_u32, 8].map(u32::to_le_bytes).concat();
        let ram = loaded(&pie32(&[(17, 0x100), (18, 8)], &table), |_| {});
        assert_eq!(word::<[u32; 2]>(&ram, 0x10_0080), [0xcccc_cccc + 0x10_0000, 0xcccc_cccc]);
    }

    #[test]
    fn load_pie_of_more_relocations_than_are_read_at_once_applies_the_last() {
        let mut text = load(0, 0x1_0000, 0x1_0000);
        // 1,500 entries of 24 bytes at 0x100, for the 1,500 words from 0xa000 on.
        let table: Vec<u8> = (0..1500).flat_map(|n| rela(0xa000 + 8 * n, 8, n)).collect();
        text.bytes[0x100..0x100 + table.len()].copy_from_slice(&table);
        let dynamic = [7_u64, 0x100, 8, 36_000].map(u64::to_le_bytes).concat();
        let dynamic = Part { kind: 2, bytes: dynamic, ..load(0, 0, 0) };
        let ram = loaded(&elf64(3, 0, &[text, dynamic]), |_| {});
        assert_eq!(word::<u64>(&ram, 0x10_a000), 0x10_0000);
        assert_eq!(word::<u64>(&ram, 0x10_a000 + 8 * 1499), 0x10_0000 + 1499);
    }

    #[test]
    fn load_multiboot_fills_memory_as_planned() {
        let file = multiboot_elf(3);
        let plan = multiboot_plan(&file, &[ModuleSpec { len: 3, cmdline: "mod" }]);
        let ram = used_ram();
        plan.load(ram.memory(), &mut Cursor::new(file), [&mut Cursor::new(b"abc".to_vec())]).unwrap();
        assert_eq!(word::<u32>(&ram, 0x10_0000), 0x1bad_b002);
        assert_eq!(&bytes(&ram, 0x10_1000), b"abc\xee");
        assert_eq!(word::<[u32; 3]>(&ram, layout::MULTIBOOT_MODULES), [0x10_1000, 0x10_1003, 0x6000]);
        assert_eq!(&bytes(&ram, layout::MULTIBOOT_STRINGS), b"mod\0\xee");
    }

    #[test]
    fn load_multiboot_by_addresses_takes_that_part_of_the_file() {
        let file = multiboot_raw(32, [0x10_0010, 0x10_0000, 0x10_0050, 0x10_0060, 0x10_0030], 128);
        let ram = loaded(&file, |_| {});
        assert_eq!(bytes(&ram, 0x0f_ffff), [0xee, 0xcc]);
        assert_eq!(word::<u32>(&ram, 0x10_0010), 0x1bad_b002);
        assert_eq!(bytes(&ram, 0x10_004f), [0xcc, 0]);
        assert_eq!(bytes(&ram, 0x10_005f), [0, 0xee]);
    }

    #[test]
    fn load_image_that_shrank_is_an_error() {
        let (file, ram) = (multiboot_elf(0), used_ram());
        let plan = multiboot_plan(&file, &[]);
        let error = plan.load(ram.memory(), &mut Cursor::new(&file[..100]), []).unwrap_err();
        assert_eq!(error.to_string(), "the image changed after it was inspected");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(
            cause,
            "program header 0: p_offset 0x54 + p_filesz 0x40 is beyond the end of the file at 0x64"
        );
    }

    #[test]
    fn load_image_of_another_kind_is_an_error() {
        let plan = multiboot_plan(&multiboot_elf(0), &[]);
        let error = plan.load(used_ram().memory(), &mut Cursor::new(b"\xf4"), []).unwrap_err();
        assert!(matches!(error, FlatLoadError::ImageChanged { source: None }), "{error:?}");
    }

    #[test]
    fn load_relocations_that_changed_unnoticed_stay_inside_the_image() {
        // The relocations are valid when planned; when they are applied, the table has the same length but a
        // wrong entry.
        let good = pie64(&[(7, 0x100), (8, 24)], &rela(0x80, 8, 0));
        let bad = patched(good.clone(), 64 + 2 * 56 + 0x100, &0x1_0000_u64.to_le_bytes());
        let plan = multiboot_plan(&good, &[]);
        let relocations = plan.image().elf().unwrap().relocations().unwrap();
        let error = plan.relocate(used_ram().memory(), relocations, &mut Cursor::new(bad)).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, "the relocation at 0x10000 is outside every segment");
    }

    /// Like reads of an image of 2 GiB or more.
    #[test]
    fn load_by_short_reads_is_whole() {
        let file = multiboot_elf(0);
        let plan = multiboot_plan(&file, &[ModuleSpec { len: 12, cmdline: "" }]);
        let (whole, short) = (used_ram(), used_ram());
        plan.load(whole.memory(), &mut Cursor::new(&file[..]), [&mut Cursor::new(&b"a module's 1"[..])])
            .unwrap();
        plan.load(short.memory(), &mut ShortReads::new(&file), [&mut ShortReads::new(b"a module's 1")])
            .unwrap();
        let [whole, short] = [whole, short].map(|ram| {
            let mut bytes = vec![0; RAM_LEN as usize];
            ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
            bytes
        });
        assert!(whole == short);
    }

    #[test]
    fn load_module_of_another_length_is_an_error() {
        let file = multiboot_elf(0);
        let plan = multiboot_plan(&file, &[ModuleSpec { len: 3, cmdline: "" }]);
        let mut module = Cursor::new(b"abcd".to_vec());
        let error = plan.load(used_ram().memory(), &mut Cursor::new(file), [&mut module]).unwrap_err();
        assert_eq!(error.to_string(), "module 0 has 4 bytes, but had 3");
    }

    #[test]
    fn load_with_too_few_or_too_many_modules_is_an_error() {
        let file = multiboot_elf(0);
        let plan = multiboot_plan(&file, &[ModuleSpec { len: 1, cmdline: "" }]);
        let error = plan.load(used_ram().memory(), &mut Cursor::new(file.clone()), []).unwrap_err();
        assert_eq!(error.to_string(), "0 modules were given, but 1 were planned");
        let (mut first, mut second) = (Cursor::new(vec![1]), Cursor::new(vec![1]));
        let modules = [&mut first, &mut second];
        let error = plan.load(used_ram().memory(), &mut Cursor::new(file), modules).unwrap_err();
        assert_eq!(error.to_string(), "2 modules were given, but 1 were planned");
    }

    #[test]
    fn load_into_other_ram_than_planned_is_an_error() {
        let file = multiboot_elf(0);
        let small = GuestRam::new(&[0..0x10_0000]).unwrap();
        let plan = multiboot_plan(&file, &[]);
        let error = plan.load(small.memory(), &mut Cursor::new(file), []).unwrap_err();
        assert_eq!(error.to_string(), "copying the image into guest memory");
    }
}
