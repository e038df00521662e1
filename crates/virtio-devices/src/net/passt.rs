//! Connects to a passt, through the stream socket that every release of it has.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;
use vmm_hostio::{UNIX_NAME_MAX, connect_unix};
use vmm_virtio::DeviceError;

use super::stream::StreamLink;

/// Connects to the passt that listens at `path`.
pub(super) fn open(path: &Path) -> Result<StreamLink, DeviceError> {
    let len = path.as_os_str().len();
    if len > UNIX_NAME_MAX {
        let problem = format!(
            "{}: a path of {len} bytes is too long for a socket, at most {UNIX_NAME_MAX}",
            path.display()
        );
        return Err(DeviceError::config("backend.passt", problem));
    }
    let is_socket = std::fs::metadata(path).map(|metadata| metadata.file_type().is_socket());
    if matches!(is_socket, Ok(false)) {
        let problem = format!("{} isn't a socket; use that of a `passt --socket PATH`", path.display());
        return Err(DeviceError::config("backend.passt", problem));
    }
    // Non-blocking: a passt with a machine doesn't accept another, and the kernel's backlog is short.
    let socket = connect_unix(path).map_err(|error| refusal(path, error))?;
    StreamLink::new(socket).map_err(|error| DeviceError::host("backend.passt", error))
}

fn refusal(path: &Path, error: Errno) -> DeviceError {
    let path = path.display();
    let host = |problem: String| DeviceError::host("backend.passt", problem);
    match error {
        Errno::NOENT => {
            host(format!("there is no {path}: `passt --socket {path}` creates it and listens there"))
        }
        Errno::CONNREFUSED => host(format!(
            "nothing listens at {path} any more: `rm {path}; passt --socket {path}` starts a new passt"
        )),
        Errno::AGAIN => {
            host(format!("the passt at {path} serves another machine: start another one at a different path"))
        }
        Errno::PROTOTYPE => {
            host(format!("{path} isn't a stream socket; use that of a `passt --socket PATH`"))
        }
        Errno::LOOP => DeviceError::config(
            "backend.passt",
            format!(
                "{path} is a symbolic link that leads to itself: use the socket of a `passt --socket PATH`"
            ),
        ),
        Errno::ACCESS => host(format!("{path} isn't open to you: start your own passt at a different path")),
        error => host(format!("{path} can't be reached: {}", io::Error::from(error))),
    }
}
