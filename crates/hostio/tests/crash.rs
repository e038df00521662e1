//! Deaths of a process of its own: this test program once more.

use std::env;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, raise};
use vmm_hostio::crash;

/// Says in the child which test it is to run.
const CHILD: &str = "VMM_HOSTIO_TESTS_CHILD";

/// The end of a process in which the test called `name` runs `death` after [`crash::before_death`].
fn end_of(name: &str, death: fn()) -> Output {
    if env::var_os(CHILD).is_some() {
        crash::before_death(last_words).unwrap();
        death();
        unreachable!("the process outlived its death");
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").stdin(Stdio::null()).output().unwrap()
}

fn last_words() {
    let _ = rustix::io::write(rustix::stdio::stderr(), b"last words\n");
}

fn said(end: &Output) -> String {
    String::from_utf8_lossy(&end.stderr).into_owned()
}

fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if black_box(false) { 0 } else { overflow(depth + 1) + frame[0] }
}

#[test]
fn crash_stack_that_overflows_has_its_last_words_and_its_thread_is_named() {
    let end = end_of("crash_stack_that_overflows_has_its_last_words_and_its_thread_is_named", || {
        let deep = std::thread::Builder::new().name("deep".into()).spawn(|| overflow(0));
        let _ = deep.unwrap().join();
    });
    let said = said(&end);
    assert!(said.starts_with("last words\n"), "{said}");
    assert!(said.contains("thread 'deep'") && said.contains("has overflowed its stack"), "{said}");
    assert_eq!(end.status.signal(), Some(libc::SIGABRT));
}

#[test]
fn crash_signal_that_is_sent_has_the_last_words_once_and_is_the_end() {
    let end = end_of("crash_signal_that_is_sent_has_the_last_words_once_and_is_the_end", || {
        let _ = raise(Signal::SIGSEGV);
    });
    assert_eq!(said(&end), "last words\n");
    assert_eq!(end.status.signal(), Some(libc::SIGSEGV));
}

#[test]
fn crash_abort_has_the_last_words() {
    let end = end_of("crash_abort_has_the_last_words", || std::process::abort());
    assert_eq!(said(&end), "last words\n");
    assert_eq!(end.status.signal(), Some(libc::SIGABRT));
}

#[test]
fn crash_second_action_changes_nothing() {
    let end = end_of("crash_second_action_changes_nothing", || {
        crash::before_death(|| ()).unwrap();
        std::process::abort();
    });
    assert_eq!(said(&end), "last words\n");
}
