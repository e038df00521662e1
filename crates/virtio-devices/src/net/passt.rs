//! The way to a passt.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;
use vmm_hostio::{UNIX_NAME_MAX, connect_unix};
use vmm_virtio::DeviceError;

use super::stream::StreamLink;

/// A link to the passt that listens at `path`.
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
        let problem = format!("{} is no socket; name the one of a `passt --socket PATH`", path.display());
        return Err(DeviceError::config("backend.passt", problem));
    }
    // Without waiting: a passt that has its machine takes no other, and the kernel's queue of those who wait is short.
    let socket = connect_unix(path).map_err(|error| refusal(path, error))?;
    StreamLink::new(socket).map_err(|error| DeviceError::host("backend.passt", error))
}

fn refusal(path: &Path, error: Errno) -> DeviceError {
    let path = path.display();
    let host = |problem: String| DeviceError::host("backend.passt", problem);
    match error {
        Errno::NOENT => {
            host(format!("there is no {path}: `passt --socket {path}` makes it and listens there"))
        }
        Errno::CONNREFUSED => host(format!(
            "nobody listens at {path} any more: `rm {path}; passt --socket {path}` starts one that does"
        )),
        Errno::AGAIN => {
            host(format!("the passt at {path} has another machine: start one more, at another path"))
        }
        Errno::PROTOTYPE => {
            host(format!("{path} is no stream socket; name the one of a `passt --socket PATH`"))
        }
        Errno::LOOP => DeviceError::config(
            "backend.passt",
            format!(
                "{path} is a symbolic link that leads to itself: name the socket of a `passt --socket PATH`"
            ),
        ),
        Errno::ACCESS => {
            host(format!("{path} isn't open to you: start a passt of your own, at another path"))
        }
        error => host(format!("{path} can't be reached: {}", io::Error::from(error))),
    }
}
