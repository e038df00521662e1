//! Errors of opening the host's vhost devices.

use std::io;

use rustix::io::Errno;
use vmm_hostio::VhostError;
use vmm_virtio::DeviceError;

/// Explains why `/dev/<name>` couldn't be opened, with the command that fixes it. The error's field is
/// `vhost`.
pub(crate) fn refusal(name: &str, error: &VhostError) -> DeviceError {
    // The device node exists without a driver.
    let has_none = matches!(Errno::from_io_error(&error.source), Some(Errno::NODEV | Errno::NXIO));
    let problem = match error.source.kind() {
        _ if error.call != "open" => format!("/dev/{name}: {error}"),
        io::ErrorKind::PermissionDenied => {
            format!("/dev/{name} isn't open to you: `sudo chown $USER /dev/{name}` makes it yours")
        }
        kind if kind == io::ErrorKind::NotFound || has_none => {
            let module = name.replace('-', "_");
            format!("there is no /dev/{name}: `sudo modprobe {module}` loads the kernel's driver")
        }
        _ => format!("/dev/{name} can't be opened: {}", error.source),
    };
    DeviceError::host("vhost", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(call: &'static str, errno: Errno) -> String {
        refusal("vhost-net", &VhostError { call, source: errno.into() }).to_string()
    }

    #[test]
    fn refusal_says_which_command_mends_it() {
        let missing =
            ".vhost: there is no /dev/vhost-net: `sudo modprobe vhost_net` loads the kernel's driver";
        assert_eq!(refused("open", Errno::NOENT), missing);
        assert_eq!(refused("open", Errno::NODEV), missing);
        assert_eq!(
            refused("open", Errno::ACCESS),
            ".vhost: /dev/vhost-net isn't open to you: `sudo chown $USER /dev/vhost-net` makes it yours"
        );
        assert_eq!(
            refused("open", Errno::MFILE),
            ".vhost: /dev/vhost-net can't be opened: Too many open files (os error 24)"
        );
        assert_eq!(
            refused("VHOST_SET_OWNER", Errno::NOMEM),
            ".vhost: /dev/vhost-net: VHOST_SET_OWNER: Cannot allocate memory (os error 12)"
        );
    }
}
