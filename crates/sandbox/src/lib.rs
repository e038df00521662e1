//! Confines a process that has opened all it needs, and then handles hostile input: a monitor whose guest may be an attacker.
//!
//! ```text
//!                          one thread, everything is open                many threads
//!
//!   open files, KVM  ->  Jail::enter  ->  landlock::restrict  ->  threads start, each: confine_thread(role, lists)
//!                        |                |                       |
//!                        |                |                       +- other system calls end the process: exit code 159
//!                        |                +- paths, TCP ports, signals to others, abstract sockets
//!                        +- namespaces, an empty read-only root, no capabilities, not traced, not dumped
//! ```
//!
//! Each wall stands alone. If the host refuses one, the others are built, and a [`Wall`] says which is missing, why, and what an
//! administrator can change. [`probe`] says the same in advance.
//!
//! | | stops | costs |
//! |---|---|---|
//! | [`Jail`] | every path, the network, other processes, new privileges | a few milliseconds at the start |
//! | [`landlock`] | paths, even in descriptors of directories; TCP ports; signals | well under a millisecond |
//! | [`confine_thread`] | the kernel's other interfaces | about 50 ns for a call with conditions, nothing measurable for others |
//!
//! # Filters
//!
//! A filter is a union of lists. Each list is a constant beside the code that needs it; [`BASE`] is part of every filter, and [`SPAWN`]
//! is for threads that create threads. Nothing is confined until [`enable`] is called, so a library can call [`confine_thread`] in its
//! threads, and the program decides.
//!
//! A thread inherits the filter of the thread that creates it and can only narrow it. So the main thread is confined last, and a thread
//! that creates others later needs their lists too.
//!
//! The message about a violation names thread, call, number and arguments:
//!
//! ```text
//! error: the sandbox stopped the thread vq-disk0: system call openat (257) with 0xffffff9c, 0x7f21a4000b70, 0x80000 isn't in its filter; ..
//! ```
//!
//! What a filter can't see, it can't check: memory that an argument points to, and requests of io_uring. clone3 therefore fails with
//! ENOSYS, and the C library uses clone. A clone that isn't allowed fails with EPERM, as the C library has blocked the signal of a
//! violation there: a process or thread isn't created, and the caller says so. A ring must be restricted before (IORING_REGISTER_RESTRICTIONS).
//!
//! A panic's message is written under every filter. A backtrace isn't: resolving one opens files. The panic hook of std captures one if
//! RUST_BACKTRACE is set, so a program installs its own, which doesn't if [`is_enabled`].
//!
//! # Tests
//!
//! With the feature `escape-hooks`, which is for tests of programs only, a thread tries to leave the sandbox if the variable `VMM_ESCAPE`
//! says so: right after it is confined, or on command.
//!
//! # Example
//!
//! ```no_run
//! use std::io;
//! use std::thread;
//!
//! use vmm_sandbox::landlock::{self, Access, Ports};
//! use vmm_sandbox::{Allow, Jail, JailNetwork, ViolationAction, confine_thread, enable, report_violations};
//!
//! /// What a disk's thread does, besides computing.
//! const DISK: &[Allow] = &[
//!     Allow::call(libc::SYS_pread64),
//!     Allow::call(libc::SYS_pwrite64),
//!     Allow::call(libc::SYS_fdatasync),
//!     // Waiting for the queue.
//!     Allow::call(libc::SYS_epoll_wait),
//!     // Discarding.
//!     Allow::when(libc::SYS_fallocate, 1, &[3]),
//! ];
//!
//! // Files, sockets and /dev/kvm are open by now.
//! let mut walls = Jail { network: JailNetwork::None, user: None }.enter()?;
//! walls.extend(landlock::restrict(Access {
//!     tcp_connect: Ports::Only(Vec::new()),
//!     tcp_bind: Ports::Only(Vec::new()),
//!     remove_in: Vec::new(),
//!     connect_in: Vec::new(),
//! }));
//! for missing in walls.iter().filter(|wall| !wall.is_up()) {
//!     eprintln!("warning: {missing}");
//! }
//! report_violations(|| ())?;
//! enable(ViolationAction::Trap);
//! let disk = thread::spawn(|| -> io::Result<()> {
//!     confine_thread("vq-disk0", &[DISK])?;
//!     // .. serves the guest's requests.
//!     Ok(())
//! });
//! confine_thread("main", &[])?;
//! # disk.join().expect("it doesn't panic")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod child;
mod declare;
#[cfg(feature = "escape-hooks")]
mod escape;
mod filter;
mod jail;
pub mod landlock;
mod lists;
mod names;
mod namespaces;
mod needs;
mod privileges;
mod probe;
mod program;
mod report;
mod role;
mod violation;

pub use declare::Allow;
pub use filter::{ViolationAction, confine_thread, enable, filters, is_enabled};
pub use jail::{Jail, JailError, JailNetwork};
pub use lists::{BASE, SPAWN};
pub use names::call_name;
pub use needs::{HostNetwork, Needs};
pub use privileges::keep_file_access;
pub use probe::probe;
pub use report::{Wall, WallState};
pub use violation::{VIOLATION_EXIT_CODE, report_violations};

/// Its example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
