//! Opens kernels, initrds, images and modules.

use std::error::Error;
use std::fmt;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::platform::{FlatImage, FlatImageError, ImageError, KernelImage};

/// What a file is used for; messages start with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A kernel: ELF or bzImage.
    Kernel,
    /// An initial file system for a kernel.
    Initrd,
    /// A flat image: raw, an ELF for bare metal or a multiboot kernel.
    Image,
    /// A module for a multiboot kernel.
    Module,
}

/// A non-empty regular file, open for reading.
#[derive(Debug)]
pub struct SourceFile {
    file: File,
    len: u64,
    role: Role,
    path: PathBuf,
}

/// Why a file can't be used. The message starts with the role and the path.
#[derive(Debug)]
pub struct SourceError {
    /// What the file is used for.
    pub role: Role,
    /// The path as given.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: SourceProblem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum SourceProblem {
    /// The file doesn't exist or can't be opened.
    #[error("can't be opened")]
    Open(#[source] io::Error),
    /// The path is a directory, a FIFO, a socket or a device.
    #[error("is {found}, expected a file")]
    NotAFile {
        /// Name of its type, with its article.
        found: &'static str,
    },
    /// The file is empty.
    #[error("is empty")]
    Empty,
    /// The file isn't a kernel for this machine.
    #[error(transparent)]
    Image(ImageError),
    /// The file isn't a flat image that can be started.
    #[error(transparent)]
    Flat(FlatImageError),
}

impl SourceFile {
    /// Opens `path`, which must be a non-empty regular file or a symbolic link to one.
    ///
    /// Never blocks: FIFOs and devices aren't opened, and one that replaces the file in between is opened
    /// without blocking and closed again.
    ///
    /// # Errors
    /// The path doesn't exist, isn't a regular file, is empty, or can't be opened.
    pub fn open(role: Role, path: &Path) -> Result<Self, SourceError> {
        open(path)
            .map(|(file, len)| Self { file, len, role, path: path.to_owned() })
            .map_err(|problem| SourceError { role, path: path.to_owned(), problem })
    }

    /// Reads the headers of a kernel. Errors name the file.
    ///
    /// # Errors
    /// As for [`KernelImage::inspect`].
    pub fn inspect(&mut self) -> Result<KernelImage, SourceError> {
        KernelImage::inspect(&mut self.file).map_err(|error| self.error(SourceProblem::Image(error)))
    }

    /// Reads the headers of a flat image. Errors name the file.
    ///
    /// # Errors
    /// As for [`FlatImage::inspect`].
    pub fn inspect_flat(&mut self) -> Result<FlatImage, SourceError> {
        FlatImage::inspect(&mut self.file).map_err(|error| self.error(SourceProblem::Flat(error)))
    }

    fn error(&self, problem: SourceProblem) -> SourceError {
        SourceError { role: self.role, path: self.path.clone(), problem }
    }

    /// Length in bytes when opened; never 0.
    #[expect(clippy::len_without_is_empty, reason = "an empty file can't be opened")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What the file is used for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The path as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for [`BootPlan::load`](crate::BootPlan::load) and
    /// [`FlatPlan::load`](crate::FlatPlan::load).
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel image",
            Self::Initrd => "initrd",
            Self::Image => "image",
            Self::Module => "module",
        })
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.role, self.path.display(), self.problem)
    }
}

impl Error for SourceError {
    /// The problem's own source, because the problem itself is already in the message.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

fn open(path: &Path) -> Result<(File, u64), SourceProblem> {
    // Opening some devices has side effects, so the type is checked first; the file may be replaced, so it is
    // checked again.
    check_type(fs::metadata(path).map_err(SourceProblem::Open)?.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(SourceProblem::Open)?;
    let metadata = file.metadata().map_err(SourceProblem::Open)?;
    check_type(metadata.file_type())?;
    match metadata.len() {
        0 => Err(SourceProblem::Empty),
        len => Ok((file, len)),
    }
}

fn check_type(file_type: FileType) -> Result<(), SourceProblem> {
    let found = match file_type {
        t if t.is_file() => return Ok(()),
        t if t.is_dir() => "a directory",
        t if t.is_fifo() => "a FIFO",
        t if t.is_socket() => "a socket",
        _ => "a device",
    };
    Err(SourceProblem::NotAFile { found })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;
    use crate::testing::bzimage;

    fn complaint(path: &Path) -> String {
        SourceFile::open(Role::Kernel, path).unwrap_err().to_string()
    }

    #[test]
    fn source_file_opens_with_its_length() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("initrd");
        fs::write(&path, b"070701").unwrap();
        let source = SourceFile::open(Role::Initrd, &path).unwrap();
        assert_eq!((source.len(), source.path()), (6, path.as_path()));
    }

    #[test]
    fn source_link_to_a_file_opens() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("vmlinuz-6.1"), bzimage()).unwrap();
        symlink("vmlinuz-6.1", dir.path().join("vmlinuz")).unwrap();
        assert_eq!(SourceFile::open(Role::Kernel, &dir.path().join("vmlinuz")).unwrap().len(), 2048);
    }

    #[test]
    fn source_directory_is_refused() {
        assert_eq!(complaint(Path::new("/proc")), "kernel image /proc: is a directory, expected a file");
    }

    #[test]
    fn source_device_is_refused() {
        assert_eq!(complaint(Path::new("/dev/null")), "kernel image /dev/null: is a device, expected a file");
    }

    #[test]
    fn source_fifo_is_refused_without_waiting_for_a_writer() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(complaint(&path), format!("kernel image {}: is a FIFO, expected a file", path.display()));
    }

    #[test]
    fn source_socket_is_refused() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(
            complaint(&path),
            format!("kernel image {}: is a socket, expected a file", path.display())
        );
    }

    #[test]
    fn source_empty_file_is_refused() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("bz");
        fs::write(&path, b"").unwrap();
        assert_eq!(complaint(&path), format!("kernel image {}: is empty", path.display()));
    }

    #[test]
    fn source_missing_file_has_the_cause() {
        let error = SourceFile::open(Role::Initrd, Path::new("no/such/initrd")).unwrap_err();
        assert_eq!(error.to_string(), "initrd no/such/initrd: can't be opened");
        assert_eq!(error.source().unwrap().to_string(), "No such file or directory (os error 2)");
    }

    #[test]
    fn source_file_without_permission_has_the_cause() {
        // Constructed, because the tests may run as root, who can read any file.
        let problem = SourceProblem::Open(io::Error::from_raw_os_error(libc::EACCES));
        let error = SourceError { role: Role::Kernel, path: "vm/bz".into(), problem };
        assert_eq!(error.to_string(), "kernel image vm/bz: can't be opened");
        assert_eq!(error.source().unwrap().to_string(), "Permission denied (os error 13)");
    }

    #[test]
    fn source_inspected_names_the_file_once() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("bz");
        fs::write(&path, b"MZ").unwrap();
        let error = SourceFile::open(Role::Kernel, &path).unwrap().inspect().unwrap_err();
        let expected = "ends after 2 bytes, inside its setup header";
        assert_eq!(error.to_string(), format!("kernel image {}: {expected}", path.display()));
        assert!(error.source().is_none());
    }

    #[test]
    fn source_inspected_is_the_image() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("bz");
        fs::write(&path, bzimage()).unwrap();
        let image = SourceFile::open(Role::Kernel, &path).unwrap().inspect().unwrap();
        assert_eq!(image, crate::testing::inspected(&bzimage()));
    }

    #[test]
    fn source_inspected_as_a_flat_image_is_that() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("hello.bin");
        fs::write(&path, b"\xf4").unwrap();
        let image = SourceFile::open(Role::Image, &path).unwrap().inspect_flat().unwrap();
        assert_eq!(image, FlatImage::Raw { len: 1 });
    }

    #[test]
    fn source_inspected_as_a_flat_image_names_the_file_once() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("kernel");
        fs::write(&path, b"\x7fELF").unwrap();
        let error = SourceFile::open(Role::Image, &path).unwrap().inspect_flat().unwrap_err();
        let expected = "ends after 4 bytes, inside its ELF header";
        assert_eq!(error.to_string(), format!("image {}: {expected}", path.display()));
    }

    #[test]
    fn source_module_missing_is_named_a_module() {
        let error = SourceFile::open(Role::Module, Path::new("no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "module no/such/file: can't be opened");
    }
}
