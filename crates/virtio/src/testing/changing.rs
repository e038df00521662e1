//! A guest that overwrites what a device has read, in the moment after the read: a race that a thread would have to win, lost
//! every time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{GuestAddress, GuestMemoryBackend, VolatileSlice};

/// What the bytes become. As a descriptor: an address, a length, flags and an index that no chain has.
const CHANGED: u8 = 0xff;

/// The host addresses of the guest memories that change, of all tests that run now.
static CHANGING: Mutex<Vec<usize>> = Mutex::new(Vec::new());
/// How many those are, so that other tests take no lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// While it lives, every descriptor and every byte that a device copies by [`Buffers::read`](crate::Buffers::read) is
/// overwritten as soon as it has been read. A device that reads once, as it must (virtio 1.2 §2.7.5 leaves the memory to the
/// driver), notices nothing.
#[derive(Debug)]
pub struct ChangingRam(usize);

impl ChangingRam {
    /// For this memory.
    ///
    /// # Panics
    /// It has no byte at address 0.
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

/// The device has read all that `slice` names. `None` if that isn't one piece of memory.
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
