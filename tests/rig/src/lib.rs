#![forbid(unsafe_code)]

//! A machine with a genuine /dev/kvm on any x86-64 Linux host.
//!
//! A KVM monitor can only be tested where KVM runs Linux. Many test machines have no /dev/kvm, or only a
//! software one that runs a few bare-metal instructions. QEMU can emulate a CPU with AMD's virtualization in
//! software, without root, and a stock kernel on that machine provides /dev/kvm. This crate sets up such a
//! machine and runs commands in it, with the host's files at the same paths:
//!
//! ```no_run
//! use rig::{Assets, Rig};
//!
//! let outcome = Rig::new(&Assets::here()).capture(["ls", "-l", "/dev/kvm"])?;
//! assert_eq!(outcome.exit_code, 0);
//! # Ok::<(), rig::Error>(())
//! ```
//!
//! # The layers of machines
//!
//! ```text
//! host            cargo test, or cargo xtask
//! └─ QEMU         the outer machine: Debian's generic kernel, kvm_amd; its root is the host's, under a scratch layer
//!    └─ command   the same test binary, with VMM_IN_RIG=1; the monitor under test
//!       └─ guest  Busybox on a stock kernel
//! ```
//!
//! If the host's own KVM runs Linux, the two middle layers are left out. Test binaries don't have to choose:
//! [`run_here_or_in_rig`] does.
//!
//! # The parts
//!
//! - [`Assets`] is a cache in `target/assets`: stock [kernels](Kernel) from the distribution's packages,
//!   their [vmlinux](extract_vmlinux) and [modules](Module), Busybox, the guests' initramfs, bootable
//!   [disks](Rootfs). Each is fetched or built on first use.
//! - [`Rig`] runs a command: captured, streamed, or on the user's terminal.
//! - [`Initramfs`] and [`newc`] build initramfs images without host tools.
//! - [`can_run_linux`] determines whether this host's KVM is sufficient.
//! - [`packages`] installs missing programs, or says what to do if it can't.
//!
//! Progress of slow steps is printed to standard error. Nothing outside `target` is written, except installed
//! packages and mmdebstrap's temporary files while it runs.

mod assets;
mod command;
mod compression;
mod error;
mod host;
mod initramfs;
mod kernels;
mod lock;
mod machine;
mod modinfo;
pub mod newc;
mod outer;
pub mod packages;
mod progress;
mod qemu;
mod reexec;
mod rootfs;
mod run_dir;
mod script;
mod signals;
mod source_kernel;
mod stage;
mod stamp;
mod streams;
mod terminal;
mod variables;
mod vmlinux;

pub use assets::Assets;
pub use error::{Error, Result};
pub use host::{Reason, can_run_linux};
pub use initramfs::{GUEST_INIT, Initramfs, MODULE_DIR};
pub use kernels::{Kernel, KernelKind, Module};
pub use machine::{CommandOutput, RESULTS_DIR, Rig};
pub use progress::{note, step};
pub use qemu::install_qemu;
pub use reexec::{Place, reason_for_rig, run_here_or_in_rig};
pub use rootfs::{Rootfs, fio, programs, try_package};
pub use stage::Stage;
pub use streams::Stdin;
pub use terminal::is_interactive;
pub use variables::{IN_RIG, REQUIRE_GUESTS, guests_required, in_rig};
pub use vmlinux::extract as extract_vmlinux;
