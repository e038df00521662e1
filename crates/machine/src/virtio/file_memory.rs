//! Files that the guest sees as memory, and pages of them that the host can't provide: the file system has no room for a
//! store to a hole, the storage fails, or the file was truncated.
//!
//! The guest can't be told of such a page, so the machine ends. KVM_RUN fails with EFAULT if the processor accesses it; an
//! access by KVM's instruction emulator is MMIO instead.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc::EFAULT;
use vmm_bus::{Bus, BusDevice, EventFd, Outcome};
use vmm_kvm::Vm;
use vmm_memory::{Access, FileMemory};
use vmm_virtio::Mapping;

use crate::Error;
use crate::error::HostContext;

/// A file in the guest's memory.
#[derive(Debug)]
pub(super) struct MappedFile {
    pub(super) mapping: Mapping,
    missing: Arc<MissingPages>,
}

impl MappedFile {
    /// Maps a file at `at`. `news` is written when the guest needs a page that is missing.
    pub(super) fn new(
        mapping: Mapping,
        at: &Range<u64>,
        vm: &Vm,
        mmio: &Bus,
        news: Arc<EventFd>,
    ) -> Result<Self, Error> {
        let access = if mapping.read_only { Access::Read } else { Access::ReadWrite };
        let file = mapping.file.try_clone().context("descriptor of a file that is memory")?;
        vm.add_file_memory(&FileMemory::new(file, mapping.len, at.start, access)?)?;
        let missing = Arc::new(MissingPages::new(access, news));
        mmio.insert(at.clone(), Arc::clone(&missing))?;
        Ok(Self { mapping, missing })
    }

    /// Whether an access of the guest's found no page.
    pub(super) fn is_incomplete(&self) -> bool {
        self.missing.is_needed.load(Ordering::Relaxed)
    }
}

/// Whether a vCPU may have failed because a page is missing.
pub(super) fn may_be_why(error: &vmm_vcpu::Error) -> bool {
    use vmm_kvm::Error::Ioctl;
    match error {
        vmm_vcpu::Error::Kvm(Ioctl { name: "KVM_RUN", source }) => source.raw_os_error() == Some(EFAULT),
        _ => false,
    }
}

/// What the guest finds where there is no page.
#[derive(Debug)]
struct MissingPages {
    access: Access,
    is_needed: AtomicBool,
    news: Arc<EventFd>,
}

impl MissingPages {
    fn new(access: Access, news: Arc<EventFd>) -> Self {
        Self { access, is_needed: AtomicBool::new(false), news }
    }

    fn need(&self) {
        self.is_needed.store(true, Ordering::Relaxed);
        // Non-blocking. If the counter is at its maximum, it is readable anyway.
        let _ = self.news.write(1);
    }
}

impl BusDevice for MissingPages {
    fn read(&self, _offset: u64, _data: &mut [u8]) {
        self.need();
    }

    /// A store to a file that the guest may only read is dropped. Any other is lost: the guest doesn't go on.
    fn write(&self, _offset: u64, _data: &[u8]) -> Outcome {
        if self.access == Access::Read {
            return Outcome::Done;
        }
        self.need();
        Outcome::Hold
    }

    fn is_holding(&self) -> bool {
        self.is_needed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(name: &'static str, errno: i32) -> vmm_vcpu::Error {
        vmm_kvm::Error::Ioctl { name, source: io::Error::from_raw_os_error(errno) }.into()
    }

    #[test]
    fn kvm_run_that_finds_no_memory_may_have_missed_a_page() {
        assert!(may_be_why(&failed("KVM_RUN", EFAULT)));
        assert!(!may_be_why(&failed("KVM_RUN", nix::libc::EINVAL)));
        assert!(!may_be_why(&failed("KVM_GET_REGS", EFAULT)));
    }

    fn pages(access: Access) -> MissingPages {
        MissingPages::new(access, Arc::new(EventFd::new().unwrap()))
    }

    /// Whether it is needed, and whether the machine has been notified.
    fn state(pages: &MissingPages) -> (bool, bool) {
        (pages.is_needed.load(Ordering::Relaxed), pages.news.read().is_ok())
    }

    #[test]
    fn store_to_a_missing_page_holds_its_vcpu_and_is_news() {
        let pages = pages(Access::ReadWrite);
        assert!(!pages.is_holding());
        assert_eq!(pages.write(8, &[1]), Outcome::Hold);
        assert!(pages.is_holding());
        assert_eq!(state(&pages), (true, true));
    }

    #[test]
    fn load_from_a_missing_page_is_news() {
        let pages = pages(Access::Read);
        pages.read(8, &mut [0]);
        assert_eq!(state(&pages), (true, true));
    }

    #[test]
    fn store_to_a_file_that_is_only_read_is_dropped() {
        let pages = pages(Access::Read);
        assert_eq!(pages.write(8, &[1]), Outcome::Done);
        assert_eq!(state(&pages), (false, false));
    }
}
