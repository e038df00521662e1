//! Executes a [`BootPlan`]: writes guest memory.

use std::io::{Read, Seek};
use std::ops::Range;

use linux_loader::cmdline::{self, Cmdline};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{self, BootConfigurator, BootParams};
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{self, Elf, KernelLoader, load_cmdline};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, ReadVolatile};
use vmm_arch::boot::{self, Protocol};
use vmm_arch::layout;
use vmm_memory::Memory;

use crate::copy::{self, FileError, FullReads};
use crate::files::{InitrdFile, KernelFile};
use crate::platform::x86_64::bzimage::BzImage;
use crate::platform::x86_64::elf::ElfImage;
use crate::platform::x86_64::image::KernelImage;
use crate::platform::x86_64::image_error::ImageError;
use crate::platform::x86_64::plan::BootPlan;
use crate::platform::x86_64::{pvh, zero_page};

/// Errors from writing guest memory. What has been written remains.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file differs from the one that was inspected.
    #[error("the kernel image changed after it was inspected")]
    KernelChanged {
        /// What is wrong with it now, if anything.
        source: Option<ImageError>,
    },
    /// linux-loader failed. Its errors have no source, and contain everything in their text.
    #[error("copying the kernel image into guest memory: {0}")]
    Kernel(loader::Error),
    /// Copying a segment that linux-loader doesn't load failed.
    #[error("copying the kernel image into guest memory")]
    Segment(#[source] GuestMemoryError),
    /// The length of the initrd isn't the planned one.
    #[error("the initrd has {found} bytes, but had {planned}")]
    InitrdChanged {
        /// Length in the plan.
        planned: u64,
        /// Length now.
        found: u64,
    },
    /// An initrd was planned but not given, or vice versa.
    #[error("an initrd was {}", if *planned { "planned, but not given" } else { "given, but not planned" })]
    InitrdMismatch {
        /// Whether the plan has an initrd.
        planned: bool,
    },
    /// Reading the initrd failed.
    #[error("copying the initrd into guest memory")]
    Initrd(#[source] GuestMemoryError),
    /// Writing the command line failed.
    #[error("copying the command line into guest memory: {0}")]
    CmdlineWrite(loader::Error),
    /// The command line is invalid.
    #[error("command line: {0}")]
    Cmdline(cmdline::Error),
    /// Writing the zero page or the start info failed.
    #[error("writing the boot parameters into guest memory: {0}")]
    BootParams(configurator::Error),
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

impl BootPlan {
    /// Writes the kernel, the initrd, the command line, the boot parameters and the tables that the entry
    /// needs to `memory`, which must be the plan's RAM.
    ///
    /// `kernel` is the file that was inspected, `initrd` the one whose length was planned. Both are read
    /// directly into guest memory, and their positions are unspecified afterwards. Nothing outside
    /// [`BootPlan::placements`] is written, unless the kernel's headers change during the load; that is an
    /// error, and the writes stay inside guest memory.
    ///
    /// # Errors
    /// A file can't be read or isn't as planned, or `memory` isn't the plan's RAM.
    pub fn load<F>(
        &self,
        memory: &Memory,
        kernel: &mut KernelFile<F>,
        initrd: Option<&mut InitrdFile<F>>,
    ) -> Result<(), LoadError>
    where
        F: Read + ReadVolatile + Seek,
    {
        let header = self.load_kernel(memory, &mut kernel.0)?;
        load_initrd(memory, self.initrd(), initrd.map(|initrd| &mut initrd.0))?;
        self.load_cmdline(memory)?;
        self.write_tables(memory)?;
        self.write_boot_params(memory, header)
    }

    /// Loads the kernel and returns the setup header for the zero page.
    fn load_kernel<F>(&self, memory: &Memory, file: &mut F) -> Result<setup_header, LoadError>
    where
        F: Read + ReadVolatile + Seek,
    {
        match KernelImage::inspect(file) {
            Ok(now) if now == *self.image() => {}
            Ok(_) => return Err(LoadError::KernelChanged { source: None }),
            Err(error) => return Err(LoadError::KernelChanged { source: Some(error) }),
        }
        match self.image() {
            KernelImage::Elf(elf) => load_elf(memory, elf, file),
            KernelImage::BzImage(bzimage) => load_bzimage(memory, bzimage, file),
        }
    }

    fn load_cmdline(&self, memory: &Memory) -> Result<(), LoadError> {
        let mut cmdline = Cmdline::new(layout::CMDLINE_MAX_LEN as usize).map_err(LoadError::Cmdline)?;
        cmdline.insert_str(self.cmdline()).map_err(LoadError::Cmdline)?;
        load_cmdline(memory, GuestAddress(self.cmdline_gpa()), &cmdline).map_err(LoadError::CmdlineWrite)
    }

    /// Writes the descriptor tables, and page tables for a long-mode entry.
    fn write_tables(&self, memory: &Memory) -> Result<(), LoadError> {
        let protocol = self.entry().protocol;
        write_words(memory, "the interrupt table", layout::IDT, &[0])?;
        write_words(memory, "the descriptor tables", layout::GDT, &protocol.gdt())?;
        if protocol.is_long_mode() {
            for (gpa, entries) in boot::page_tables() {
                write_words(memory, "the page tables", gpa, &entries)?;
            }
        }
        Ok(())
    }

    fn write_boot_params(&self, memory: &Memory, header: setup_header) -> Result<(), LoadError> {
        let written = if self.entry().protocol == Protocol::Pvh {
            let params = pvh::build(self.initrd(), self.cmdline_gpa(), self.e820());
            PvhBootConfigurator::write_bootparams(&params, memory)
        } else {
            let page = zero_page::build(header, self.initrd(), self.cmdline_gpa(), self.e820());
            let params = BootParams::new(&page, GuestAddress(self.entry().params));
            LinuxBootConfigurator::write_bootparams(&params, memory)
        };
        written.map_err(LoadError::BootParams)
    }
}

fn load_elf<F>(memory: &Memory, elf: &ElfImage, file: &mut F) -> Result<setup_header, LoadError>
where
    F: Read + ReadVolatile + Seek,
{
    match elf.linux64_entry() {
        Some(entry) => {
            // With an offset, here 0, linux-loader ignores the notes. It parses them differently if there are
            // two note segments or one aligned to 8 bytes, and the plan uses our result.
            let loaded = Elf::load(memory, Some(GuestAddress(0)), &mut FullReads(file), None)
                .map_err(LoadError::Kernel)?;
            let file_end = elf.segments().iter().filter(|s| s.file_len > 0).map(|s| s.memory().end).max();
            if (loaded.kernel_end, loaded.kernel_load.0) != (file_end.unwrap_or(0), entry) {
                return Err(LoadError::KernelChanged { source: None });
            }
        }
        // The ELF may be 32-bit, which linux-loader doesn't support.
        None => {
            let copied = elf.segments().iter().try_for_each(|segment| copy::segment(memory, segment, file));
            copied.map_err(LoadError::Segment)?;
        }
    }
    for segment in elf.segments() {
        let bss = segment.file_backed().end..segment.memory().end;
        let (what, gpa) = ("zeros behind a segment", bss.start);
        copy::zeros(memory, bss).map_err(|source| LoadError::Write { what, gpa, source })?;
    }
    Ok(zero_page::elf_header())
}

fn load_bzimage<F>(memory: &Memory, bzimage: &BzImage, file: &mut F) -> Result<setup_header, LoadError>
where
    F: Read + ReadVolatile + Seek,
{
    let at = GuestAddress(bzimage.load_address());
    let loaded = loader::BzImage::load(memory, Some(at), &mut FullReads(file), None);
    let loaded = loaded.map_err(LoadError::Kernel)?;
    let end = bzimage.load_address() + bzimage.kernel_len();
    match loaded.setup_header {
        Some(header) if (loaded.kernel_load, loaded.kernel_end) == (at, end) => Ok(bzimage.trim(header)),
        _ => Err(LoadError::KernelChanged { source: None }),
    }
}

fn load_initrd<F>(memory: &Memory, range: Option<Range<u64>>, file: Option<&mut F>) -> Result<(), LoadError>
where
    F: Read + ReadVolatile + Seek,
{
    let (range, file) = match (range, file) {
        (Some(range), Some(file)) => (range, file),
        (None, None) => return Ok(()),
        (range, _) => return Err(LoadError::InitrdMismatch { planned: range.is_some() }),
    };
    copy::whole_file(memory, &range, file).map_err(|error| match error {
        FileError::Changed(found) => LoadError::InitrdChanged { planned: range.end - range.start, found },
        FileError::Copy(source) => LoadError::Initrd(source),
    })
}

fn write_words(memory: &Memory, what: &'static str, gpa: u64, words: &[u64]) -> Result<(), LoadError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    write(memory, what, gpa, &bytes)
}

fn write(memory: &Memory, what: &'static str, gpa: u64, bytes: &[u8]) -> Result<(), LoadError> {
    memory.write_slice(bytes, GuestAddress(gpa)).map_err(|source| LoadError::Write { what, gpa, source })
}

#[cfg(test)]
mod tests;
