//! The panic hook: restores the terminal and reports the panic, which is a bug of the monitor.

use std::backtrace::Backtrace;
use std::{panic, thread};

use vmm_hostio::terminal;

use crate::streams::Streams;

/// Reports panics to `streams`. Call it on the main thread, whose panic ends the program: the terminal is restored first. A panic of
/// a device's or a vCPU's thread leaves the terminal raw, because the machine continues or is ended in the usual way.
pub(crate) fn report_to(streams: &Streams, with_backtrace: bool) {
    let (streams, main) = (streams.clone(), thread::current().id());
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("without a name"));
        // Resolving one opens the program's file, which a confined thread can't.
        if with_backtrace && !vmm_sandbox::is_enabled() {
            text += &format!("\nstack backtrace:\n{}", Backtrace::force_capture());
        }
        if thread.id() == main {
            terminal::restore();
        }
        streams.report(&text);
        if thread.id() == main {
            streams.flush();
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
    use nix::sys::termios::{LocalFlags, tcgetattr};
    use vmm_hostio::terminal::RawMode;
    use vmm_machine::Messages;

    use super::*;

    #[test]
    fn panic_of_a_device_leaves_the_terminal_raw_and_is_reported() {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let flags = OFlag::O_NOCTTY.bits();
        let terminal = File::options().read(true).write(true).custom_flags(flags).open(name).unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        let stderr = Messages::to_log(log.path()).unwrap();
        let streams = Streams { stderr, stdout: Messages::to_stdout().unwrap(), log: None };

        let raw = RawMode::enter(&terminal).unwrap();
        report_to(&streams, false);
        let device = thread::Builder::new().name("vq-disk0".to_owned()).spawn(|| panic!("a defect")).unwrap();
        assert!(device.join().is_err());
        let _ = panic::take_hook();
        streams.flush();

        assert!(!tcgetattr(&terminal).unwrap().local_flags.contains(LocalFlags::ICANON));
        let said = std::fs::read_to_string(log.path()).unwrap();
        assert!(said.starts_with("thread 'vq-disk0' panicked at vmm-bin/src/panics.rs:"), "{said}");
        let (_, rest) = said.split_once("\r\na defect\r\n").expect("the message, on a line of its own");
        assert_eq!(rest, "");
        drop(raw);
        assert!(tcgetattr(&terminal).unwrap().local_flags.contains(LocalFlags::ICANON));
    }
}
