//! What a monitor asks of its host beside KVM.
//!
//! [`crash`] runs a last action before the process dies of a defect:
//!
//! ```
//! fn restore_terminal() {
//!     // Only what a signal handler may do: system calls, and reads of atomics.
//! }
//!
//! vmm_hostio::crash::before_death(restore_terminal)?;
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod crash;
