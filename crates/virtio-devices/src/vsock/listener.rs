//! The socket at which the host's programs connect, and the names of theirs.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use vmm_hostio::{NamedSocket, NamedSocketError, UNIX_NAME_MAX, connect_unix, is_monitors};
use vmm_virtio::DeviceError;

use crate::place::Place;

/// `_` and the longest port, which are behind the path where the guest's connections arrive.
const PORT_LEN: usize = 11;

/// A socket that listens, whose name is gone when it is.
#[derive(Debug)]
pub(super) struct Listener(NamedSocket);

impl Listener {
    /// If `plan_only`, a socket that could have this name.
    ///
    /// # Errors
    /// The path is too long, or something else is there that isn't a dead socket.
    pub(super) fn open(path: PathBuf, plan_only: bool) -> Result<Self, DeviceError> {
        let place = Place { path: &path, field: "path" };
        let len = path.as_os_str().len();
        let most = UNIX_NAME_MAX - PORT_LEN;
        if len > most {
            let problem = format!(
                "has {len} bytes with its directory, and a socket's name with \"_\" and a port behind it \
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

    /// The next client, not blocking.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or no descriptor is left.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        self.0.accept()
    }

    /// Connects to the host's program that listens for this port.
    ///
    /// A monitor's own socket is none, though it may have such a name: with one machine at `/run/vm` and another at `/run/vm_1`,
    /// port 1 of the first would be a way into the second.
    ///
    /// # Errors
    /// Nobody does; `WouldBlock` if more wait for it than may; no descriptor is left.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut name = self.0.path().to_owned().into_os_string();
        name.push(format!("_{port}"));
        let connection = connect_unix(Path::new(&name))?;
        if is_monitors(&connection) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(connection)
    }
}
