//! A child process that tries something, so that this process isn't changed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

/// Runs `attempt` in a child process; returns what it returned. Nothing, if the child died.
///
/// If this process has other threads, they don't exist in the child, and locks that they hold are never released there: `attempt` may
/// allocate, which the C libraries provide for, but not use other state that is shared between threads, such as standard streams.
///
/// # Errors
/// There is no pipe or no process to be had.
pub(crate) fn in_child(attempt: impl FnOnce() -> String) -> io::Result<String> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the child calls only `attempt`, write and _exit; see above for `attempt`.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let result = attempt();
            let _ = File::from(write).write_all(result.as_bytes());
            // SAFETY: it ends the child without running destructors or exit handlers of the parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(write);
            let mut result = String::new();
            let read = File::from(read).read_to_string(&mut result);
            // An error means that someone else has waited for all children.
            let _ = waitpid(child, None);
            read.map(|_| result)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_returns_its_result_and_changes_nothing_here() {
        let this = std::process::id();
        let child = in_child(|| std::process::id().to_string()).unwrap();
        assert!(child.parse::<u32>().unwrap() != this);
        assert_eq!(std::process::id(), this);
    }

    #[test]
    fn child_that_dies_returns_nothing() {
        assert_eq!(in_child(|| std::process::abort()).unwrap(), "");
    }
}
