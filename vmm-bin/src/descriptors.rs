//! The monitor's file descriptors: their limit, and those inherited from its parent.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{read_dir, symlink_metadata};
use std::os::fd::RawFd;
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use vmm_config::Config;

/// Raises the soft limit to the hard limit. Each guest connection through the user backend of a network card takes a descriptor,
/// and the usual soft limit of 1024 exists for programs that use select(2), which the monitor doesn't.
pub(crate) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If this fails, the guest can have fewer connections.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Descriptors beyond the standard streams that were open when the monitor started. Most were leaked by the parent, and each is a
/// potential way out of confinement.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<RawFd>);

impl Inherited {
    /// The descriptors that are open now; call it before opening anything. Empty if /proc isn't mounted.
    pub(crate) fn find() -> Self {
        let entries = read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let listed: Vec<RawFd> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // The descriptor of the directory itself is closed by now.
        Self(listed.into_iter().filter(|fd| *fd > 2 && is_open(*fd)).collect())
    }

    /// Closes all that neither the config nor the command line names, as `{"fd": 5}` or by a path such as `/dev/fd/5`.
    pub(crate) fn close_unnamed(self, config: &Config, arguments: impl Iterator<Item = OsString>) {
        let mut named = BTreeSet::new();
        if let Ok(config) = serde_json::to_value(config) {
            collect(&config, &mut named);
        }
        arguments.for_each(|argument| named.extend(of_path(&argument.to_string_lossy())));
        for fd in self.0.into_iter().filter(|fd| !named.contains(fd)) {
            // It was open, and nothing else in this process uses it. An error such as EIO concerns the parent's file, not us.
            let _ = nix::unistd::close(fd);
        }
    }
}

fn is_open(fd: RawFd) -> bool {
    symlink_metadata(PathBuf::from("/proc/self/fd").join(fd.to_string())).is_ok()
}

/// Adds the descriptors named anywhere in `value` to `named`.
fn collect(value: &Value, named: &mut BTreeSet<RawFd>) {
    match value {
        Value::Object(fields) => {
            let fd: Option<RawFd> =
                fields.get("fd").and_then(Value::as_i64).and_then(|fd| fd.try_into().ok());
            named.extend(fd);
            fields.values().for_each(|value| collect(value, named));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, named)),
        Value::String(text) => named.extend(of_path(text)),
        _ => {}
    }
}

/// The descriptor in a text that ends in a path below /dev/fd, /proc/self/fd or any /proc/PID/fd: the PID may be ours.
fn of_path(text: &str) -> Option<RawFd> {
    let (_, number) = text.rsplit_once("/fd/")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limit_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).unwrap();
        raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)));
    }

    #[test]
    fn descriptors_of_a_config_are_those_of_fd_and_of_paths() {
        let config = json!({
            "boot": {"kernel": "/proc/self/fd/63", "modules": ["/dev/fd/7 x"]},
            "serial": {"file": "/dev/fd/4"},
            "devices": [{"type": "net", "backend": {"fd": 5}}, {"fd": 6.5, "cid": 8}, {"fd": "9"}]
        });
        let mut named = BTreeSet::new();
        collect(&config, &mut named);
        assert_eq!(named, BTreeSet::from([4, 5, 63]));
    }
}
