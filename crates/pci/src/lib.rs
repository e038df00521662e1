//! A PCI bus of emulated functions.
//!
//! - [`PciConfigSpace`] is a function's configuration space: header, BAR registers, capability list.
//! - [`Decoded`] has the addresses at which BARs are decoded. A write to a BAR or to COMMAND results in a [`BarMove`], which the bus
//!   carries out.
//! - [`Msix`] has the interrupt vectors: a table that the guest writes, and pending bits.
//! - [`RootBus`] has the functions in their slots. Their configuration spaces are accessed through ports (CAM) and memory (ECAM).
//!
//! A snapshot has the bus's [`BusState`], and each function's state, which is the function's own.
//!
//! The state of a function is in plain values without locks; a [`Function`] has a lock around them.
//!
//! ```
//! use vmm_pci::{Bar, CONTROL_ENABLE, Identity, Message, Msix, PciConfigSpace};
//!
//! let mut space = PciConfigSpace::new(Identity {
//!     vendor: 0x1af4,
//!     device: 0x1042,
//!     revision: 1,
//!     class: 0x01_80_00,
//!     subsystem_vendor: 0x1af4,
//!     subsystem: 0x1042,
//! });
//! space.add_bar(0, Bar::new(0x1000));
//! // The guest sizes the BAR: it writes ones, and reads which of them stay.
//! space.write(0x10, &[0xff; 4]);
//! assert_eq!(u32::from_le_bytes(space.array(0x10)), 0xffff_f004);
//!
//! // It sets up a vector, unmasks it and switches MSI-X on.
//! let mut msix = Msix::new(1);
//! msix.bus_master = true;
//! msix.write_table(0, &0xfee0_1000_u64.to_le_bytes());
//! msix.write_table(8, &0x31_u64.to_le_bytes());
//! msix.set_control(CONTROL_ENABLE);
//! assert_eq!(msix.fire(0), Some(Message { address: 0xfee0_1000, data: 0x31 }));
//! ```
#![forbid(unsafe_code)]

mod bar;
mod bus_state;
mod config_space;
mod host_bridge;
mod msix;
mod root;

pub use bar::{BAR_REGISTERS, Bar, BarMove, Decoded};
pub use bus_state::BusState;
pub use config_space::{
    COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, CONFIG_LEN, Identity, NoRoom, PciConfigSpace, STATUS,
    STATUS_INTERRUPT, touches,
};
pub use host_bridge::HostBridge;
pub use msix::{
    CONTROL_ENABLE, CONTROL_FUNCTION_MASK, ENTRY_LEN, MAX_VECTORS, MSIX_CAPABILITY, Message, Msix, Vector,
};
pub use root::{BarMover, CAM_LEN, CAM_PORT, Cam, ECAM_LEN, Ecam, Effect, Function, RootBus, SLOTS};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
