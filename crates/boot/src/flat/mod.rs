//! Flat images: programs that follow no boot protocol of Linux's.

mod bios_data;
mod contents;
mod elf;
mod error;
mod handover;
#[cfg(test)]
mod hostile;
mod image;
mod load;
mod multiboot;
mod place;
mod plan;
mod relocation;
mod tables;
#[cfg(test)]
pub(crate) mod testing;

pub use contents::FlatContentsError;
pub use elf::FlatElf;
pub use error::FlatPlanError;
pub use image::{FlatImage, FlatImageError};
pub use load::FlatLoadError;
pub use multiboot::{MultibootError, MultibootImage};
pub use plan::{Alias, FlatPlan, FlatSpec, ModuleSpec};
pub use relocation::RelocationError;
pub use tables::TableSource;
