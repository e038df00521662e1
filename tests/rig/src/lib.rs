#![forbid(unsafe_code)]

//! A machine with a genuine /dev/kvm, on any x86-64 Linux host.
//!
//! A monitor for KVM can only be tested where KVM runs Linux, and many machines that tests run on have no /dev/kvm, or
//! only a software one that runs a few instructions of bare metal. QEMU can emulate, in software and without root, a CPU
//! that has AMD's virtualization. A stock kernel on that machine offers /dev/kvm like any other. This crate sets such a
//! machine up from nothing and runs commands in it, with the host's files at the same paths:
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
//! Where the host's own KVM runs Linux, the two in the middle are left out. A test binary doesn't choose:
//! [`run_here_or_in_rig`] does.
//!
//! # The parts
//!
//! - [`Assets`] is a cache in `target/assets`: stock [kernels](Kernel) from the distribution's packages, their
//!   [vmlinux](extract_vmlinux) and [modules](Module), Busybox, the guests' initramfs, [disks](Rootfs) to boot from. Each is
//!   fetched or built when it's first asked for.
//! - [`Rig`] is one run of a command: captured, streamed, or on the person's terminal.
//! - [`Initramfs`] and [`newc`] build root file systems without any tool of the host's.
//! - [`can_run_linux`] tells what this host's KVM is worth.
//! - [`packages`] installs what is missing, and says what to do where it can't.
//!
//! Progress on what takes seconds goes to standard error. Nothing outside `target` is written but installed packages,
//! and what mmdebstrap keeps in the directory for temporary files while it works.

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
