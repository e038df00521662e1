//! Locks that mark a file as one that a machine reads: each kind of file has a byte, which its machines lock
//! for reading.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;

use crate::range_lock::{self, LockKind};

/// The first byte. QEMU's permissions are a 64-bit mask, so its bytes end at 200 + 63.
const FIRST: u64 = 264;

/// A file that a machine reads and that must not be written meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputLock {
    /// A Linux kernel.
    Kernel,
    /// A Linux kernel's initrd.
    Initrd,
    /// A flat image.
    Image,
    /// A module of a multiboot kernel.
    Module,
    /// A machine's config file.
    Config,
    /// The file of a monitor's standard input.
    Stdin,
}

impl InputLock {
    /// All kinds, in the order of their bytes.
    pub const ALL: [Self; 6] =
        [Self::Kernel, Self::Initrd, Self::Image, Self::Module, Self::Config, Self::Stdin];

    /// Locks the byte until the last descriptor of the open file description is closed. `file` must be open for
    /// reading. Returns false if another open file has locked it exclusively.
    ///
    /// # Errors
    /// The file system doesn't support locks.
    pub fn take(self, file: &File) -> io::Result<bool> {
        range_lock::lock(file, LockKind::Shared, self.byte())
    }

    /// Finds such a lock of another open file description.
    ///
    /// # Errors
    /// The file system doesn't support locks.
    pub fn find(file: &File) -> io::Result<Option<Self>> {
        for input in Self::ALL {
            if range_lock::find(file, input.byte())?.is_some() {
                return Ok(Some(input));
            }
        }
        Ok(None)
    }

    fn byte(self) -> Range<u64> {
        let start = FIRST + self as u64;
        start..start + 1
    }
}

/// Continues "in use as".
impl fmt::Display for InputLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "a kernel",
            Self::Initrd => "an initrd",
            Self::Image => "a flat image",
            Self::Module => "a module of a multiboot kernel",
            Self::Config => "the config of a machine",
            Self::Stdin => "the standard input of a machine",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_found_by_others_by_its_kind_until_it_is_closed() {
        for input in InputLock::ALL {
            let file = tempfile::NamedTempFile::new().unwrap();
            let user = file.reopen().unwrap();
            assert!(input.take(&user).unwrap());
            assert_eq!(InputLock::find(&user).unwrap(), None, "its own is none of another's");
            assert_eq!(InputLock::find(file.as_file()).unwrap(), Some(input));
            drop(user);
            assert_eq!(InputLock::find(file.as_file()).unwrap(), None);
        }
    }

    /// Those of [`range_lock`]: up to 64 permissions in use and denied.
    #[test]
    fn bytes_are_outside_those_of_a_disk() {
        assert!(InputLock::ALL.iter().all(|input| input.byte().start >= range_lock::FORBIDS + 64));
    }
}
