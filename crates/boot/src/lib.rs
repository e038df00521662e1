//! From a kernel file to a guest that can be entered: inspect, plan, load.
//!
//! | step | type | does |
//! |---|---|---|
//! | open | [`SourceFile`] | opens a regular file, and nothing else, without blocking |
//! | inspect | [`KernelImage`] | reads the headers, checks them against the file's true length |
//! | plan | [`BootPlan::new`] | decides every address; pure: no file, no memory, no system call |
//! | load | [`BootPlan::load`] | writes guest memory, and only where [`BootPlan::placements`] says |
//!
//! An ELF kernel is entered by its PVH note if it has one, else by Linux's 64-bit entry; a bzImage by its 64-bit
//! entry if it has one, else by its 32-bit entry. A [`BootSpec`] may ask for another that the file offers.
//!
//! A file may be hostile: each field is checked before it is used, arithmetic on it can't overflow, no
//! amount of it is allocated beyond a fixed limit, and the file is read straight into guest memory. What
//! linux-loader leaves to its caller is here: `init_size`, the BSS, PVH notes wherever they are, the place
//! of the initrd, the zero page and the PVH start info.
//!
//! ```
//! use std::io::Cursor;
//!
//! use vmm_arch::boot::Protocol;
//! use vmm_arch::layout;
//! use vmm_boot::{BootLayout, BootPlan, BootSpec, KernelImage};
//! use vmm_memory::GuestRam;
//!
//! // The smallest bzImage: a sector of boot code, a sector of setup code, a sector of kernel.
//! let mut file = vec![0; 1536];
//! file[0x1f1] = 1; // setup_sects
//! file[0x1fe..0x200].copy_from_slice(&0xaa55_u16.to_le_bytes()); // boot_flag
//! file[0x201] = 0x6a; // the header ends at 0x202 + 0x6a
//! file[0x202..0x206].copy_from_slice(b"HdrS");
//! file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes()); // version 2.15
//! file[0x211] = 1; // loadflags: LOADED_HIGH
//! file[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes()); // code32_start
//! file[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
//! file[0x230..0x234].copy_from_slice(&0x20_0000_u32.to_le_bytes()); // kernel_alignment
//! file[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes()); // cmdline_size
//! file[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes()); // pref_address
//! file[0x260..0x264].copy_from_slice(&0x20_0000_u32.to_le_bytes()); // init_size
//! let mut file = Cursor::new(file);
//!
//! let image = KernelImage::inspect(&mut file)?;
//! let ram = layout::ram_ranges(32 << 20);
//! let plan = BootPlan::new(&BootSpec {
//!     image: &image,
//!     protocol: None,
//!     initrd_len: None,
//!     cmdline: "console=ttyS0",
//!     ram: &ram,
//!     layout: BootLayout::default(),
//! })?;
//! assert_eq!(plan.entry().protocol, Protocol::Linux32);
//! // Loaded at 1 MiB, it unpacks itself to 16 MiB and needs 2 MiB there.
//! assert_eq!(plan.kernel(), 0x10_0000..0x120_0000);
//!
//! let ram = GuestRam::new(&ram)?;
//! plan.load(ram.memory(), &mut file, None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where the zero page, the command line and the initrd lie, and which memory map the kernel is given, a program
//! may choose: [`BootLayout`].
//!
//! # Flat images
//!
//! A program of one's own needs no boot protocol. [`FlatImage`] is bytes as they are, an ELF for bare metal
//! (`x86_64-unknown-none`, position-independent or not, and i386), or a multiboot kernel; [`FlatPlan`] plans
//! and loads it. Which state it starts in is vmm-arch's [`flat`](vmm_arch::flat):
//!
//! | image | starts in | goes to |
//! |---|---|---|
//! | raw | real mode, or any other by [`FlatSpec::mode`] | 0, or 1 MiB if it isn't for real mode |
//! | raw, in reset mode | the processor's reset state | the last pages below 1 MiB, seen once more below 4 GiB ([`Alias`]) |
//! | ELF32, ELF64 | protected mode, long mode | where its headers say, or 1 MiB if it can lie anywhere |
//! | multiboot 1 | protected mode, EAX and EBX as it expects | where its headers say; its modules above it |
//!
//! The tables of the mode go to fixed places in low memory or, where these are taken, to the first free ones;
//! [`FlatSpec::tables`] leaves them to the image. One page of RAM is enough for a program in real mode. What
//! only the image's bytes can tell, [`FlatPlan::check_contents`] finds out before anything is loaded.
//!
//! ```
//! use std::io::Cursor;
//!
//! use vmm_arch::flat::Mode;
//! use vmm_arch::layout;
//! use vmm_boot::{FlatImage, FlatPlan, FlatSpec, TableSource};
//! use vmm_memory::GuestRam;
//!
//! // mov al, 42; hlt
//! let mut file = Cursor::new(b"\xb0\x2a\xf4");
//! let image = FlatImage::inspect(&mut file)?;
//! let ram = layout::ram_ranges(64 << 10);
//! let plan = FlatPlan::new(&FlatSpec {
//!     image: &image,
//!     load_address: None,
//!     mode: None,
//!     entry: None,
//!     stack: None,
//!     tables: TableSource::Plan,
//!     cmdline: None,
//!     modules: &[],
//!     ram: &ram,
//! })?;
//! assert_eq!((plan.start().mode, plan.start().entry), (Mode::Real, 0));
//!
//! let ram = GuestRam::new(&ram)?;
//! plan.load(ram.memory(), &mut file, [])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod bzimage;
mod cmdline;
mod copy;
mod elf;
mod elf_error;
mod elf_format;
mod elf_header;
mod flat;
#[cfg(test)]
mod hostile;
mod image;
mod image_error;
mod load;
mod note;
mod placement;
mod plan;
mod plan_error;
mod pvh;
mod reader;
mod source;
#[cfg(test)]
mod testing;
mod zero_page;

pub use bzimage::{BzImage, BzImageError};
pub use cmdline::CmdlineError;
pub use elf::ElfImage;
pub use elf_error::ElfError;
pub use elf_format::{ElfClass, Segment};
pub use flat::{
    Alias, FlatContentsError, FlatElf, FlatImage, FlatImageError, FlatLoadError, FlatPlan, FlatPlanError,
    FlatSpec, ModuleSpec, MultibootError, MultibootImage, RelocationError, TableSource,
};
pub use image::{KernelImage, protocol_name};
pub use image_error::ImageError;
pub use load::LoadError;
pub use placement::Placement;
pub use plan::{BootLayout, BootPlan, BootSpec};
pub use plan_error::PlanError;
pub use source::{Role, SourceError, SourceFile, SourceProblem};
