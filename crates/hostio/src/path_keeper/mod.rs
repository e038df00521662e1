//! The path keeper: a process that connects to sockets and removes files by path, for a monitor that no longer
//! can.
//!
//! A confined monitor has an empty root directory. But a guest may connect to programs that listen at names
//! known only then (`PATH_5` for port 5 of a vsock device), and at the end the monitor removes its sockets and
//! the output files that it hasn't used. So before it confines itself, it forks the keeper, which stays where
//! the files are and does only what its [`Grant`] names:
//!
//! ```text
//! monitor                                     keeper
//! fork_keeper(grant, confine)                 confine(), then serve():
//! delegate_to(keeper.socket)
//! (confines itself, starts threads)
//! connect_unix("vm.sock_5")  -- request -->   granted: connect(2)
//!                            <-- socket --
//! drop(NamedSocket)          -- request -->   granted, and the same inode: unlink(2)
//!                            <-- errno ---
//! ```
//!
//! Requests are messages on one socket; each carries one end of a new pair of sockets for its reply. So any
//! thread may ask, without a lock, and gives up after three seconds (ETIMEDOUT) if the keeper hangs or is
//! stopped. The keeper does one thing at a time. It takes requests as hostile input: the monitor may have been
//! taken over by its guest.
//!
//! Paths are those of the config, unchanged. The keeper keeps the current directory of the moment when it was
//! forked, so a relative path still leads to the same file.
//!
//! ```no_run
//! use std::path::Path;
//! use vmm_hostio::path_keeper::{Grant, delegate_to, fork_keeper};
//! use vmm_hostio::{NamedSocket, connect_unix};
//!
//! let socket = NamedSocket::listen(Path::new("vm.sock"))?;
//! let grant = Grant { connect_prefixes: vec!["vm.sock_".into()], remove: vec!["vm.sock".into()] };
//! let keeper = fork_keeper(&grant, || Ok(()))?;
//! delegate_to(keeper.socket);
//! // As if confined: the relative paths lead nowhere from here.
//! std::env::set_current_dir("/")?;
//! let _program = connect_unix(Path::new("vm.sock_1024"))?;
//! drop(socket);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The process
//!
//! [`fork_keeper`] needs a process with one thread. The child has a copy of each mapping, which keeps a shared
//! file open, with its locks, and private pages in memory until the keeper ends. Those of vmm-memory and of this
//! crate's [`Engine`](crate::Engine) are left out (MADV_DONTFORK); make others later.
//!
//! The keeper has its own session, blocks all signals, so that it outlives the monitor's clean-up when both are
//! signalled, and has no descriptor but its socket. It ends when the last copy of the monitor's end is closed,
//! also if the monitor was killed. Nobody waits for it: init reaps it after the monitor's end. If it ends early,
//! the monitor gets a SIGCHLD, which is ignored by default, [`socket`] hangs up, and later requests fail with EPIPE.
//!
//! A program to which the keeper connects sees the keeper's process ID as that of its peer (SO_PEERCRED).
//!
//! # System calls
//!
//! From the end of its confinement on, the keeper uses only `recvmsg`, `socket`, `connect`, `newfstatat`,
//! `unlinkat`, `sendmsg` and `close`, in debug builds `fcntl` (F_GETFD, by which the standard library checks a
//! descriptor before it closes it), and at its end `exit_group`. Paths of more than 255 bytes need the
//! allocator: `brk`, `mmap`, `munmap`. Of files it needs the directories of the names that it removes, to remove
//! files there, and the path to each socket.
//!
//! A thread of the monitor that asks needs `socketpair` (AF_UNIX, SOCK_SEQPACKET), `sendmsg`, `ppoll`,
//! `recvmsg`, `close` and `fcntl` likewise, `clock_gettime` without a vDSO, and the allocator.

mod by_path;
mod client;
mod fork;
mod grant;
mod message;
mod protocol;
mod server;
#[cfg(test)]
mod tests;

pub use by_path::Contents;
pub use client::{KEPT_CALLS, delegate_to, remove_if_same, socket};
pub use fork::{KeeperProcess, fork_keeper};
pub use grant::Grant;
pub use server::{KEEPER_CALLS, serve};

pub(crate) use by_path::connect as connect_directly;
pub(crate) use client::connect;
