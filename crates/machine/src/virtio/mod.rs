//! Virtio devices: opens them, plans their addresses and interrupts, and connects them to the guest.

mod attached;
mod connect;
mod file_memory;
mod messages;
mod open;
mod pci;
mod plan;
mod restored;

pub(crate) use attached::{LastReport, Transport, VirtioDevices, stopping};
pub(crate) use connect::GuestSide;
pub(crate) use open::{OpenDevice, check_kept, consoles, open};
pub(crate) use pci::ecam;
pub(crate) use plan::{KernelHints, acpi, check_without_mp_table, has_pci, kernel_hints, plan};
pub use plan::{TransportPlan, VirtioPlan};
pub(crate) use restored::restored;
