//! The last step of a start: the consoles' files are emptied.

use super::{Console, OpenError};

/// Truncates the files of the consoles, all of which are open, unless an earlier machine has written to them, and keeps new ones.
///
/// As soon as a file has lost its contents, the start can't be refused any more. Returns the errors of the files after that one:
/// the guest's output overwrites their contents from the beginning. A start that `is_cancelled` empties no further file.
///
/// # Errors
/// A file can't be truncated. No file has changed.
pub(crate) fn begin_all(
    consoles: &mut [Console],
    is_cancelled: impl Fn() -> bool,
) -> Result<Vec<OpenError>, OpenError> {
    let (mut has_changed, mut late) = (false, Vec::new());
    for console in consoles.iter_mut() {
        if is_cancelled() {
            return Ok(late);
        }
        match console.truncate() {
            Ok(had_contents) => has_changed |= had_contents,
            Err(error) if has_changed => late.push(error),
            Err(error) => return Err(error),
        }
    }
    consoles.iter_mut().for_each(Console::keep);
    Ok(late)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::sync::{Arc, mpsc};

    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use vmm_bus::IrqLine;
    use vmm_config::Serial;
    use vmm_devices::Uart;

    use super::super::{Lines, open_now};
    use super::*;

    /// A file in memory with 5 bytes, which a seal can keep from shrinking.
    fn memory_file() -> File {
        let mut file = File::from(memfd_create("old", MFdFlags::MFD_ALLOW_SEALING).unwrap());
        file.write_all(b"older").unwrap();
        file
    }

    fn seal(file: &File) {
        fcntl(file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    }

    /// A console of COM1 at a file that is open already.
    fn console(file: &File) -> Console {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let serial: Serial = serde_json::from_value(serde_json::json!({"file": path})).unwrap();
        let uart = Arc::new(Uart::new(IrqLine::new().unwrap()).unwrap());
        let lines = Lines { serial, uart, consoles: vec![] };
        open_now(lines, vec![], &mpsc::channel().0).unwrap().remove(0)
    }

    fn len(file: &File) -> u64 {
        file.metadata().unwrap().len()
    }

    #[test]
    fn files_are_emptied_together() {
        let files = [memory_file(), memory_file()];
        let mut consoles = [console(&files[0]), console(&files[1])];
        assert!(begin_all(&mut consoles, || false).unwrap().is_empty());
        assert_eq!(files.each_ref().map(len), [0, 0]);
    }

    #[test]
    fn files_keep_their_contents_from_when_the_start_is_cancelled() {
        for cancelled_before in [0, 1] {
            let files = [memory_file(), memory_file()];
            let mut consoles = [console(&files[0]), console(&files[1])];
            let asked = std::cell::Cell::new(0);
            let is_cancelled = || asked.replace(asked.get() + 1) == cancelled_before;
            assert!(begin_all(&mut consoles, is_cancelled).unwrap().is_empty());
            assert_eq!(files.each_ref().map(len), if cancelled_before == 0 { [5, 5] } else { [0, 5] });
        }
    }

    #[test]
    fn file_that_cannot_be_emptied_refuses_a_start_that_has_changed_nothing() {
        let files = [memory_file(), memory_file()];
        let mut consoles = [console(&files[0]), console(&files[1])];
        seal(&files[0]);
        begin_all(&mut consoles, || false).unwrap_err();
        assert_eq!(files.each_ref().map(len), [5, 5]);
    }

    /// Refusing the start would leave the first one empty for nothing.
    #[test]
    fn file_that_cannot_be_emptied_after_another_is_reported_and_not_tried_again() {
        let files = [memory_file(), memory_file()];
        let mut consoles = [console(&files[0]), console(&files[1])];
        seal(&files[1]);
        assert_eq!(begin_all(&mut consoles, || false).unwrap().len(), 1);
        assert_eq!(files.each_ref().map(len), [0, 5]);
        assert!(begin_all(&mut consoles, || false).unwrap().is_empty());
    }

    #[test]
    fn file_that_is_sealed_is_refused_before_any_is_emptied() {
        let file = memory_file();
        seal(&file);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let error = crate::output_file::open_output(path.as_ref()).unwrap_err();
        assert_eq!(error.to_string(), "it is sealed, see memfd_create(2); name another file");
    }
}
