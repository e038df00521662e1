//! Flat images: programs without a Linux boot protocol.

mod bios_data;
mod contents;
mod elf;
mod error;
mod handover;
mod handover_room;
#[cfg(test)]
mod hostile;
mod image;
mod image_error;
mod load;
mod multiboot;
mod multiboot_error;
mod place;
mod plan;
mod relocation;
mod relocation_error;
mod spec;
mod tables;
#[cfg(test)]
pub(crate) mod testing;

pub use contents::FlatContentsError;
pub use elf::FlatElf;
pub use error::FlatPlanError;
pub use image::FlatImage;
pub use image_error::FlatImageError;
pub use load::FlatLoadError;
pub use multiboot::MultibootImage;
pub use multiboot_error::MultibootError;
pub use plan::{Alias, FlatPlan};
pub use relocation_error::RelocationError;
pub use spec::{FlatSpec, ModuleSpec, TableSource};
