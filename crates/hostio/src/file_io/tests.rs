use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vmm_memory::GuestRam;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{GuestRange, GuestRanges};

type Request<'a> = IoRequest<GuestRanges<'a>>;

const RAM_LEN: u64 = 1 << 20;

fn ram() -> GuestRam {
    GuestRam::new(&[0..RAM_LEN]).unwrap()
}

/// 64 KiB; each byte is its position modulo 251.
fn file() -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..65536_u32).map(|at| (at % 251) as u8).collect();
    file.write_all(&bytes).unwrap();
    Arc::new(file)
}

fn bytes_at(file: &File, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

fn finish<T: Ord>(engine: &mut Engine<T>) -> BTreeMap<T, Result<(), io::ErrorKind>> {
    engine.dispatch();
    let mut finished = BTreeMap::new();
    while engine.in_flight() > 0 {
        engine.wait();
        while let Some((with, result)) = engine.completed() {
            finished.insert(with, result.map_err(|error| error.kind()));
        }
    }
    finished
}

fn read_fills_scattered_memory(method: IoMethod) {
    let (ram, file) = (ram(), file());
    let segments = [GuestRange { gpa: 0x8000, len: 100 }, GuestRange { gpa: 0x100, len: 412 }];
    let mut engine = Engine::new(method, 4, "test", &[Arc::clone(&file)]).unwrap();
    let buffers = GuestRanges::new(&ram, &segments);
    assert_eq!(engine.submit(Request::Read(buffers), 0, 512, 7), Ok(()));
    assert_eq!(finish(&mut engine), BTreeMap::from([(7, Ok(()))]));
    let mut bytes = vec![0; 512];
    ram.memory().read_slice(&mut bytes[..100], GuestAddress(0x8000)).unwrap();
    ram.memory().read_slice(&mut bytes[100..], GuestAddress(0x100)).unwrap();
    assert_eq!(bytes, bytes_at(&file, 512, 512));
}

fn write_then_sync_is_in_the_file(method: IoMethod) {
    let (ram, file) = (ram(), file());
    ram.memory().write_slice(&[9; 512], GuestAddress(0)).unwrap();
    let segments = [GuestRange { gpa: 0, len: 512 }];
    let mut engine = Engine::new(method, 4, "test", &[Arc::clone(&file)]).unwrap();
    let write = |durable| Request::Write(GuestRanges::new(&ram, &segments), durable);
    assert_eq!(engine.submit(write(Durable::No), 0, 0, 1), Ok(()));
    assert_eq!(engine.submit(write(Durable::Yes), 0, 65536, 2), Ok(()));
    assert_eq!(engine.submit(Request::Sync, 0, 0, 3), Ok(()));
    assert_eq!(finish(&mut engine), BTreeMap::from([(1, Ok(())), (2, Ok(())), (3, Ok(()))]));
    assert_eq!(bytes_at(&file, 0, 512), [9; 512]);
    assert_eq!(bytes_at(&file, 65536, 512), [9; 512]);
}

fn zero_and_punch_leave_zeros(method: IoMethod) {
    let file = file();
    let mut engine = Engine::new(method, 4, "test", &[Arc::clone(&file)]).unwrap();
    let zero = |unmap, durable| Request::Zero { len: 4096, unmap, durable };
    assert_eq!(engine.submit(zero(false, Durable::No), 0, 0, 1), Ok(()));
    assert_eq!(engine.submit(zero(true, Durable::Yes), 0, 8192, 2), Ok(()));
    assert_eq!(engine.submit(Request::Punch(4096), 0, 16384, 3), Ok(()));
    assert_eq!(engine.submit(Request::Zero { len: 0, unmap: true, durable: Durable::No }, 0, 0, 4), Ok(()));
    assert!(finish(&mut engine).values().all(|result| result.is_ok()));
    assert_eq!(bytes_at(&file, 0, 4096), [0; 4096]);
    assert_eq!(bytes_at(&file, 8192, 4096), [0; 4096]);
    assert_eq!(bytes_at(&file, 16384, 4096), [0; 4096]);
    assert_ne!(bytes_at(&file, 4096, 4096), [0; 4096]);
}

fn failures_are_told(method: IoMethod) {
    let (ram, file) = (ram(), file());
    let read_only = Arc::new(File::open("/dev/null").unwrap());
    let segments = [GuestRange { gpa: 0, len: 1024 }];
    let buffers = GuestRanges::new(&ram, &segments);
    let mut engine = Engine::new(method, 4, "test", &[file, read_only]).unwrap();
    // Half of the range is past the end of the file.
    assert_eq!(engine.submit(Request::Read(buffers), 0, 65536 - 512, 1), Ok(()));
    assert_eq!(engine.submit(Request::Write(buffers, Durable::No), 1, 0, 2), Ok(()));
    let finished = finish(&mut engine);
    assert_eq!(finished[&1], Err(io::ErrorKind::UnexpectedEof));
    assert!(finished[&2].is_err());
}

fn full_engine_gives_the_request_back(method: IoMethod) {
    let file = file();
    let mut engine = Engine::new(method, 1, "test", &[Arc::clone(&file)]).unwrap();
    assert_eq!(engine.submit(Request::Sync, 0, 0, 1), Ok(()));
    assert!(engine.is_full());
    assert_eq!(engine.submit(Request::Sync, 0, 0, 2), Err(2));
    assert_eq!(finish(&mut engine), BTreeMap::from([(1, Ok(()))]));
    assert!(!engine.is_full());
}

fn request_for_a_file_that_does_not_exist_is_given_back(method: IoMethod) {
    let mut engine = Engine::new(method, 1, "test", &[file()]).unwrap();
    assert_eq!(engine.submit(Request::Sync, 1, 0, 1), Err(1));
    assert_eq!(engine.in_flight(), 0);
}

fn second_file_is_accessed_by_its_index(method: IoMethod) {
    let (first, second) = (file(), file());
    let mut engine = Engine::new(method, 1, "test", &[Arc::clone(&first), Arc::clone(&second)]).unwrap();
    assert_eq!(engine.submit(Request::Punch(4096), 1, 0, 1), Ok(()));
    assert_eq!(finish(&mut engine), BTreeMap::from([(1, Ok(()))]));
    assert_eq!(bytes_at(&second, 0, 4096), [0; 4096]);
    assert_ne!(bytes_at(&first, 0, 4096), [0; 4096]);
}

/// The engine is the last owner of the file, and dropping it completes what is in flight.
fn drop_waits_for_what_is_in_flight(method: IoMethod) {
    let (ram, file) = (ram(), file());
    ram.memory().write_slice(&[5; 65536], GuestAddress(0)).unwrap();
    let mut seen = file.try_clone().unwrap();
    let segments = [GuestRange { gpa: 0, len: 65536 }];
    let mut engine = Engine::new(method, 8, "test", &[Arc::clone(&file)]).unwrap();
    for part in 0..8 {
        let buffers = GuestRanges::new(&ram, &segments);
        assert!(engine.submit(Request::Write(buffers, Durable::Yes), 0, part * 65536, ()).is_ok());
    }
    engine.dispatch();
    drop((engine, file, ram));
    seen.seek(SeekFrom::Start(0)).unwrap();
    let mut bytes = Vec::new();
    seen.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [5; 8 * 65536]);
}

/// Slots are reused many times, with different memory.
fn many_rounds_need_no_more_than_the_depth(method: IoMethod) {
    let (ram, file) = (ram(), file());
    let mut engine = Engine::new(method, 3, "test", &[Arc::clone(&file)]).unwrap();
    let mut done = 0;
    for round in 0..300_u64 {
        let segments = [GuestRange { gpa: round % 16 * 4096, len: 4096 }];
        while engine.is_full() {
            engine.dispatch();
            engine.wait();
            done += u64::from(engine.completed().is_some_and(|(_, result)| result.is_ok()));
        }
        let buffers = GuestRanges::new(&ram, &segments);
        assert!(engine.submit(Request::Read(buffers), 0, round % 16 * 4096, round).is_ok());
    }
    done += finish(&mut engine).values().filter(|result| result.is_ok()).count() as u64;
    assert_eq!(done, 300);
    let mut bytes = vec![0; 65536];
    ram.memory().read_slice(&mut bytes, GuestAddress(0)).unwrap();
    assert_eq!(bytes, bytes_at(&file, 0, 65536));
}

/// Each test, for both backends. If io_uring is refused, its tests fail and say so; they never pass silently.
macro_rules! both_backends {
    ($($test:ident),* $(,)?) => {
        #[cfg(feature = "io-uring")]
        mod uring {
            $(#[test] fn $test() { super::$test(super::IoMethod::Uring) })*
        }
        mod threads {
            $(#[test] fn $test() { super::$test(super::IoMethod::Threads) })*
        }
    };
}

both_backends!(
    read_fills_scattered_memory,
    write_then_sync_is_in_the_file,
    zero_and_punch_leave_zeros,
    failures_are_told,
    full_engine_gives_the_request_back,
    request_for_a_file_that_does_not_exist_is_given_back,
    second_file_is_accessed_by_its_index,
    drop_waits_for_what_is_in_flight,
    many_rounds_need_no_more_than_the_depth,
);

fn refused() -> Option<io::Result<Uring>> {
    Some(Err(io::Error::from_raw_os_error(libc::EPERM)))
}

fn threads() -> Backend {
    Backend::Threads(Threads::new(1, Arc::new(EventFd::new().unwrap()), "test"))
}

#[test]
fn uring_refused_makes_auto_use_threads_and_keep_the_reason() {
    let (backend, refusal) = choose(IoMethod::Auto, refused(), threads).unwrap();
    assert!(matches!(backend, Backend::Threads(_)));
    assert_eq!(refusal.unwrap().raw_os_error(), Some(libc::EPERM));
}

#[test]
fn uring_refused_is_an_error_where_nothing_else_will_do() {
    let error = choose(IoMethod::Uring, refused(), threads).map(|_| ()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

#[cfg(not(feature = "io-uring"))]
#[test]
fn uring_not_built_in_is_refused_and_auto_uses_threads() {
    let engine = |method| Engine::<()>::new(method, 1, "test", &[file()]);
    assert_eq!(engine(IoMethod::Uring).unwrap_err().to_string(), "built without the feature \"io-uring\"");
    assert_eq!(
        engine(IoMethod::Auto).unwrap().describe(),
        "threads, because io_uring is refused: built without the feature \"io-uring\""
    );
}

#[test]
fn describe_says_why_it_is_not_io_uring() {
    let mut engine: Engine<()> = Engine::new(IoMethod::Threads, 1, "test", &[file()]).unwrap();
    assert_eq!(engine.describe(), "threads");
    engine.refusal = Some(io::Error::from_raw_os_error(libc::ENOSYS));
    assert_eq!(
        engine.describe(),
        "threads, because io_uring is refused: Function not implemented (os error 38)"
    );
}
