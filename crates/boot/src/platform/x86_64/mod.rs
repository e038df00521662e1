//! Kernels and programs for x86_64, and what they find in memory when they start.

mod bzimage;
mod elf;
mod flat;
#[cfg(test)]
mod hostile;
mod image;
mod image_error;
mod load;
mod memory_map;
mod plan;
mod plan_error;
mod pvh;
mod zero_page;

pub use bzimage::{BzImage, BzImageError};
pub use elf::ElfImage;
pub use flat::{
    Alias, FlatContentsError, FlatElf, FlatImage, FlatImageError, FlatLoadError, FlatPlan, FlatPlanError,
    FlatSpec, ModuleSpec, MultibootError, MultibootImage, RelocationError, TableSource,
};
pub use image::{KernelImage, protocol_name};
pub use image_error::ImageError;
pub use load::LoadError;
pub use plan::{BootLayout, BootPlan, BootSpec};
pub use plan_error::PlanError;
