use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::sync::Barrier;
use std::thread;

use vmm_sandbox::{ViolationAction, confine_thread, enable, report_violations};

use crate::child::{As, run};
use crate::filter::confine;
use crate::raw;

/// The process ended with the exit code of a violation and one line, which contains `what`.
pub(crate) fn ends_in_violation(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("error: the sandbox stopped the thread ") && said.contains(what), "{output:?}");
    assert!(said.ends_with("\n") && said.lines().count() == 1, "{output:?}");
    assert_eq!(output.status.code(), Some(159), "{output:?}");
}

fn forbidden() {
    let _ = raw::call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]);
}

#[test]
fn terminal_is_restored_before_the_line_and_nothing_goes_to_standard_output() {
    let test = "violation::terminal_is_restored_before_the_line_and_nothing_goes_to_standard_output";
    let output = run(test, As::Tester, || {
        report_violations(|| {
            let _ = rustix::io::write(rustix::stdio::stdout(), b"restored");
        })
        .unwrap();
        enable(ViolationAction::Trap);
        confine_thread("tested", &[]).unwrap();
        print!("not flushed");
        forbidden();
    });
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.ends_with("restored"), "{output:?}");
    ends_in_violation(&output, "thread tested: system call personality (135)");
}

#[test]
fn restoring_that_is_itself_forbidden_leaves_the_line() {
    let output = run("violation::restoring_that_is_itself_forbidden_leaves_the_line", As::Tester, || {
        report_violations(|| drop(raw::call(libc::SYS_getppid, [0; 4]))).unwrap();
        enable(ViolationAction::Trap);
        confine_thread("tested", &[]).unwrap();
        forbidden();
    });
    ends_in_violation(&output, "thread tested: system call personality (135)");
}

#[test]
fn thread_without_a_role_is_named_by_its_name() {
    let output = run("violation::thread_without_a_role_is_named_by_its_name", As::Tester, || {
        confine(&[vmm_sandbox::SPAWN]);
        let thread = thread::Builder::new().name("late".to_owned()).spawn(forbidden);
        let _ = thread.unwrap().join();
    });
    ends_in_violation(&output, "thread late: system call personality (135)");
}

#[test]
fn two_violations_at_once_are_one_line() {
    let output = run("violation::two_violations_at_once_are_one_line", As::Tester, || {
        static BOTH: Barrier = Barrier::new(2);
        confine(&[vmm_sandbox::SPAWN]);
        let both = || {
            BOTH.wait();
            forbidden();
        };
        let threads = [thread::spawn(both), thread::spawn(both)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    ends_in_violation(&output, "system call personality (135)");
}

#[test]
fn signal_that_another_process_sends_isnt_a_violation() {
    let output = run("violation::signal_that_another_process_sends_isnt_a_violation", As::Tester, || {
        confine(&[]);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGSYS).unwrap();
    });
    // The child's own child dies of it, and the child says so as a shell does.
    assert_eq!(
        (output.status.code(), output.status.signal()),
        (Some(128 + libc::SIGSYS), None),
        "{output:?}"
    );
    assert_eq!(output.stderr, b"", "{output:?}");
}
