use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use vmm_sandbox::{Allow, SPAWN, ViolationAction, confine_thread, enable, report_violations};

use crate::child::{As, has_returned, passes, run, run_with};
use crate::host::errno;
use crate::raw;
use crate::violation::ends_in_violation;

/// As the monitor does it, with the role "tested".
pub(crate) fn confine(lists: &[&[Allow]]) {
    report_violations(|| ()).unwrap();
    enable(ViolationAction::Trap);
    confine_thread("tested", lists).unwrap();
}

#[test]
fn call_that_isnt_listed_ends_the_process() {
    let output = run("filter::call_that_isnt_listed_ends_the_process", As::Tester, || {
        confine(&[&[Allow::call(libc::SYS_getppid)]]);
        let _ = raw::call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]);
    });
    ends_in_violation(
        &output,
        "thread tested: system call personality (135) with 0xffffffff, 0x0, 0x0 isn't",
    );
}

#[test]
fn call_that_is_listed_works() {
    passes("filter::call_that_is_listed_works", As::Ordinary, || {
        confine(&[&[Allow::call(libc::SYS_getppid)], &[Allow::call(libc::SYS_personality)]]);
        raw::call(libc::SYS_getppid, [0; 4]).unwrap();
        raw::call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]).unwrap();
    });
}

#[test]
fn argument_that_isnt_listed_ends_the_process() {
    const LISTS: &[&[Allow]] = &[&[Allow::when(libc::SYS_ioctl, 1, &[libc::FIONREAD as u32])]];
    let output = run("filter::argument_that_isnt_listed_ends_the_process", As::Tester, || {
        let (read, write) = std::io::pipe().unwrap();
        rustix::io::write(&write, b"three").unwrap();
        confine(LISTS);
        assert_eq!(rustix::io::ioctl_fionread(&read).unwrap(), 5);
        println!("listed");
        let _ = rustix::io::ioctl_fionbio(&read, true);
    });
    assert!(String::from_utf8_lossy(&output.stdout).contains("listed"), "{output:?}");
    ends_in_violation(&output, "thread tested: system call ioctl (16) with 0x");
    assert!(String::from_utf8_lossy(&output.stderr).contains(", 0x5421, "), "{output:?}");
}

#[test]
fn thread_isnt_confined_unless_the_program_enables_it() {
    passes("filter::thread_isnt_confined_unless_the_program_enables_it", As::Tester, || {
        assert!(!vmm_sandbox::is_enabled());
        confine_thread("tested", &[]).unwrap();
        raw::call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]).unwrap();
    });
}

#[test]
fn other_threads_arent_confined() {
    passes("filter::other_threads_arent_confined", As::Tester, || {
        report_violations(|| ()).unwrap();
        enable(ViolationAction::Trap);
        thread::spawn(|| confine_thread("other", &[])).join().unwrap().unwrap();
        raw::call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]).unwrap();
    });
}

#[test]
fn log_carries_the_call_out() {
    passes("filter::log_carries_the_call_out", As::Tester, || {
        report_violations(|| ()).unwrap();
        enable(ViolationAction::Log);
        confine_thread("tested", &[]).unwrap();
        raw::call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]).unwrap();
    });
}

#[test]
fn executable_memory_is_refused() {
    let output = run("filter::executable_memory_is_refused", As::Tester, || {
        confine(&[]);
        raw::call(libc::SYS_mmap, [0, 4096, 3, 0x22]).unwrap();
        let _ = raw::call(libc::SYS_mmap, [0, 4096, 5, 0x22]);
    });
    ends_in_violation(&output, "system call mmap (9) with 0x0, 0x1000, 0x5 isn't");
}

#[test]
fn memory_cant_be_made_executable() {
    let output = run("filter::memory_cant_be_made_executable", As::Tester, || {
        let map = raw::call(libc::SYS_mmap, [0, 4096, 3, 0x22]).unwrap();
        confine(&[]);
        raw::call(libc::SYS_mprotect, [map, 4096, 1, 0]).unwrap();
        let _ = raw::call(libc::SYS_mprotect, [map, 4096, 5, 0]);
    });
    ends_in_violation(&output, "system call mprotect (10) with 0x");
}

#[test]
fn thread_is_created_with_the_list_for_it_and_confines_itself() {
    let test = "filter::thread_is_created_with_the_list_for_it_and_confines_itself";
    let output = run(test, As::Ordinary, || {
        confine(&[SPAWN, &[Allow::call(libc::SYS_getppid)]]);
        let thread = thread::Builder::new().name("worker".to_owned());
        let thread = thread.spawn(|| {
            confine_thread("narrower", &[]).unwrap();
            println!("spawned {:?}", vec![thread::current().name().unwrap().to_owned(); 1000].len());
        });
        thread.unwrap().join().unwrap();
        raw::call(libc::SYS_getppid, [0; 4]).unwrap();
        println!("joined");
        let thread = thread::spawn(|| {
            confine_thread("narrower", &[]).unwrap();
            raw::call(libc::SYS_getppid, [0; 4])
        });
        let _ = thread.join();
    });
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("spawned 1000\njoined\n"), "{output:?}");
    ends_in_violation(&output, "thread narrower: system call getppid (110)");
}

#[test]
fn thread_isnt_created_without_the_list_for_it() {
    passes("filter::thread_isnt_created_without_the_list_for_it", As::Tester, || {
        confine(&[]);
        assert_eq!(errno(thread::Builder::new().spawn(|| ())), Some(libc::EPERM));
    });
}

#[test]
fn process_or_namespace_isnt_created_with_the_list_for_threads() {
    const THREAD: u64 = 0x003d_0f00;
    let test = "filter::process_or_namespace_isnt_created_with_the_list_for_threads";
    for user in [As::Tester, As::Ordinary] {
        passes(test, user, || {
            confine(&[SPAWN]);
            let clone = |flags| errno(raw::call(libc::SYS_clone, [flags, 0, 0, 0]));
            assert_eq!(clone(libc::SIGCHLD as u64), Some(libc::EPERM));
            // The kernel itself would refuse these two together, with EINVAL.
            assert_eq!(clone(THREAD | libc::CLONE_NEWUSER as u64), Some(libc::EPERM));
            assert_eq!(clone(libc::CLONE_NEWUSER as u64 | libc::SIGCHLD as u64), Some(libc::EPERM));
            assert_eq!(clone(THREAD | libc::CLONE_NEWNS as u64), Some(libc::EPERM));
            assert_eq!(errno(Command::new("/bin/true").status()), Some(libc::EPERM));
        });
    }
}

#[test]
fn clone3_doesnt_exist() {
    passes("filter::clone3_doesnt_exist", As::Tester, || {
        assert_eq!(errno(raw::call(libc::SYS_clone3, [0; 4])), Some(libc::EINVAL));
        confine(&[SPAWN]);
        assert_eq!(errno(raw::call(libc::SYS_clone3, [0; 4])), Some(libc::ENOSYS));
    });
}

#[test]
fn signal_to_another_process_is_refused() {
    let output = run("filter::signal_to_another_process_is_refused", As::Tester, || {
        let this = u64::from(std::process::id());
        let parent = raw::call(libc::SYS_getppid, [0; 4]).unwrap();
        confine(&[]);
        raw::call(libc::SYS_tgkill, [this, this, 0, 0]).unwrap();
        let _ = raw::call(libc::SYS_tgkill, [parent, parent, 0, 0]);
    });
    ends_in_violation(&output, "thread tested: system call tgkill (234) with ");
}

#[test]
fn x32_call_is_refused() {
    let output = run("filter::x32_call_is_refused", As::Tester, || {
        confine(&[]);
        let _ = raw::call(libc::SYS_getpid | 0x4000_0000, [0; 4]);
    });
    ends_in_violation(&output, "system call without a name (1073741863) with ");
}

#[test]
fn panic_under_a_filter_prints_its_message() {
    let test = "filter::panic_under_a_filter_prints_its_message";
    let output = run(test, As::Tester, || {
        report_violations(|| ()).unwrap();
        enable(ViolationAction::Trap);
        let thread = thread::Builder::new().name("vq-test".to_owned()).spawn(|| {
            confine_thread("vq-test", &[]).unwrap();
            panic!("a defect");
        });
        assert!(thread.unwrap().join().is_err());
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("thread 'vq-test' (") && said.contains("a defect"), "{output:?}");
    assert!(has_returned(&output), "{output:?}");
}

/// What the front page tells programs to do.
#[test]
fn hook_that_captures_no_backtrace_prints_although_the_user_asks_for_one() {
    let test = "filter::hook_that_captures_no_backtrace_prints_although_the_user_asks_for_one";
    let output = run_with(test, As::Tester, &[("RUST_BACKTRACE", "1")], || {
        std::panic::set_hook(Box::new(|panic| {
            if !vmm_sandbox::is_enabled() {
                eprintln!("{}", std::backtrace::Backtrace::capture());
            }
            eprintln!("{panic}");
        }));
        confine(&[]);
        assert!(std::panic::catch_unwind(|| panic!("a defect")).is_err());
    });
    assert!(String::from_utf8_lossy(&output.stderr).contains("a defect"), "{output:?}");
    assert!(has_returned(&output), "{output:?}");
}

/// glibc reads /proc/sys/vm/overcommit_memory when an arena other than the first one shrinks, and the guest may decide when.
#[test]
fn memory_is_given_back_by_a_thread_under_a_filter() {
    passes("filter::memory_is_given_back_by_a_thread_under_a_filter", As::Tester, || {
        static ALL: Barrier = Barrier::new(8);
        report_violations(|| ()).unwrap();
        enable(ViolationAction::Trap);
        let thread = || {
            confine_thread("tested", &[]).unwrap();
            // At once, so that the threads have different arenas.
            ALL.wait();
            // Below the size from which blocks are mapped, together above the one from which the arena's end is given back.
            let blocks = (0..64_u8).map(|fill| vec![fill; 64 << 10]).collect::<Vec<_>>();
            ALL.wait();
            blocks.iter().map(|block| usize::from(block[100])).sum::<usize>()
        };
        let threads = [(); 8].map(|()| thread::spawn(thread));
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 63 * 64 / 2));
    });
}

#[test]
fn wait_that_is_stopped_and_continued_goes_on() {
    /// Stops the process $1 when it sleeps after having said so, and continues it.
    const STOPPER: &str = "read asleep
        until grep -q '^State:.S' /proc/$1/status; do :; done; kill -STOP $1
        until grep -q '^State:.T' /proc/$1/status; do :; done; kill -CONT $1";
    passes("filter::wait_that_is_stopped_and_continued_goes_on", As::Ordinary, || {
        let process = std::process::id().to_string();
        let mut stopper = Command::new("sh");
        let stopper = stopper.args(["-c", STOPPER, "stopper", &process]).stdin(Stdio::piped()).spawn();
        let mut asleep = stopper.unwrap().stdin.unwrap();
        confine(&[]);
        asleep.write_all(b"now\n").unwrap();
        thread::sleep(Duration::from_secs(1));
    });
}

#[test]
fn open_of_any_other_file_is_refused() {
    let output = run("filter::open_of_any_other_file_is_refused", As::Tester, || {
        confine(&[]);
        // As long as the one that malloc may open, and the same until its last letter.
        let _ = std::fs::File::open("/proc/sys/vm/overcommit_memorx");
    });
    ends_in_violation(&output, "thread tested: system call openat (257) with 0xffffff9c, 0x");
}

#[test]
fn thread_yields_and_returns_from_a_signal_handler() {
    passes("filter::thread_yields_and_returns_from_a_signal_handler", As::Tester, || {
        static HANDLED: AtomicBool = AtomicBool::new(false);
        raw::handle(Signal::SIGUSR1, || HANDLED.store(true, Ordering::SeqCst));
        confine(&[]);
        thread::yield_now();
        raise(Signal::SIGUSR1).unwrap();
        assert!(HANDLED.load(Ordering::SeqCst));
    });
}

#[test]
fn descriptor_that_was_open_is_used_and_closed() {
    passes("filter::descriptor_that_was_open_is_used_and_closed", As::Ordinary, || {
        let file = std::fs::File::open("/etc/passwd").unwrap();
        confine(&[]);
        assert!(file.as_fd().as_raw_fd() > 2);
        assert!(rustix::io::read(&file, &mut [0; 10]).is_ok());
        drop(file);
    });
}
