//! A PCI bus of emulated functions.
//!
//! - [`ConfigSpace`] is a function's configuration space: header, BAR registers, capability list.
//! - [`Decoded`] says where BARs are decoded. A write to a BAR or to COMMAND results in a [`BarMove`], for the function's owner to
//!   carry out.
//! - [`Msix`] has the interrupt vectors: a table that the guest writes, and pending bits.
//! - [`RootBus`] has the functions in their slots, and the two ways to their configuration spaces: ports (CAM) and memory (ECAM).
//!
//! The state of a function is in plain values without locks; a [`Function`] has a lock around them.
#![forbid(unsafe_code)]

mod bar;
mod config_space;
mod host_bridge;
mod msix;
mod root;

pub use bar::{BAR_REGISTERS, Bar, BarMove, Decoded};
pub use config_space::{
    COMMAND, COMMAND_BUS_MASTER, COMMAND_MEMORY, CONFIG_LEN, ConfigSpace, Identity, NoRoom, touches,
};
pub use host_bridge::HostBridge;
pub use msix::{
    CONTROL_ENABLE, CONTROL_FUNCTION_MASK, ENTRY_LEN, MAX_VECTORS, MSIX_CAPABILITY, Message, Msix, Vector,
};
pub use root::{BarMover, CAM_LEN, CAM_PORT, Cam, ECAM_LEN, Ecam, Effect, Function, RootBus, SLOTS};
