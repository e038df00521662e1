//! What a path keeper may do.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::protocol::Request;

/// What a path keeper may do. Paths are compared byte by byte, so a request must have them as they are written
/// here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Paths such as `vm.sock_`. It connects to such a path with a port appended: a number of 32 bits in
    /// decimal, without leading zeros.
    pub connect_prefixes: Vec<PathBuf>,
    /// Names that it removes.
    pub remove: Vec<PathBuf>,
}

impl Grant {
    pub(super) fn allows(&self, request: &Request<'_>) -> bool {
        match request {
            Request::Connect { path } => self.connect_prefixes.iter().any(|prefix| is_port_of(prefix, path)),
            Request::Remove { path, .. } => {
                self.remove.iter().any(|granted| granted.as_os_str() == path.as_os_str())
            }
        }
    }
}

/// Whether `path` is `prefix` with a port appended.
fn is_port_of(prefix: &Path, path: &Path) -> bool {
    let [prefix, path] = [prefix, path].map(|path| path.as_os_str().as_bytes());
    let port = path.strip_prefix(prefix).unwrap_or_default();
    let is_canonical = port == b"0" || port.first().is_some_and(|first| (b'1'..=b'9').contains(first));
    // The standard library accepts a sign and leading zeros.
    is_canonical && str::from_utf8(port).is_ok_and(|port| port.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path_keeper::Contents;

    fn grant() -> Grant {
        Grant { connect_prefixes: vec!["run/vm_".into()], remove: vec!["run/vm".into(), "/log".into()] }
    }

    fn connects(path: &str) -> bool {
        grant().allows(&Request::Connect { path: Path::new(path) })
    }

    fn removes(path: &str) -> bool {
        let contents = Contents::Any;
        grant().allows(&Request::Remove { path: Path::new(path), device: 1, inode: 2, contents })
    }

    #[test]
    fn connections_are_granted_to_every_port() {
        assert!(connects("run/vm_0") && connects("run/vm_10") && connects("run/vm_4294967295"));
    }

    #[test]
    fn connections_are_granted_to_nothing_but_ports() {
        assert!(!connects("run/vm_") && !connects("run/vm") && !connects("run/vm5") && !connects("run/wm_5"));
        assert!(!connects("run/vm_5/x") && !connects("run/vm_5.sock") && !connects("run/vm_5\0"));
        assert!(!connects("run/vm_-5") && !connects("run/vm_+5") && !connects("run/vm_ 5"));
        assert!(!connects("run/vm_05") && !connects("run/vm_00") && !connects("run/vm_4294967296"));
        assert!(!connects("run/vm_\u{0665}"));
    }

    #[test]
    fn other_ways_to_a_granted_path_are_refused() {
        assert!(!connects("run/../run/vm_5") && !connects("./run/vm_5") && !connects("run//vm_5"));
        assert!(!connects("/run/vm_5") && !connects("run/vm_/../vm_5") && !connects("run/vm_5/../vm_6"));
        assert!(!removes("./run/vm") && !removes("run/./vm") && !removes("run//vm") && !removes("run/vm/"));
        assert!(!removes("/run/vm") && !removes("//log"));
    }

    #[test]
    fn names_granted_for_one_thing_are_not_for_the_other() {
        assert!(removes("run/vm") && removes("/log"));
        assert!(!removes("run/vm_5") && !removes("run/vm_") && !removes("/lo") && !removes("/log2"));
        assert!(!connects("/log"));
    }

    #[test]
    fn nothing_is_granted_by_default() {
        let request = Request::Connect { path: Path::new("5") };
        assert!(!Grant::default().allows(&request));
    }
}
