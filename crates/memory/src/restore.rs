//! Guest RAM with the contents of a file.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryError};

use crate::populated::data;
use crate::ram::check;
use crate::{Backing, Error, GuestRam, Memory, PAGE_LEN};

/// Where a range of guest RAM is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Guest-physical address of its first byte.
    pub gpa: u64,
    /// Length in bytes, a multiple of [`PAGE_LEN`].
    pub len: u64,
    /// Its offset in the file, a multiple of [`PAGE_LEN`]. If it is a multiple of 2 MiB, Linux can use huge pages.
    pub offset: u64,
}

/// How RAM gets the contents of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loading {
    /// The file is mapped: pages are read when they are touched and copied when they are written. Machines that use the same file share
    /// what they only read.
    ///
    /// The file must stay as it is while it is mapped. Pages that nobody has written change with it. An access to one that it no longer
    /// has, or that its storage can't read, fails: KVM_RUN with EFAULT, a thread of this process dies of SIGBUS.
    #[default]
    CopyOnWrite,
    /// The file's data is copied. Its holes take no memory.
    Copy,
}

impl GuestRam {
    /// Maps RAM for `ranges`, which must be in ascending order of their addresses, with the contents that they have in `file`. That
    /// need only be open for reading, and nobody else should use its position.
    ///
    /// # Errors
    /// A range isn't made of whole pages, ranges overlap, the file is shorter than they say, or `loading` is
    /// [`CopyOnWrite`](Loading::CopyOnWrite) and `backing` is [`Shared`](Backing::Shared). The host can't create the mapping or its memfd,
    /// or read the file.
    pub fn from_file(
        file: Arc<File>,
        ranges: &[FileRange],
        loading: Loading,
        backing: Backing,
    ) -> Result<Self, Error> {
        let needed = ranges.iter().map(check_offset).try_fold(0, |needed, end| Ok(u64::max(needed, end?)))?;
        let addresses: Vec<_> = ranges.iter().map(FileRange::addresses).collect();
        check(&addresses)?;
        let whole = |source| Error::ReadFile { offset: 0, len: needed, source };
        let len = file.metadata().map_err(whole)?.len();
        if len < needed {
            return Err(Error::ShortFile { len, needed });
        }
        match (loading, backing) {
            (Loading::CopyOnWrite, Backing::Shared) => Err(Error::SharedCopyOnWrite),
            (Loading::CopyOnWrite, Backing::Private) => {
                let offsets: Vec<_> = ranges.iter().map(|range| range.offset).collect();
                Self::copy_on_write(&file, &addresses, &offsets)
            }
            (Loading::Copy, backing) => {
                let ram = Self::with_backing(&addresses, backing)?;
                ranges.iter().try_for_each(|range| copy(&file, range, ram.memory()))?;
                Ok(ram)
            }
        }
    }
}

impl FileRange {
    /// A range that ends beyond all addresses isn't made of whole pages.
    fn addresses(&self) -> Range<u64> {
        self.gpa..self.gpa.saturating_add(self.len)
    }
}

/// Where the range ends in the file.
fn check_offset(range: &FileRange) -> Result<u64, Error> {
    let FileRange { gpa, len, offset } = *range;
    if !offset.is_multiple_of(PAGE_LEN) {
        return Err(Error::BadOffset { gpa, offset });
    }
    // No file is that long.
    Ok(offset.saturating_add(len))
}

/// Copies the data of a range from `file` to memory that is zero.
fn copy(file: &Arc<File>, range: &FileRange, memory: &Memory) -> Result<(), Error> {
    let offset = FileOffset::from_arc(Arc::clone(file), range.offset);
    let failed = |at: &Range<u64>, source| Error::ReadFile {
        offset: range.offset + at.start,
        len: at.end - at.start,
        source,
    };
    let mut at = 0;
    while at < range.len {
        let found = data(&offset, at, range.len).map_err(|error| failed(&(at..range.len), error))?;
        read(file, range.offset + found.start, memory, range.gpa + found.start..range.gpa + found.end)
            .map_err(|error| failed(&found, error))?;
        at = found.end;
    }
    Ok(())
}

fn read(mut file: &File, offset: u64, memory: &Memory, to: Range<u64>) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let len = (to.end - to.start) as usize;
    memory.read_exact_volatile_from(GuestAddress(to.start), &mut file, len).map_err(|error| match error {
        GuestMemoryError::IOError(error) => error,
        _ => ErrorKind::UnexpectedEof.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

    use super::*;
    use crate::{DiscardError, Pagemap};

    const MIB: u64 = 1 << 20;

    /// RAM of 1 MiB at 0 and of 1 MiB at 4 GiB, the second at 2 MiB of the file.
    const RANGES: [FileRange; 2] =
        [FileRange { gpa: 0, len: MIB, offset: 0 }, FileRange { gpa: 4096 * MIB, len: MIB, offset: 2 * MIB }];

    /// A file of 3 MiB with three pages of data.
    fn file() -> Arc<File> {
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(3 * MIB).unwrap();
        let write = |text: &[u8], offset| named.as_file().write_all_at(text, offset).unwrap();
        write(b"first", 0);
        write(b"page", 0x5000);
        write(b"second", 2 * MIB + 0x1000);
        // The monitor opens it for reading only.
        Arc::new(File::open(named.path()).unwrap())
    }

    fn restored(loading: Loading, backing: Backing) -> GuestRam {
        GuestRam::from_file(file(), &RANGES, loading, backing).unwrap()
    }

    fn text(ram: &GuestRam, gpa: u64) -> String {
        let mut bytes = [0; 8];
        ram.memory().read_slice(&mut bytes, GuestAddress(gpa)).unwrap();
        String::from_utf8(bytes.to_vec()).unwrap().trim_end_matches('\0').to_owned()
    }

    fn write(ram: &GuestRam, gpa: u64, text: &[u8]) {
        ram.memory().write_slice(text, GuestAddress(gpa)).unwrap();
    }

    fn assert_contents(ram: &GuestRam) {
        let texts = [0, 0x1000, 0x5000, 4096 * MIB, 4096 * MIB + 0x1000].map(|gpa| text(ram, gpa));
        assert_eq!(texts, ["first", "", "page", "", "second"]);
        let regions: Vec<_> = ram.regions().map(|region| (region.gpa, region.len)).collect();
        assert_eq!(regions, [(0, MIB), (4096 * MIB, MIB)]);
    }

    #[test]
    fn ram_of_a_file_has_its_contents() {
        assert_contents(&restored(Loading::CopyOnWrite, Backing::Private));
        assert_contents(&restored(Loading::Copy, Backing::Private));
        assert_contents(&restored(Loading::Copy, Backing::Shared));
    }

    #[test]
    fn what_is_written_stays_out_of_the_file() {
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(MIB).unwrap();
        let file = Arc::new(named.reopen().unwrap());
        let ram = GuestRam::from_file(file, &RANGES[..1], Loading::CopyOnWrite, Backing::Private).unwrap();
        write(&ram, 0x3000, b"changed");
        assert_eq!(text(&ram, 0x3000), "changed");
        let mut bytes = [1; 8];
        named.as_file().read_exact_at(&mut bytes, 0x3000).unwrap();
        assert_eq!(bytes, [0; 8]);
    }

    /// Bytes of host memory that the process holds for the RAM's pages.
    fn held(ram: &GuestRam) -> u64 {
        ram.clone()
            .with_pagemap(Pagemap::open().unwrap())
            .populated()
            .map(|range| range.end - range.start)
            .sum()
    }

    #[test]
    fn copy_takes_no_memory_for_the_files_holes() {
        assert_eq!(held(&restored(Loading::Copy, Backing::Private)), 3 * PAGE_LEN);
        let shared = restored(Loading::Copy, Backing::Shared);
        let memfd = shared.memory().iter().next().unwrap().file_offset().unwrap();
        assert_eq!(memfd.file().metadata().unwrap().blocks() * 512, 3 * PAGE_LEN);
    }

    #[test]
    fn copy_does_not_need_the_file_any_more() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MIB).unwrap();
        file.write_all_at(b"kept", 0x2000).unwrap();
        let theirs = Arc::new(file.try_clone().unwrap());
        let ram = GuestRam::from_file(theirs, &RANGES[..1], Loading::Copy, Backing::Private).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(text(&ram, 0x2000), "kept");
    }

    #[test]
    fn shared_ram_that_is_copied_on_write_is_refused() {
        let error = GuestRam::from_file(file(), &RANGES, Loading::CopyOnWrite, Backing::Shared).unwrap_err();
        assert!(matches!(error, Error::SharedCopyOnWrite));
        assert!(error.to_string().ends_with("memory.shared needs --memory copy"), "{error}");
    }

    fn refusal(range: FileRange) -> String {
        GuestRam::from_file(file(), &[range], Loading::Copy, Backing::Private).unwrap_err().to_string()
    }

    #[test]
    fn ranges_that_the_file_does_not_have_are_refused() {
        let message = refusal(FileRange { gpa: 0, len: MIB, offset: 2 * MIB + 0x1000 });
        assert_eq!(message, "the file of guest RAM has 3145728 bytes instead of 3149824 or more");
        let message = refusal(FileRange { gpa: 0, len: 0x1000, offset: u64::MAX - 0xfff });
        assert!(message.starts_with("the file of guest RAM has 3145728 bytes"), "{message}");
        let message = refusal(FileRange { gpa: 0x4000, len: 0x1000, offset: 0x800 });
        assert_eq!(message, "offset 0x800 of guest RAM at 0x4000 in its file isn't a multiple of 4 KiB");
    }

    #[test]
    fn ranges_that_are_no_ram_are_refused() {
        let bad = "is empty, not made of 4 KiB pages, or out of order";
        assert_eq!(
            refusal(FileRange { gpa: 0, len: 0x800, offset: 0 }),
            format!("RAM range 0x0..0x800 {bad}")
        );
        let message = refusal(FileRange { gpa: u64::MAX - 0xfff, len: 0x2000, offset: 0 });
        assert_eq!(message, format!("RAM range 0xfffffffffffff000..0xffffffffffffffff {bad}"));
        let twice = [RANGES[0], RANGES[0]];
        let error = GuestRam::from_file(file(), &twice, Loading::CopyOnWrite, Backing::Private).unwrap_err();
        assert!(matches!(error, Error::BadRange { .. }), "{error}");
    }

    /// Neither what was written nor what the file has comes back.
    #[test]
    fn discarded_pages_that_were_copied_on_write_or_never_touched_are_zeros() {
        let ram = restored(Loading::CopyOnWrite, Backing::Private);
        write(&ram, 0, b"changed");
        [0, 0x5000, 4096 * MIB + 0x1000].into_iter().for_each(|gpa| ram.discard(gpa, 0x1000).unwrap());
        assert_eq!([0, 0x5000, 4096 * MIB + 0x1000].map(|gpa| text(&ram, gpa)), ["", "", ""]);
    }

    #[test]
    fn discarded_pages_can_be_used_and_discarded_again() {
        let ram = restored(Loading::CopyOnWrite, Backing::Private);
        ram.discard(0x4000, 0x3000).unwrap();
        write(&ram, 0x5000, b"new");
        assert_eq!((text(&ram, 0x5000), text(&ram, 0)), ("new".to_owned(), "first".to_owned()));
        // Part of what was discarded, then more than that.
        ram.discard(0x5000, 0x1000).unwrap();
        assert_eq!(text(&ram, 0x5000), "");
        write(&ram, 0x5000, b"newer");
        ram.discard(0, 0x8000).unwrap();
        assert_eq!((text(&ram, 0x5000), text(&ram, 0)), (String::new(), String::new()));
    }

    #[test]
    fn discarded_pages_that_were_copied_on_write_take_no_memory() {
        let ram = restored(Loading::CopyOnWrite, Backing::Private);
        write(&ram, 0x4000, &[7; 0x4000]);
        let before = held(&ram);
        ram.discard(0x4000, 0x4000).unwrap();
        // Page 5 had data in the file, too.
        assert_eq!(before - held(&ram), 0x4000);
    }

    /// Lines of /proc/self/maps inside the region.
    fn mappings(ram: &GuestRam) -> usize {
        let region = ram.regions().next().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = |line: &str| u64::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap();
        maps.lines().filter(|line| (region.hva..region.hva + region.len).contains(&start(line))).count()
    }

    #[test]
    fn discarding_again_adds_no_mapping() {
        let ram = restored(Loading::CopyOnWrite, Backing::Private);
        ram.discard(0x4000, 0x4000).unwrap();
        let before = mappings(&ram);
        (0..4).for_each(|page| ram.discard(0x4000 + page * 0x1000, 0x1000).unwrap());
        assert_eq!((before, mappings(&ram)), (3, 3));
    }

    /// A guest that discards every other page.
    #[test]
    fn discards_leave_mappings_for_the_monitor_and_keep_what_they_refuse() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(256 * MIB).unwrap();
        let range = FileRange { gpa: 0, len: 256 * MIB, offset: 0 };
        let ram =
            GuestRam::from_file(Arc::new(file), &[range], Loading::CopyOnWrite, Backing::Private).unwrap();
        let refused = (0..256 * MIB).step_by(0x2000).find(|gpa| ram.discard(*gpa, 0x1000).is_err()).unwrap();
        assert!(mappings(&ram) <= 48 << 10, "{}", mappings(&ram));
        write(&ram, refused, b"kept");
        let error = ram.discard(refused, 0x1000).unwrap_err();
        assert!(matches!(error, DiscardError::TooManyPieces { len: 0x1000, .. }), "{error}");
        assert_eq!(text(&ram, refused), "kept");
        // What has been discarded can be again.
        ram.discard(0, 0x1000).unwrap();
    }

    /// In a process of its own, whose address space has no room for another mapping.
    #[test]
    fn discard_that_the_host_refuses_keeps_the_contents() {
        let (name, child) = ("discard_that_the_host_refuses_keeps_the_contents", "VMM_MEMORY_TESTS_CHILD");
        if std::env::var_os(child).is_none() {
            let mut test = std::process::Command::new(std::env::current_exe().unwrap());
            let test = test.args(["--exact", &format!("restore::tests::{name}")]).env(child, "1");
            let output = test.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let ram = restored(Loading::CopyOnWrite, Backing::Private);
        write(&ram, 0, b"changed");
        let before = getrlimit(Resource::As);
        setrlimit(Resource::As, Rlimit { current: Some(0), ..before }).unwrap();
        let refused = ram.discard(0, 0x6000);
        setrlimit(Resource::As, before).unwrap();
        assert!(matches!(refused, Err(DiscardError::Refused { gpa: 0, len: 0x6000, .. })), "{refused:?}");
        assert_eq!((text(&ram, 0), text(&ram, 0x5000)), ("changed".to_owned(), "page".to_owned()));
        ram.discard(0, 0x6000).unwrap();
        assert_eq!((text(&ram, 0), text(&ram, 0x5000)), (String::new(), String::new()));
    }
}
