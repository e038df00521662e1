//! Which files the monitor has open, and how many it may have.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{read_dir, symlink_metadata};
use std::os::fd::RawFd;
use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use vmm_config::Config;

/// Raises the limit to what the host's administrator allows. Each connection of a guest through the user backend of a network
/// card takes a descriptor, and the usual limit, 1024, is for programs that use select(2), which we don't.
pub(crate) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If it can't be, a guest has fewer connections.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Descriptors that whoever started the monitor left open, beyond the standard streams. Most were forgotten, and each is a way
/// out of a confinement.
#[derive(Debug)]
pub(crate) struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Those that are open now: to be called before anything is opened. None, where /proc isn't mounted.
    pub(crate) fn find() -> Self {
        let entries = read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let listed: Vec<RawFd> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        // The one through which they were read is closed by now.
        Self(listed.into_iter().filter(|fd| *fd > 2 && is_open(*fd)).collect())
    }

    /// Closes those that neither the config nor the command line names, as `{"fd": 5}` or as a path such as `/dev/fd/5`.
    pub(crate) fn close_unnamed(self, config: &Config, arguments: impl Iterator<Item = OsString>) {
        let mut named = BTreeSet::new();
        if let Ok(config) = serde_json::to_value(config) {
            collect(&config, &mut named);
        }
        arguments.for_each(|argument| named.extend(of_path(&argument.to_string_lossy())));
        for fd in self.0.into_iter().filter(|fd| !named.contains(fd)) {
            // It was open, and nobody here knows of it. An error such as EIO is of a file that isn't ours to mind.
            let _ = nix::unistd::close(fd);
        }
    }
}

fn is_open(fd: RawFd) -> bool {
    symlink_metadata(PathBuf::from("/proc/self/fd").join(fd.to_string())).is_ok()
}

/// The descriptors that a config names.
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

/// The descriptor whose path ends a text: that of /dev/fd, /proc/self/fd or the /proc of any process, which may be ours.
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
