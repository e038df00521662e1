//! Boots guests from kernel files: inspect, plan, load.
//!
//! | step | type | does |
//! |---|---|---|
//! | open | [`KernelFile`], [`InitrdFile`]; [`SourceFile`] | opens a regular file, and nothing else, without blocking |
//! | inspect | [`KernelImage`] | reads the headers, checks them against the file's true length |
//! | plan | [`BootPlan::new`] | decides every address; pure: no file, no memory, no system call |
//! | load | [`BootPlan::load`] | writes guest memory, and only where [`BootPlan::placements`] says |
//!
//! An ELF kernel is entered by its PVH note if it has one, otherwise by Linux's 64-bit entry; a bzImage by
//! its 64-bit entry if it has one, otherwise by its 32-bit entry. [`BootSpec`] can select another supported
//! one.
//!
//! Files aren't trusted: each field is checked before it is used, arithmetic on fields can't overflow,
//! allocations have a fixed limit, and contents are read directly into guest memory. The crate implements
//! what linux-loader leaves to its caller: `init_size`, the BSS, all PVH notes, placing the initrd, the zero
//! page and the PVH start info.
//!
//! ```
//! use std::io::Cursor;
//!
//! use vmm_arch::boot::Protocol;
//! use vmm_arch::layout;
//! use vmm_boot::{BootPlan, BootSpec, KernelFile, KernelImage};
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
//! let plan = BootPlan::new(&BootSpec { cmdline: "console=ttyS0", ..BootSpec::new(&image, &ram) })?;
//! assert_eq!(plan.entry().protocol, Protocol::Linux32);
//! // Loaded at 1 MiB, it unpacks itself to 16 MiB and needs 2 MiB there.
//! assert_eq!(plan.kernel(), 0x10_0000..0x120_0000);
//!
//! let ram = GuestRam::new(&ram)?;
//! plan.load(ram.memory(), &mut KernelFile::new(file), None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`BootLayout`] sets the addresses of the zero page, the command line and the initrd, and the memory map
//! passed to the kernel.
//!
//! # Flat images
//!
//! Programs without a boot protocol are flat images. [`FlatImage`] is raw bytes, a bare-metal ELF
//! (`x86_64-unknown-none`, position-independent or not, or i386), or a multiboot kernel; [`FlatPlan`] plans
//! and loads it. vmm-arch's [`flat`](vmm_arch::flat) describes the initial state:
//!
//! | image | starts in | address |
//! |---|---|---|
//! | raw | real mode, or another selected by [`FlatSpec::mode`] | 0 in real mode, otherwise 1 MiB |
//! | raw, in reset mode | the processor's reset state | the last pages below 1 MiB, with an alias below 4 GiB ([`Alias`]) |
//! | ELF32, ELF64 | protected mode, long mode | from its headers, or 1 MiB if it is position-independent |
//! | multiboot 1 | protected mode, EAX and EBX as specified | from its headers; its modules above it |
//!
//! The tables of the mode have fixed addresses in low memory, or the first free ones if these are taken;
//! [`FlatSpec::tables`] leaves them to the image. A program in real mode needs only one page of RAM.
//! [`FlatPlan::check_contents`] checks what depends on the image's contents before anything is loaded.
//!
//! ```
//! use std::io::Cursor;
//!
//! use vmm_arch::flat::Mode;
//! use vmm_arch::layout;
//! use vmm_boot::{FlatImage, FlatPlan, FlatSpec};
//! use vmm_memory::GuestRam;
//!
//! // mov al, 42; hlt
//! let mut file = Cursor::new(b"\xb0\x2a\xf4");
//! let image = FlatImage::inspect(&mut file)?;
//! let ram = layout::ram_ranges(64 << 10);
//! let plan = FlatPlan::new(&FlatSpec::new(&image, &ram))?;
//! assert_eq!((plan.start().mode, plan.start().entry), (Mode::Real, 0));
//!
//! let ram = GuestRam::new(&ram)?;
//! plan.load(ram.memory(), &mut file, [])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cmdline;
mod copy;
mod elf_error;
mod elf_format;
mod elf_header;
mod files;
mod note;
mod placement;
mod platform;
mod reader;
mod source;
#[cfg(test)]
mod testing;

pub use cmdline::CmdlineError;
pub use elf_error::ElfError;
pub use elf_format::{ElfClass, Segment};
pub use files::{InitrdFile, KernelFile};
pub use placement::Placement;
pub use platform::{
    Alias, BootLayout, BootPlan, BootSpec, BzImage, BzImageError, ElfImage, FlatContentsError, FlatElf,
    FlatImage, FlatImageError, FlatLoadError, FlatPlan, FlatPlanError, FlatSpec, ImageError, KernelImage,
    LoadError, ModuleSpec, MultibootError, MultibootImage, PlanError, RelocationError, TableSource,
    protocol_name,
};
pub use source::{Role, SourceError, SourceFile, SourceProblem};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
