//! The socket at which host programs connect, and the sockets of host programs.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use vmm_hostio::{NamedSocket, NamedSocketError, UNIX_NAME_MAX, connect_unix, is_monitors};
use vmm_virtio::DeviceError;

use crate::place::Place;

/// Length of `_` and the longest port, appended to the path for connections from the guest.
const PORT_LEN: usize = 11;

/// A listening socket, whose file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Listener(NamedSocket);

impl Listener {
    /// With `plan_only`, the path is only checked.
    ///
    /// # Errors
    /// The path is too long, or exists and isn't a stale socket.
    pub(super) fn open(path: PathBuf, plan_only: bool) -> Result<Self, DeviceError> {
        let place = Place { path: &path, field: "path" };
        let len = path.as_os_str().len();
        let most = UNIX_NAME_MAX - PORT_LEN;
        if len > most {
            let problem = format!(
                "has {len} bytes with its directory, and a socket's name with \"_\" and a port after it \
                 {UNIX_NAME_MAX}: at most {most} are left"
            );
            return Err(place.wrong(&problem));
        }
        let socket = if plan_only { NamedSocket::look(&path) } else { NamedSocket::listen(&path) };
        socket.map(Self).map_err(|error| match error {
            NamedSocketError::Host(problem, error) => place.host(problem, &error),
            wrong => place.wrong(&wrong.to_string()),
        })
    }

    /// Readable when a client waits.
    pub(super) fn socket(&self) -> &NamedSocket {
        &self.0
    }

    /// Accepts the next client without blocking.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or the host is out of file descriptors.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        self.0.accept()
    }

    /// The path of the host programs' sockets, to which a port is appended.
    pub(super) fn programs(&self) -> PathBuf {
        let mut name = self.0.path().to_owned().into_os_string();
        name.push("_");
        name.into()
    }

    /// Connects to the host program that listens for this port.
    ///
    /// A monitor's own socket is excluded although it may have such a name: with machines at `/run/vm` and
    /// `/run/vm_1`, port 1 of the first would otherwise lead into the second.
    ///
    /// # Errors
    /// Nothing listens there; `WouldBlock` if its backlog is full; the host is out of file descriptors.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut name = self.programs().into_os_string();
        name.push(port.to_string());
        let connection = connect_unix(Path::new(&name))?;
        if is_monitors(&connection) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(connection)
    }
}
