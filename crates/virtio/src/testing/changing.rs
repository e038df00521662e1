//! A guest that overwrites what a device has read, immediately after the read: the device loses a race every
//! time that another thread would have to win.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

/// The new value of the bytes. Read as a descriptor, it has an address, length, flags and index that no chain
/// has.
const CHANGED: u8 = 0xff;

/// Host addresses of the guest memories that change, in all tests that run now.
static CHANGING: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// Their number, so that other tests take no lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// While it lives, every descriptor and every byte that a device copies by
/// [`Buffers::read`](crate::Buffers::read) is overwritten right after the read. A device that reads once, as
/// it must (virtio 1.2 §2.7.5 leaves the memory to the driver), isn't affected.
#[derive(Debug)]
pub struct ChangingRam(usize);

impl ChangingRam {
    /// Enables the overwriting for this memory.
    ///
    /// # Panics
    /// The memory has no byte at address 0.
    pub fn new(ram: &GuestRam) -> Self {
        let id = id(ram).expect("memory at address 0");
        CHANGING.lock().expect("no panic while it is held").push(id);
        COUNT.fetch_add(1, Ordering::SeqCst);
        Self(id)
    }
}

impl Drop for ChangingRam {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::SeqCst);
        CHANGING.lock().expect("no panic while it is held").retain(|id| *id != self.0);
    }
}

/// Reports that the device has read `slice`; `None` if it wasn't a contiguous slice.
pub(crate) fn was_read(ram: &GuestRam, slice: Option<VolatileSlice<'_>>) {
    if COUNT.load(Ordering::SeqCst) == 0 {
        return;
    }
    let is_changing =
        id(ram).is_some_and(|id| CHANGING.lock().expect("no panic while it is held").contains(&id));
    if let Some(slice) = slice.filter(|_| is_changing) {
        slice.copy_from(&vec![CHANGED; slice.len()]);
    }
}

fn id(ram: &GuestRam) -> Option<usize> {
    ram.memory().get_host_address(GuestAddress(0)).ok().map(|address| address as usize)
}
