//! The memory that a guest can reach, held by whatever could let the guest reach it.

use std::ops::Range;

use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_memory::{FileMemory, GuestRam};

/// What the slots point to: it is mapped as long as one of these is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) ram: Vec<GuestRam>,
    pub(crate) files: Vec<FileMemory>,
    pub(crate) aliases: Vec<Alias>,
}

/// Bytes of RAM that the guest sees a second time.
#[derive(Clone, Debug)]
pub(crate) struct Alias {
    pub(crate) ram: GuestRam,
    pub(crate) source: Range<u64>,
    pub(crate) gpa: u64,
}

impl Held {
    /// Reads what the guest has at `gpa`, in its RAM or in an alias of that, if all of `bytes` is there.
    pub(crate) fn read(&self, gpa: u64, bytes: &mut [u8]) -> bool {
        let in_alias = |alias: &Alias| {
            let offset = gpa.checked_sub(alias.gpa)?;
            let len = alias.source.end - alias.source.start;
            let is_inside = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= len);
            is_inside.then(|| (alias.ram.clone(), alias.source.start + offset))
        };
        let aliased = self.aliases.iter().find_map(in_alias);
        let mut places = self.ram.iter().map(|ram| (ram.clone(), gpa)).chain(aliased);
        places.any(|(ram, gpa)| ram.memory().read_slice(bytes, GuestAddress(gpa)).is_ok())
    }
}
