//! Checks of an image's contents, beyond its headers. They are made after planning, which stays pure.

use std::io::{self, Read, Seek};
use std::ops::Range;

use vmm_arch::flat::{Mode, Start, Tables};

use crate::elf_format::Segment;
use crate::platform::x86_64::flat::elf::FlatElf;
use crate::platform::x86_64::flat::error::Hex;
use crate::platform::x86_64::flat::place::RESET_VECTOR_IN_IMAGE;
use crate::platform::x86_64::flat::plan::FlatPlan;
use crate::reader::Reader;

/// Length of `add [bx+si], al`, the instruction that zeros encode.
const ZEROS_LEN: usize = 2;

/// Why the contents of an image can't run as planned.
#[derive(Debug, thiserror::Error)]
pub enum FlatContentsError {
    /// Reading or seeking failed.
    #[error("the image can't be read")]
    Read(#[from] io::Error),
    /// There are zeros at the reset vector. The processor would silently execute them as `add [bx+si], al`.
    #[error(
        "the image at {} holds zeros at {RESET_VECTOR_IN_IMAGE:#x}, where the processor starts in \"reset\" \
         mode; put a jump there, or load the image where it has one there (boot.flat.load_address)",
        Hex(image)
    )]
    ResetVector {
        /// The planned addresses of the image.
        image: Range<u64>,
    },
    /// The image's page tables don't map the first instruction, so fetching it would be a triple fault.
    #[error(
        "the image's page tables at {page_tables:#x} don't map its first instruction at {entry:#x}: entry {index} holds \
         {word:#x}, which isn't present; name the address of others (boot.flat.page_tables), or remove \"tables\""
    )]
    PageTables {
        /// Address of the page tables.
        page_tables: u64,
        /// Address of the first instruction.
        entry: u64,
        /// Index of the entry in the first table that should map it.
        index: u64,
        /// Value of that entry.
        word: u64,
    },
}

/// PTE bit 0: present (Intel SDM volume 3 §4.3, §4.5).
const PRESENT: u64 = 1;

impl FlatPlan {
    /// Checks the bytes of the image that decide whether it can start: the instruction at the reset vector in
    /// reset mode, and the entry of its own page tables for the first instruction, unless relocations may
    /// change it.
    ///
    /// [`FlatPlan::load`] checks the same; this method needs no guest memory.
    ///
    /// `image` is the file that was inspected. Its position is unspecified afterwards.
    ///
    /// # Errors
    /// The bytes can't be read, or the guest couldn't execute its first instruction.
    pub fn check_contents<F: Read + Seek>(&self, image: &mut F) -> Result<(), FlatContentsError> {
        match self.start() {
            Start { mode: Mode::Reset, .. } => self.check_reset_vector(image),
            Start { mode, entry, tables: Tables::Own { page_tables }, .. } if mode.has_paging() => {
                self.check_page_tables(image, mode, page_tables, entry)
            }
            _ => Ok(()),
        }
    }

    fn check_reset_vector<F: Read + Seek>(&self, image: &mut F) -> Result<(), FlatContentsError> {
        let mut instruction = [0; ZEROS_LEN];
        read_planned(self.segments(), image, RESET_VECTOR_IN_IMAGE, &mut instruction)?;
        if instruction == [0; ZEROS_LEN] {
            let image = self.segments().first().map_or(0..0, Segment::memory);
            return Err(FlatContentsError::ResetVector { image });
        }
        Ok(())
    }

    /// Checking the first of two or four levels suffices to tell whether there are page tables at all.
    fn check_page_tables<F: Read + Seek>(
        &self,
        image: &mut F,
        mode: Mode,
        page_tables: u64,
        entry: u64,
    ) -> Result<(), FlatContentsError> {
        if self.image().elf().is_some_and(FlatElf::is_position_independent) {
            return Ok(());
        }
        // A PML4 entry maps 512 GiB, a 32-bit page directory entry 4 MiB.
        let (index, len) =
            if mode == Mode::Long { (entry >> 39 & 0x1ff, 8) } else { (entry >> 22 & 0x3ff, 4) };
        let mut bytes = [0; 8];
        read_planned(self.segments(), image, page_tables + index * len, &mut bytes[..len as usize])?;
        let word = u64::from_le_bytes(bytes);
        if word & PRESENT == 0 {
            return Err(FlatContentsError::PageTables { page_tables, entry, index, word });
        }
        Ok(())
    }
}

/// Reads what the image will contain at `gpa`, zeros where it has nothing. Relocations aren't applied.
fn read_planned<F: Read + Seek>(
    segments: &[Segment],
    image: &mut F,
    gpa: u64,
    bytes: &mut [u8],
) -> io::Result<()> {
    bytes.fill(0);
    let mut reader = Reader::new(image)?;
    let wanted = gpa..gpa + bytes.len() as u64;
    for segment in segments {
        let filled = segment.file_backed();
        let (start, end) = (filled.start.max(wanted.start), filled.end.min(wanted.end));
        if start < end {
            let into = (start - wanted.start) as usize..(end - wanted.start) as usize;
            reader.fill(segment.offset + (start - filled.start), &mut bytes[into])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use vmm_arch::layout;
    use vmm_memory::GuestRam;

    use super::*;
    use crate::platform::x86_64::flat::load::FlatLoadError;
    use crate::platform::x86_64::flat::spec::FlatSpec;
    use crate::platform::x86_64::flat::spec::TableSource;
    use crate::platform::x86_64::flat::testing::inspected;

    /// A plan for `image` in reset mode with 1 MiB of RAM.
    fn reset_plan(image: &[u8], load_address: Option<u64>) -> FlatPlan {
        let (inspected, ram) = (inspected(image), layout::ram_ranges(1 << 20));
        FlatPlan::new(&FlatSpec { mode: Some(Mode::Reset), load_address, ..FlatSpec::new(&inspected, &ram) })
            .unwrap()
    }

    fn check(image: &[u8], load_address: Option<u64>) -> Result<(), FlatContentsError> {
        reset_plan(image, load_address).check_contents(&mut Cursor::new(image))
    }

    /// An image as gcc and ld make it, with the jump at 0xfff0 as its last instruction: zeros except for
    /// `bytes` at `at`.
    fn image_with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0xfff5];
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    }

    #[test]
    fn reset_vector_with_a_jump_is_good() {
        // ljmp 0xf000:0
        assert!(check(&image_with(0xfff0, b"\xea\0\0\0\xf0"), None).is_ok());
    }

    /// add [bx+si], cl: an instruction that starts with a zero.
    #[test]
    fn reset_vector_with_a_second_byte_is_good() {
        assert!(check(&image_with(0xfff1, b"\x08"), None).is_ok());
    }

    #[test]
    fn reset_vector_of_zeros_is_refused_with_the_remedy() {
        let error = check(&image_with(0xffe0, &[0xf4; 16]), None).unwrap_err();
        let expected = "the image at 0xf0000..0xffff5 holds zeros at 0xffff0, where the processor starts in \
                        \"reset\" mode; put a jump there, or load the image where it has one there \
                        (boot.flat.load_address)";
        assert_eq!(error.to_string(), expected);
    }

    /// The jump is 0xb bytes too high, because the image was placed to end at 1 MiB.
    #[test]
    fn reset_vector_beside_the_jump_is_refused() {
        let error = check(&image_with(0xfff0, b"\xea\0\0\0\xf0"), Some(0xf_000b)).unwrap_err();
        assert!(matches!(error, FlatContentsError::ResetVector { image } if image == (0xf_000b..0x10_0000)));
    }

    /// Checks an image at 0 with page tables at 0x1000, whose first PML4 entry is `first`.
    fn check_own_tables(first: u64) -> Result<(), FlatContentsError> {
        let mut image = vec![0xf4; 0x2000];
        image[0x1000..0x1008].copy_from_slice(&first.to_le_bytes());
        let (inspected, ram) = (inspected(&image), layout::ram_ranges(1 << 20));
        let tables = TableSource::Image { page_tables: Some(0x1000) };
        let (mode, load_address) = (Some(Mode::Long), Some(0));
        let plan = FlatPlan::new(&FlatSpec { mode, load_address, tables, ..FlatSpec::new(&inspected, &ram) })
            .unwrap();
        plan.check_contents(&mut Cursor::new(image))
    }

    #[test]
    fn own_page_tables_that_map_the_entry_are_good() {
        assert!(check_own_tables(0x3003).is_ok());
    }

    #[test]
    fn own_page_tables_that_do_not_map_the_entry_are_refused() {
        let expected = "the image's page tables at 0x1000 don't map its first instruction at 0x0: entry 0 holds 0x3002, \
                        which isn't present; name the address of others (boot.flat.page_tables), or remove \"tables\"";
        assert_eq!(check_own_tables(0x3002).unwrap_err().to_string(), expected);
    }

    #[test]
    fn load_checks_the_contents_too() {
        let image = vec![0; 0x1_0000];
        let ram = GuestRam::new(&layout::ram_ranges(1 << 20)).unwrap();
        let error = reset_plan(&image, None).load(ram.memory(), &mut Cursor::new(&image), []).unwrap_err();
        assert!(matches!(error, FlatLoadError::Contents(FlatContentsError::ResetVector { .. })), "{error:?}");
    }
}
