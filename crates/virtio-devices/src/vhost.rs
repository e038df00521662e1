//! The host's kernel as the server of a device's queues (vhost): why it can't be had.

use std::io;

use rustix::io::Errno;
use vmm_hostio::VhostError;
use vmm_virtio::DeviceError;

/// What the kernel's refusal of `/dev/<name>` means, and the command that mends it. The field is called `vhost`.
pub(crate) fn refusal(name: &str, error: &VhostError) -> DeviceError {
    // There is a name for it, and no driver.
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
