//! For tests of a confined program only, with the feature `escape-hooks`: what an attacker could try who controls one of its threads.
//!
//! The variable `VMM_ESCAPE` is an attempt, such as `openat`. A thread makes it on command: SIGTRAP with the thread's number, as by
//! `kill -q TID -s TRAP PID`. With the role of a thread, as in `vcpu0:openat`, the first thread with this role makes it as soon as it is
//! confined. It writes the kernel's answer to standard error: `escape: vcpu0: openat: ENOENT`, or `done`. If its filter doesn't allow
//! the call, the process ends instead.
#![allow(unsafe_code)]

use std::env;
use std::ffi::{CStr, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{getpid, getppid, gettid};

use crate::violation::role_or_name;

/// No thread of a monitor blocks it, as it is the signal of a crash.
const COMMAND: Signal = Signal::SIGTRAP;

struct Plan {
    /// `None` if it is made on command.
    role: Option<String>,
    attempt: String,
    /// Found before, since few threads may ask for it.
    parent: i64,
    is_made: AtomicBool,
}

static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

/// Reads the variable, and installs the handler of commands.
pub(crate) fn prepare() {
    let plan = PLAN.get_or_init(|| {
        let variable = env::var("VMM_ESCAPE").ok()?;
        let (role, attempt) = match variable.split_once(':') {
            Some((role, attempt)) => (Some(role.to_owned()), attempt.to_owned()),
            None => (None, variable),
        };
        Some(Plan { role, attempt, parent: getppid().as_raw().into(), is_made: AtomicBool::new(false) })
    });
    if plan.as_ref().is_some_and(|plan| plan.role.is_none()) {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESTART;
        let handler = SigAction::new(SigHandler::SigAction(commanded), flags, SigSet::empty());
        // SAFETY: the tests send the signal to threads that wait, so it interrupts no allocation.
        unsafe { sigaction(COMMAND, &handler) }.expect("the signal exists");
    }
}

/// Makes the attempt, if it is this thread's. If it is made on command, the thread takes commands from now on.
pub(crate) fn attempt(role: &str) {
    let Some(plan) = PLAN.get().and_then(Option::as_ref) else { return };
    match &plan.role {
        None => SigSet::from(COMMAND).thread_unblock().expect("a set of one signal"),
        Some(planned) if planned == role && !plan.is_made.swap(true, Ordering::SeqCst) => report(plan, role),
        Some(_) => {}
    }
}

/// Passes a command on to the thread whose number came with it, which makes the attempt.
extern "C" fn commanded(_: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    let interrupted = Errno::last();
    // SAFETY: the kernel passed it to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: there is a value if the signal was queued, and otherwise it isn't used.
    let thread = unsafe { info.si_value() }.sival_ptr as usize as i32;
    if info.si_code == libc::SI_QUEUE && thread != gettid().as_raw() {
        call(libc::SYS_tgkill, [getpid().as_raw().into(), thread.into(), COMMAND as i64, 0, 0]);
    } else if let Some(plan) = PLAN.get().and_then(Option::as_ref) {
        let (role, len) = role_or_name();
        report(plan, &String::from_utf8_lossy(&role[..len]));
    }
    interrupted.set();
}

fn report(plan: &Plan, role: &str) {
    let answer = match make(&plan.attempt, plan.parent) {
        0.. => "done".to_owned(),
        error => format!("{:?}", Errno::from_raw(-error as i32)),
    };
    let line = format!("escape: {role}: {}: {answer}\n", plan.attempt);
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// The kernel's answer, or its error number, negative. No attempt does harm if it is permitted, or sends a packet to another host.
fn make(attempt: &str, parent: i64) -> i64 {
    const EXECUTABLE: i64 = (libc::PROT_READ | libc::PROT_EXEC) as i64;
    match attempt {
        "openat" => open(c"/etc/passwd"),
        "openat-root" => open(c"/"),
        "connect-loopback" => connect(libc::SOCK_STREAM, [127, 0, 0, 1]),
        // A datagram socket only looks for a route when it is connected.
        "connect-outside" => connect(libc::SOCK_DGRAM, [192, 0, 2, 1]),
        // Landlock compares no ports of these.
        "mptcp" => socket(libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        "sctp" => socket(libc::SOCK_SEQPACKET, 0),
        // The kernel refuses an empty one, after it has asked who may.
        "fast-open" => {
            let flags = i64::from(libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL);
            call(libc::SYS_sendto, [socket(libc::SOCK_STREAM, 0), 0, 0, flags, 0])
        }
        // Its ends could send to other programs' sockets.
        "datagrams" => {
            let mut ends = [0_i32; 2];
            let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC).into();
            call(libc::SYS_socketpair, [libc::AF_UNIX.into(), kind, 0, ends.as_mut_ptr() as i64, 0])
        }
        "bind" => {
            let any = address([0; 4], 0);
            let socket = socket(libc::SOCK_STREAM, 0);
            call(libc::SYS_bind, [socket, any.as_ptr() as i64, any.len() as i64, 0, 0])
        }
        // Only the path keeper may, elsewhere. The test has made it.
        "unlink" => call(libc::SYS_unlinkat, [libc::AT_FDCWD.into(), c"../kept".as_ptr() as i64, 0, 0, 0]),
        "ptrace" => call(libc::SYS_ptrace, [PTRACE_SEIZE, parent, 0, 0, 0]),
        "execve" => {
            let arguments = [c"/bin/true".as_ptr(), std::ptr::null()];
            call(libc::SYS_execve, [arguments[0] as i64, arguments.as_ptr() as i64, 0, 0, 0])
        }
        // The flags exclude each other, which the kernel looks at after the right to mount.
        "mount" => {
            let flags = (libc::MS_PRIVATE | libc::MS_SLAVE) as i64;
            call(libc::SYS_mount, [0, c"/".as_ptr() as i64, 0, flags, 0])
        }
        "unshare" => call(libc::SYS_unshare, [libc::CLONE_NEWNET.into(), 0, 0, 0, 0]),
        // Signal 0 isn't sent.
        "kill" => call(libc::SYS_kill, [parent, 0, 0, 0, 0]),
        "mmap" => map(EXECUTABLE | i64::from(libc::PROT_WRITE)),
        "mprotect" => call(libc::SYS_mprotect, [map(libc::PROT_READ.into()), 4096, EXECUTABLE, 0, 0]),
        "io_uring" => {
            // struct io_uring_params
            let mut parameters = [0_u64; 15];
            call(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr() as i64, 0, 0, 0])
        }
        "fork" => match call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0]) {
            // SAFETY: it ends the child without running anything of the program.
            0 => unsafe { libc::_exit(0) },
            parent => parent,
        },
        "clone3" => call(libc::SYS_clone3, [0, 0, 0, 0, 0]),
        "tiocsti" => call(libc::SYS_ioctl, [2, libc::TIOCSTI as i64, c"x".as_ptr() as i64, 0, 0]),
        // Only asks.
        "personality" => call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0]),
        "panic" => panic!("an attempt to panic"),
        "allocate" => std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; 4096]>()),
        unknown => panic!("no attempt is called {unknown}"),
    }
}

/// include/uapi/linux/ptrace.h; unlike PTRACE_ATTACH, it doesn't stop the process.
const PTRACE_SEIZE: i64 = 0x4206;

fn open(path: &CStr) -> i64 {
    call(libc::SYS_openat, [libc::AT_FDCWD.into(), path.as_ptr() as i64, libc::O_RDONLY.into(), 0, 0])
}

fn socket(kind: i32, protocol: i32) -> i64 {
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    call(libc::SYS_socket, [libc::AF_INET.into(), kind.into(), protocol.into(), 0, 0])
}

/// To the port "discard".
fn connect(kind: i32, to: [u8; 4]) -> i64 {
    let socket = socket(kind, 0);
    if socket < 0 {
        return socket;
    }
    let to = address(to, 9);
    call(libc::SYS_connect, [socket, to.as_ptr() as i64, to.len() as i64, 0, 0])
}

/// struct sockaddr_in: the family, then port and address, both big-endian.
fn address([a, b, c, d]: [u8; 4], port: u8) -> [u8; 16] {
    [libc::AF_INET as u8, 0, 0, port, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

fn map(protection: i64) -> i64 {
    call(libc::SYS_mmap, [0, 4096, protection, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into(), -1])
}

fn call(number: i64, [a, b, c, d, e]: [i64; 5]) -> i64 {
    // SAFETY: each caller passes addresses that are valid for what the call reads and writes, or none; a mapping is new memory.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, 0_i64) };
    if answer == -1 { -i64::from(Errno::last_raw()) } else { answer }
}
