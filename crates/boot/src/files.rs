//! The files of a kernel and of its initrd, which are of two types so that they can't be swapped.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

use crate::platform::KernelImage;
use crate::{Role, SourceError, SourceFile};

/// A kernel's file: ELF or bzImage. `F` is what it is read from.
#[derive(Debug)]
pub struct KernelFile<F = SourceFile>(pub(crate) F);

/// The file of an initial file system. `F` is what it is read from.
#[derive(Debug)]
pub struct InitrdFile<F = SourceFile>(pub(crate) F);

impl KernelFile {
    /// Opens `path` as [`SourceFile::open`] does.
    ///
    /// # Errors
    /// The path doesn't exist, isn't a regular file, is empty, or can't be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        SourceFile::open(Role::Kernel, path.as_ref()).map(Self)
    }

    /// Reads the headers. Errors name the file.
    ///
    /// # Errors
    /// As for [`KernelImage::inspect`].
    pub fn inspect(&mut self) -> Result<KernelImage, SourceError> {
        self.0.inspect()
    }

    /// The file, to look at it as what else it may be.
    pub fn source(&mut self) -> &mut SourceFile {
        &mut self.0
    }
}

impl<F: Read + ReadVolatile + Seek> KernelFile<F> {
    /// A kernel that is read from elsewhere, such as memory. Inspect it by [`KernelImage::inspect`].
    pub fn new(reader: F) -> Self {
        Self(reader)
    }
}

impl InitrdFile {
    /// Opens `path` as [`SourceFile::open`] does.
    ///
    /// # Errors
    /// The path doesn't exist, isn't a regular file, is empty, or can't be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SourceError> {
        SourceFile::open(Role::Initrd, path.as_ref()).map(Self)
    }

    /// Length in bytes when opened; never 0.
    #[expect(clippy::len_without_is_empty, reason = "an empty file can't be opened")]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// The file.
    pub fn source(&mut self) -> &mut SourceFile {
        &mut self.0
    }
}

impl<F: Read + ReadVolatile + Seek> InitrdFile<F> {
    /// An initrd that is read from elsewhere, such as memory.
    pub fn new(reader: F) -> Self {
        Self(reader)
    }
}

impl Read for SourceFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file().read(bytes)
    }
}

impl Seek for SourceFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file().seek(to)
    }
}

impl ReadVolatile for SourceFile {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        slice: &mut VolatileSlice<'_, B>,
    ) -> Result<usize, VolatileMemoryError> {
        self.file().read_volatile(slice)
    }
}
