//! Files whose reads never complete, as on a network file system whose server is down: the monitor can be ended all the same. They
//! are on a FUSE file system, which requires root or fusermount3.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use driver::{DEADLINE, Launch, Monitor, Stdin, guests, wait_until};
use fuser::{
    BackgroundSession, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    Request, TimeOrNow,
};
use libtest_mimic::{Completion, Trial};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::common::{BY_SIGINT, BY_SIGTERM, ENDED, HOST_CANT, TIME_IS_UP, own_user};

pub(crate) fn tests() -> Vec<Trial> {
    let trial = |name: &'static str, test: fn(&Storage)| {
        Trial::ignorable_test(name, move || match Storage::mount() {
            Ok(storage) => {
                test(&storage);
                Ok(Completion::Completed)
            }
            Err(why) => Ok(Completion::ignored_with(why)),
        })
    };
    vec![
        trial("hanging_disk_is_left_at_a_second_sigterm", hanging_disk_is_left_at_a_second_sigterm),
        trial(
            "hanging_disk_is_left_if_that_is_asked_for_twice",
            hanging_disk_is_left_if_that_is_asked_for_twice,
        ),
        trial("hanging_disk_is_left_by_its_keys", hanging_disk_is_left_by_its_keys),
        trial(
            "hanging_disk_that_keeps_nothing_is_no_failure_of_the_host",
            hanging_disk_that_keeps_nothing_is_no_failure_of_the_host,
        ),
        trial(
            "hanging_disk_keeps_no_other_device_from_its_end",
            hanging_disk_keeps_no_other_device_from_its_end,
        ),
        trial("hanging_kernel_is_left_at_sigterm", hanging_kernel_is_left_at_sigterm),
        trial("hanging_kernel_is_left_when_the_time_is_up", hanging_kernel_is_left_when_the_time_is_up),
        trial(
            "hanging_kernel_of_a_restart_is_left_by_its_keys",
            hanging_kernel_of_a_restart_is_left_by_its_keys,
        ),
        trial(
            "hanging_kernel_of_a_restart_is_paused_by_its_key",
            hanging_kernel_of_a_restart_is_paused_by_its_key,
        ),
        trial(
            "hanging_console_file_leaves_the_terminal_to_ctrl_c",
            hanging_console_file_leaves_the_terminal_to_ctrl_c,
        ),
        trial("hanging_standard_input_stops_nobody", hanging_standard_input_stops_nobody),
        trial(
            "hanging_disk_and_log_are_left_at_a_second_sigterm",
            hanging_disk_and_log_are_left_at_a_second_sigterm,
        ),
        trial(
            "hanging_close_of_standard_output_leaves_the_terminal_to_ctrl_c",
            hanging_close_of_standard_output_leaves_the_terminal_to_ctrl_c,
        ),
    ]
}

/// Names of the files: a kernel, and a disk with 1 GiB of zeros.
const KERNEL: &str = "kernel";
const DISK: &str = "disk";
/// Name of the file for a guest's output.
const PRINTED: &str = "printed";
/// Name of a file for a standard stream, of which also open(2) and close(2) hang.
const STREAM: &str = "stream";
const DISK_LEN: u64 = 1 << 30;

/// The mounted file system, and a directory for other files.
struct Storage {
    dir: TempDir,
    hangs: Arc<AtomicBool>,
    /// Receives a message for each read that hangs.
    hanging: Receiver<()>,
    held: Arc<Mutex<HeldRequests>>,
    session: Option<BackgroundSession>,
}

impl Storage {
    /// Mounts the file system. Fails on hosts that don't allow that to unprivileged users.
    fn mount() -> Result<Self, String> {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let (hangs, held) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (report, hanging) = channel();
        let files = Files {
            kernel: fs::read(guests::path("echo")).unwrap(),
            hangs: Arc::clone(&hangs),
            held: Arc::clone(&held),
            report: Mutex::new(report),
        };
        let mounted = fuser::spawn_mount(files, dir.path().join("mnt"), &fuser::Config::default());
        let session = Some(mounted.map_err(|error| format!("FUSE: {error}"))?);
        Ok(Self { dir, hangs, hanging, held, session })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("mnt").join(name)
    }

    /// Makes all further reads hang, and drops what the kernel has cached of `name`.
    fn hang(&self, name: &str) {
        self.hangs.store(true, Ordering::SeqCst);
        drop(File::open(self.path(name)).unwrap());
    }

    #[track_caller]
    fn wait_until_it_hangs(&self) {
        self.hanging.recv_timeout(DEADLINE).expect("a read that isn't answered");
    }

    fn launch(&self, config: &str) -> Launch {
        fs::write(self.dir.path().join("vm.json"), config).unwrap();
        own_user(Monitor::command(["--config", "vm.json"])).dir(self.dir.path())
    }

    /// Launches a guest that reads a sector of its disk for each byte of input. The disk can't be written.
    fn reading_guest(&self, more: &str) -> Launch {
        self.reading_guest_with(r#""read_only": true"#, more)
    }

    fn reading_guest_with(&self, fields: &str, more: &str) -> Launch {
        let (image, disk) = (guests::path("disk-read"), self.path(DISK));
        self.launch(&format!(
            r#"{{"boot": {{"flat": {{"image": {image:?}, "mode": "protected"}}}}, "irqchip": true,
                "devices": [{{"type": "block", "id": "slow", "path": {disk:?}, {fields}}}{more}]}}"#
        ))
    }

    /// Makes the guest issue a read that never completes.
    fn read_and_hang(&self, monitor: &mut Monitor) {
        monitor.expect("ready\n", DEADLINE);
        monitor.send(b"1");
        monitor.expect("1", DEADLINE);
        self.hang(DISK);
        monitor.send(b"2");
        self.wait_until_it_hangs();
    }
}

impl Storage {
    /// Completes all hanging reads with an error.
    fn answer(&self) {
        self.hangs.store(false, Ordering::SeqCst);
        *self.held.lock().unwrap() = HeldRequests::default();
    }
}

struct AnswerAtEnd<'a>(&'a Storage);

impl Drop for AnswerAtEnd<'_> {
    fn drop(&mut self) {
        self.0.answer();
    }
}

impl Drop for Storage {
    /// Completes all reads, so that no process stays blocked in the kernel.
    fn drop(&mut self) {
        self.answer();
        drop(self.session.take());
        // If an exiting monitor keeps the file system busy, this unmounts it later. Otherwise it fails, because nothing is mounted.
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.path().join("mnt")).output();
    }
}

/// Requests that haven't been answered.
#[derive(Default)]
struct HeldRequests {
    reads: Vec<ReplyData>,
    changes: Vec<ReplyAttr>,
    opens: Vec<ReplyOpen>,
    closes: Vec<ReplyEmpty>,
}

struct Files {
    kernel: Vec<u8>,
    hangs: Arc<AtomicBool>,
    held: Arc<Mutex<HeldRequests>>,
    report: Mutex<Sender<()>>,
}

const KERNEL_INODE: INodeNo = INodeNo(2);
const DISK_INODE: INodeNo = INodeNo(3);
const PRINTED_INODE: INodeNo = INodeNo(4);
const STREAM_INODE: INodeNo = INodeNo(5);
/// How long the kernel caches attributes.
const VALID: Duration = Duration::from_secs(60);

impl Files {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o755, 0),
            KERNEL_INODE => (FileType::RegularFile, 0o644, self.kernel.len() as u64),
            _ => (FileType::RegularFile, 0o644, DISK_LEN),
        };
        let [atime, mtime, ctime, crtime] = [UNIX_EPOCH; 4];
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        let (ino, nlink, rdev, flags, blksize, blocks) = (inode, 1, 0, 0, 4096, size / 512);
        FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            blksize,
            flags,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some(KERNEL) => reply.entry(&VALID, &self.attributes(KERNEL_INODE), Generation(0)),
            Some(PRINTED) => reply.entry(&VALID, &self.attributes(PRINTED_INODE), Generation(0)),
            Some(STREAM) => reply.entry(&VALID, &self.attributes(STREAM_INODE), Generation(0)),
            Some(DISK) => reply.entry(&VALID, &self.attributes(DISK_INODE), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&VALID, &self.attributes(inode));
    }

    fn open(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if inode == STREAM_INODE && self.hangs.load(Ordering::SeqCst) {
            self.held.lock().unwrap().opens.push(reply);
            let _ = self.report.lock().unwrap().send(());
            return;
        }
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    /// Called for each close(2).
    fn flush(&self, _: &Request, inode: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        if inode == STREAM_INODE && self.hangs.load(Ordering::SeqCst) {
            self.held.lock().unwrap().closes.push(reply);
            let _ = self.report.lock().unwrap().send(());
            return;
        }
        reply.ok();
    }

    /// Called when a file is truncated, for example.
    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.hangs.load(Ordering::SeqCst) {
            self.held.lock().unwrap().changes.push(reply);
            let _ = self.report.lock().unwrap().send(());
            return;
        }
        reply.attr(&VALID, &self.attributes(inode));
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if self.hangs.load(Ordering::SeqCst) {
            self.held.lock().unwrap().reads.push(reply);
            let _ = self.report.lock().unwrap().send(());
            return;
        }
        let zeros = vec![0; len as usize];
        let kernel = self.kernel.get(offset as usize..).unwrap_or_default();
        match inode {
            KERNEL_INODE => reply.data(&kernel[..kernel.len().min(len as usize)]),
            _ => reply.data(&zeros),
        }
    }
}

const DISK_NOTICE: &str = "still stopping virtio block \"slow\"";

/// The first SIGTERM starts the end, which would wait for half a minute.
fn hanging_disk_is_left_at_a_second_sigterm(storage: &Storage) {
    let mut monitor = storage.reading_guest("").stdin(Stdin::Pipe).start();
    storage.read_and_hang(&mut monitor);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_stderr(DISK_NOTICE, DEADLINE);
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
    assert!(
        monitor.stderr().contains("left unfinished: stopping virtio block \"slow\""),
        "{}",
        monitor.stderr()
    );
}

/// Both requests come within a second, before the warning.
fn hanging_disk_is_left_if_that_is_asked_for_twice(storage: &Storage) {
    let mut monitor = storage.reading_guest("").stdin(Stdin::Pipe).start();
    storage.read_and_hang(&mut monitor);
    // Two pending signals of the same kind would be merged.
    monitor.signal(Signal::SIGINT);
    monitor.signal(Signal::SIGTERM);
    let status = monitor.expect_exit(DEADLINE).code();
    assert!([Some(BY_SIGINT), Some(BY_SIGTERM)].contains(&status), "{status:?}");
    assert!(!monitor.stderr().contains("still stopping"), "{}", monitor.stderr());
}

fn hanging_disk_is_left_by_its_keys(storage: &Storage) {
    let mut monitor = storage.reading_guest_with(r#""read_only": false"#, "").on_terminal().start();
    storage.read_and_hang(&mut monitor);
    let before = monitor.termios_before();
    monitor.send(b"\x01x");
    monitor.expect_stderr(DISK_NOTICE, DEADLINE);
    monitor.send(b"\x01x");
    // What the guest had written may be lost.
    monitor.expect_code(HOST_CANT, DEADLINE);
    let said = monitor.stderr();
    assert!(said.contains("error: device \"slow\": it hasn't stopped in order"), "{said}");
    assert_eq!(monitor.termios(), before);
}

/// A read-only disk, and one whose writes end with the monitor.
fn hanging_disk_that_keeps_nothing_is_no_failure_of_the_host(storage: &Storage) {
    for fields in [r#""read_only": true"#, r#""overlay": "temp""#] {
        let mut monitor = storage.reading_guest_with(fields, "").on_terminal().start();
        storage.read_and_hang(&mut monitor);
        monitor.send(b"\x01x");
        monitor.expect_stderr(DISK_NOTICE, DEADLINE);
        monitor.send(b"\x01x");
        monitor.expect_code(ENDED, DEADLINE);
        let said = monitor.stderr();
        assert!(said.contains("left unfinished: stopping virtio block \"slow\""), "{said}");
        assert!(!said.contains("error:"), "{said}");
        storage.answer();
    }
}

/// Other devices end in an orderly way: one removes its socket, an image writes its tables.
fn hanging_disk_keeps_no_other_device_from_its_end(storage: &Storage) {
    let more = r#", {"type": "vsock", "cid": 3, "path": "socket"}"#;
    let mut monitor = storage.reading_guest(more).stdin(Stdin::Pipe).start();
    storage.read_and_hang(&mut monitor);
    let socket = storage.dir.path().join("socket");
    assert!(socket.exists());
    monitor.signal(Signal::SIGTERM);
    monitor.expect_stderr(DISK_NOTICE, DEADLINE);
    assert!(!socket.exists());
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn hanging_kernel(storage: &Storage) -> Launch {
    storage
        .launch(&format!(r#"{{"boot": {{"kernel": {:?}}}, "on_reboot": "restart"}}"#, storage.path(KERNEL)))
}

/// Nothing can be lost yet.
fn hanging_kernel_is_left_at_sigterm(storage: &Storage) {
    storage.hang(KERNEL);
    let mut monitor = hanging_kernel(storage).start();
    storage.wait_until_it_hangs();
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

fn hanging_kernel_is_left_when_the_time_is_up(storage: &Storage) {
    storage.hang(KERNEL);
    let mut monitor = hanging_kernel(storage).args(["--timeout", "1s"]).start();
    monitor.expect_code(TIME_IS_UP, DEADLINE);
    let message = "error: timed out before the guest ran: opening the files of the config\n";
    assert_eq!(monitor.stderr(), message);
}

fn hanging_kernel_of_a_restart_is_left_by_its_keys(storage: &Storage) {
    let mut monitor = hanging_kernel(storage).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    storage.hang(KERNEL);
    monitor.send(b"\x04");
    storage.wait_until_it_hangs();
    monitor.send(b"\x01s");
    monitor.expect("[reading the kernel]", DEADLINE);
    monitor.send(b"\x01x");
    monitor.expect_stderr("still reading the kernel", DEADLINE);
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
}

/// The guest that follows is paused, or not if the key is pressed twice.
fn hanging_kernel_of_a_restart_is_paused_by_its_key(storage: &Storage) {
    let mut monitor = hanging_kernel(storage).on_terminal().start();
    monitor.expect("ready\n", DEADLINE);
    storage.hang(KERNEL);
    monitor.send(b"\x04");
    storage.wait_until_it_hangs();
    monitor.send(b"\x01p");
    monitor.expect("[no guest is running; if it restarts, it is paused]", DEADLINE);
    monitor.send(b"\x01p");
    monitor.expect("[no guest is running; if it restarts, it isn't paused]", DEADLINE);
    monitor.send(b"\x01p");
    monitor.expect("it is paused]", DEADLINE);
    storage.answer();
    monitor.expect("[paused; Ctrl-A p resumes]", DEADLINE);
    monitor.send(b"\x01p");
    monitor.expect("[resumed]", DEADLINE);
    monitor.send(b"\x04");
    monitor.expect("ready\n", DEADLINE);
    monitor.send(b"\x01x");
    monitor.expect_code(ENDED, DEADLINE);
}

/// The file is truncated when the guest starts. The terminal isn't raw yet.
fn hanging_console_file_leaves_the_terminal_to_ctrl_c(storage: &Storage) {
    let devices = format!(r#"[{{"type": "console", "target": {{"file": {:?}}}}}]"#, storage.path(PRINTED));
    let kernel = guests::path("echo");
    let config = format!(r#"{{"boot": {{"kernel": {kernel:?}}}, "devices": {devices}}}"#);
    storage.hangs.store(true, Ordering::SeqCst);
    let mut monitor = storage.launch(&config).on_terminal().start();
    // An exiting process stays until its request is answered, so answer it even if the test fails.
    let _answer = AnswerAtEnd(storage);
    storage.wait_until_it_hangs();
    assert_eq!(monitor.termios(), monitor.termios_before());
    monitor.signal(Signal::SIGINT);
    monitor.expect_stderr("left unfinished: truncating the consoles' files", DEADLINE);
    storage.answer();
    monitor.expect_code(BY_SIGINT, DEADLINE);
}

fn hanging_standard_input_stops_nobody(storage: &Storage) {
    storage.hang(DISK);
    let script = format!("exec \"$0\" \"$@\" <{:?}", storage.path(DISK));
    let mut monitor = crate::common::boot("echo").wrapped(["sh", "-c", &script]).start();
    monitor.expect("ready\n", DEADLINE);
    storage.wait_until_it_hangs();
    monitor.signal(Signal::SIGTERM);
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

/// The warning about the disk is the first line of standard error, which is on the same storage.
fn hanging_disk_and_log_are_left_at_a_second_sigterm(storage: &Storage) {
    let script = format!("exec \"$0\" \"$@\" 2>>{:?}", storage.path(STREAM));
    let mut monitor = storage.reading_guest("").wrapped(["sh", "-c", &script]).stdin(Stdin::Pipe).start();
    let _answer = AnswerAtEnd(storage);
    storage.read_and_hang(&mut monitor);
    monitor.signal(Signal::SIGTERM);
    // Until the warning is due. Its text can't be seen: writing it hangs.
    std::thread::sleep(Duration::from_millis(1500));
    monitor.signal(Signal::SIGTERM);
    wait_until_it_exits(&monitor);
    storage.answer();
    monitor.expect_code(BY_SIGTERM, DEADLINE);
}

/// close(2) of a file on a network file system waits for what was written.
fn hanging_close_of_standard_output_leaves_the_terminal_to_ctrl_c(storage: &Storage) {
    let script = format!("exec \"$0\" \"$@\" >>{:?}", storage.path(STREAM));
    let mut monitor =
        own_user(crate::common::boot("echo")).wrapped(["sh", "-c", &script]).on_terminal().start();
    let _answer = AnswerAtEnd(storage);
    let before = monitor.termios_before();
    wait_until("the terminal is raw", DEADLINE, || monitor.termios() != before);
    storage.hangs.store(true, Ordering::SeqCst);
    monitor.send(b"\x01x");
    monitor.expect_stderr("still closing files; another signal ends the monitor", DEADLINE);
    assert_eq!(monitor.termios(), before);
    monitor.signal(Signal::SIGINT);
    wait_until_it_exits(&monitor);
    storage.answer();
    monitor.expect_code(ENDED, DEADLINE);
}

/// Waits until the main thread has exited. The process stays until the file system has answered.
fn wait_until_it_exits(monitor: &Monitor) {
    let stat = format!("/proc/{}/stat", monitor.pid());
    wait_until("the monitor exits", DEADLINE, || {
        fs::read_to_string(&stat)
            .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    });
}
