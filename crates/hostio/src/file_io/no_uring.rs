//! In place of uring.rs in a build without the feature `io-uring`: no ring can be created.

use std::fs::File;
use std::io;
use std::sync::Arc;

use vmm_bus::EventFd;

use super::task::Task;

/// No value of it exists.
pub(super) enum Uring {}

impl Uring {
    /// # Errors
    /// Always.
    pub(super) fn new(_depth: u16, _files: &[Arc<File>], _ready: &Arc<EventFd>) -> io::Result<Self> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "built without the feature \"io-uring\""))
    }

    pub(super) fn submit(&mut self, _task: Task) {
        match *self {}
    }

    pub(super) fn dispatch(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(super) fn completed(&mut self) -> Option<(Task, io::Result<()>)> {
        match *self {}
    }

    pub(super) fn wait(&mut self) {
        match *self {}
    }
}
