//! The temporary file of an overlay: unnamed, accessible only to its owner, deleted when its descriptor is
//! closed.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use vmm_virtio::{DeviceError, Setting};

use super::config::Overlay;

/// The file holds the guest's data, and others can reach it through /proc/PID/fd.
const MODE: u32 = 0o600;

/// Creates an empty file in the configured directory.
pub(super) fn create(overlay: &Overlay, setting: &Setting<'_>) -> Result<File, DeviceError> {
    let directory = match overlay {
        Overlay::Temp => std::env::temp_dir(),
        Overlay::TempIn(directory) => setting.path(directory),
    };
    create_in(&directory).map_err(|error| refused(overlay, &directory, &error))
}

fn create_in(directory: &Path) -> io::Result<File> {
    // It is unnamed, so nothing opens it before its mode is set.
    let file = tempfile::tempfile_in(directory)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

fn refused(overlay: &Overlay, directory: &Path, error: &io::Error) -> DeviceError {
    let (what, other) = match overlay {
        Overlay::Temp => (", the directory for temporary files,", "set TMPDIR to another"),
        Overlay::TempIn(_) => ("", "name another"),
    };
    let problem = match error.kind() {
        // A directory such as /proc, in which nothing can be created, gives the same error.
        ErrorKind::NotFound if !directory.exists() => format!("doesn't exist: create it, or {other}"),
        ErrorKind::NotADirectory => format!("isn't a directory: {other}"),
        ErrorKind::PermissionDenied => {
            format!("can't be written: permission denied, see chmod(1), or {other}")
        }
        ErrorKind::ReadOnlyFilesystem => format!("is on a read-only file system: {other}"),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("has no room for a temporary file: {error}; make some, or {other}")
        }
        _ => format!("takes no temporary file: {error}; {other}"),
    };
    DeviceError::config("overlay", format!("{}{what} {problem}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_its_users_alone_and_has_no_name() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = create_in(directory.path()).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    /// The messages for the directory for temporary files, and for a configured one.
    fn refusals(kind: ErrorKind) -> [String; 2] {
        let named = serde_json::from_str(r#"{"temp_in": "/tmp/x"}"#).unwrap();
        [Overlay::Temp, named].map(|overlay| refused(&overlay, Path::new("/tmp/x"), &kind.into()).to_string())
    }

    #[test]
    fn directory_that_takes_no_files_is_not_said_to_be_missing() {
        let overlay = serde_json::from_str(r#"{"temp_in": "/proc"}"#).unwrap();
        let setting = Setting { directory: Path::new("/"), vcpus: 1, id: "disk0", plan_only: false };
        let message = create(&overlay, &setting).unwrap_err().to_string();
        assert!(
            message.starts_with(".overlay: /proc takes no temporary file: No such file or directory"),
            "{message}"
        );
        assert!(message.ends_with("; name another"), "{message}");
    }

    #[test]
    fn directory_that_is_missing_is_named_with_the_variable() {
        assert_eq!(
            refusals(ErrorKind::NotFound),
            [
                ".overlay: /tmp/x, the directory for temporary files, doesn't exist: create it, or set TMPDIR to another",
                ".overlay: /tmp/x doesn't exist: create it, or name another"
            ]
        );
    }

    #[test]
    fn directory_without_room_is_said_to_have_none() {
        assert_eq!(
            refusals(ErrorKind::StorageFull),
            [
                ".overlay: /tmp/x, the directory for temporary files, has no room for a temporary file: no storage space; \
                 make some, or set TMPDIR to another",
                ".overlay: /tmp/x has no room for a temporary file: no storage space; make some, or name another"
            ]
        );
    }

    #[test]
    fn directory_that_is_none_or_closed_is_said_to_be() {
        assert_eq!(refusals(ErrorKind::NotADirectory)[1], ".overlay: /tmp/x isn't a directory: name another");
        assert_eq!(
            refusals(ErrorKind::PermissionDenied)[1],
            ".overlay: /tmp/x can't be written: permission denied, see chmod(1), or name another"
        );
        assert_eq!(
            refusals(ErrorKind::ReadOnlyFilesystem)[1],
            ".overlay: /tmp/x is on a read-only file system: name another"
        );
    }
}
