//! A started program: its process id, and the test's ends of its pipes.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

/// The test's ends of the program's pipes.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) captured: Option<PipeReader>,
    pub(crate) held: Option<PipeReader>,
    pub(crate) stderr: Option<PipeReader>,
}

impl Ends {
    /// Creates a pipe, keeps its read end as `place` says, and returns the write end.
    pub(crate) fn output(&mut self, place: fn(&mut Self) -> &mut Option<PipeReader>) -> Stdio {
        let (reader, writer) = io::pipe().expect("a pipe");
        *place(self) = Some(reader);
        writer.into()
    }
}

/// Only the process id; the exit of `child` is tracked elsewhere.
pub(crate) fn pid(child: &Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("Linux numbers processes up to 2^22"))
}
