//! Memory that the guest can reach, kept mapped while the VM or a vCPU exists.

use std::ops::Range;

use vmm_memory::vm_memory::{Bytes, GuestAddress};
use vmm_memory::{FileMemory, GuestRam};

/// What the memory slots point to. It stays mapped while any clone of this exists.
#[derive(Clone, Debug, Default)]
pub(crate) struct GuestMemory {
    pub(crate) ram: Vec<GuestRam>,
    pub(crate) files: Vec<FileMemory>,
    pub(crate) aliases: Vec<Alias>,
}

/// A range of RAM that is also mapped at `gpa`.
#[derive(Clone, Debug)]
pub(crate) struct Alias {
    pub(crate) ram: GuestRam,
    pub(crate) source: Range<u64>,
    pub(crate) gpa: u64,
}

impl GuestMemory {
    /// Reads guest memory at `gpa`, in RAM or in an alias. Returns whether all of `bytes` could be read.
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
