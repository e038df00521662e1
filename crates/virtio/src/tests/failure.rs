//! Devices that fail because of their driver or by themselves.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use vmm_bus::EventFd;
use vmm_bus::Outcome;

use super::{Scripted, shared_value};
use crate::testing::{Buf, DEADLINE, Register, status};
use crate::{Fault, Step};

const FAULT: Fault = Fault::Request("of a test");

#[test]
fn fault_of_a_device_needs_reset_and_nothing_but_a_stop_comes_then() {
    let (calls, in_device) = shared_value::<Vec<&str>>();
    let log = move |what| in_device.lock().unwrap().push(what);
    let mut device = Scripted::new({
        let log = log.clone();
        move |_| {
            log("process");
            Err(FAULT)
        }
    });
    device.start = Box::new({
        let log = log.clone();
        move |_| {
            log("start");
            Ok(())
        }
    });
    device.stop = Box::new(move |_| log("stop"));
    let mut driver = device.running(0);
    driver.wait_needs_reset();
    driver.queue(0).notify();
    driver.write_config(0, &[0]);
    driver.suspend();
    driver.resume();
    driver.queue(0).notify();
    driver.reset();
    assert_eq!(*calls.lock().unwrap(), ["start", "process", "stop"]);
    assert_eq!(driver.control().take_fault(), Some(FAULT));
    assert_eq!(driver.control().take_fault(), None);
}

#[test]
fn device_whose_rings_are_nowhere_is_neither_started_nor_stopped() {
    let (calls, in_device) = shared_value::<Vec<&str>>();
    let mut device = Scripted::new(|_| Ok(()));
    device.start = Box::new({
        let in_device = Arc::clone(&in_device);
        move |_| {
            in_device.lock().unwrap().push("start");
            Ok(())
        }
    });
    device.stop = Box::new(move |_| in_device.lock().unwrap().push("stop"));
    let mut driver = device.driver();
    assert!(driver.negotiate(0));
    driver.write(Register::QueueSel, 0);
    driver.write(Register::QueueDescHigh, 0xffff_ffff);
    driver.write(Register::QueueReady, 1);
    driver.driver_ok();
    driver.wait_needs_reset();
    driver.reset();
    assert!(calls.lock().unwrap().is_empty());
}

/// State of a thread in /proc: 'S' while it sleeps.
fn is_asleep(thread: &PathBuf) -> bool {
    let stat = std::fs::read_to_string(PathBuf::from("/proc").join(thread).join("stat")).unwrap();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Whether the thread of a device that watches a permanently ready descriptor goes to sleep.
fn comes_to_rest(stop: impl FnOnce(&mut crate::testing::Driver)) -> bool {
    let ready = EventFd::new().unwrap();
    ready.write(1).unwrap();
    let (send, threads) = channel();
    let mut device = Scripted::new(|session| session.drain(0, |_| Err(FAULT)));
    device.start = Box::new(move |session| {
        session.watch(&ready, 0).unwrap();
        let _ = send.send(std::fs::read_link("/proc/thread-self").unwrap());
        Ok(())
    });
    let mut driver = device.running(0);
    let thread = threads.recv().unwrap();
    stop(&mut driver);
    let until = Instant::now() + DEADLINE;
    while !is_asleep(&thread) && Instant::now() < until {
        std::thread::yield_now();
    }
    is_asleep(&thread)
}

#[test]
fn broken_device_that_watches_what_is_ready_rests() {
    assert!(comes_to_rest(|driver| {
        driver.queue(0).add(&[Buf::Write(1)]);
        driver.queue(0).kick();
        driver.wait_needs_reset();
    }));
}

#[test]
fn stopped_device_that_watches_what_is_ready_rests() {
    assert!(comes_to_rest(|driver| driver.suspend()));
}

#[test]
fn panic_of_a_device_needs_reset_and_its_reset_ends() {
    let device = Scripted::new(|session| session.drain(0, |_| panic!("a test's")));
    let mut driver = device.running(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    driver.wait_needs_reset();
    assert_eq!(driver.control().take_fault(), Some(Fault::Panicked));
    driver.reset();
    // It can't be started again, and reports that.
    driver.init(0);
    driver.wait_needs_reset();
    driver.suspend();
    driver.resume();
    assert!(driver.needs_reset());
    driver.reset();
}

#[test]
fn panic_of_a_device_in_a_command_leaves_nobody_waiting() {
    let device = Scripted::new(|_| Ok(()));
    let mut driver = device.running(0);
    let answer = driver.control().with_device(|_, _| panic!("a test's"));
    assert_eq!(answer.recv_timeout(DEADLINE), Err::<(), _>(RecvTimeoutError::Disconnected));
    driver.wait_needs_reset();
    assert_eq!(driver.control().take_fault(), Some(Fault::Panicked));
    let answer = driver.control().with_device(|_, _| ());
    assert_eq!(answer.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn panic_in_a_reset_ends_it() {
    let mut device = Scripted::new(|_| Ok(()));
    device.stop = Box::new(|_| panic!("a test's"));
    let mut driver = device.running(0);
    driver.reset();
    assert_eq!(driver.control().take_fault(), Some(Fault::Panicked));
    driver.init(0);
    driver.wait_needs_reset();
}

/// The thread's exit raises an interrupt, which may come after the reset that it should have executed.
#[test]
fn interrupt_of_a_panic_in_a_reset_is_void_after_the_next_reset() {
    let (go, wait) = channel::<()>();
    let mut device = Scripted::new(|_| Ok(()));
    device.stop = Box::new(move |_| {
        let _ = wait.recv();
        panic!("a test's");
    });
    let driver = device.running(0);
    assert_eq!(driver.port().write(Register::Status, 0), Outcome::Hold);
    go.send(()).unwrap();
    let until = Instant::now() + DEADLINE;
    while driver.read(Register::InterruptStatus) == 0 {
        assert!(Instant::now() < until, "no interrupt");
        std::thread::yield_now();
    }
    // The thread has exited before, so the registers are those of a device that isn't running.
    driver.write(Register::Status, 0);
    assert_eq!(driver.read(Register::InterruptStatus), 0);
}

#[test]
fn panic_in_a_suspend_ends_it() {
    let mut device = Scripted::new(|_| Ok(()));
    device.stop = Box::new(|_| panic!("a test's"));
    let mut driver = device.running(0);
    driver.suspend();
    driver.resume();
    driver.wait_needs_reset();
    driver.reset();
}

/// Reports that it is being dropped, and then waits.
struct Lingering(Sender<()>, Receiver<()>);

impl Drop for Lingering {
    fn drop(&mut self) {
        let _ = self.0.send(());
        let _ = self.1.recv();
    }
}

/// If the panic were reported before the drop, a reset would complete while parts of the device still exist.
#[test]
fn panic_is_reported_after_the_device_is_dropped() {
    let ((dropping, is_dropping), (go, wait)) = (channel(), channel());
    let lingering = Lingering(dropping, wait);
    let mut driver = Scripted::new(move |_| {
        let _ = &lingering;
        panic!("a test's")
    })
    .running(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    is_dropping.recv().unwrap();
    let is_reported = driver.needs_reset();
    go.send(()).unwrap();
    assert!(!is_reported);
    driver.wait_needs_reset();
}

#[test]
fn panicked_device_is_dropped_before_its_reset_ends() {
    let alive = Arc::new(());
    let kept = Arc::clone(&alive);
    let device = Scripted::new(move |session| {
        let _ = &kept;
        session.drain(0, |_| panic!("a test's"))
    });
    let mut driver = device.running(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    driver.reset();
    // Whether the reset or the panic came first, nothing of the device is left after the next reset.
    driver.init(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    driver.wait_needs_reset();
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn interrupts_before_a_reset_are_void_after_it() {
    let mut driver = Scripted::new(|session| session.drain(0, |_| Ok(Step::Used(0)))).running(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).notify();
    let _ = driver.queue(0).poll_used();
    driver.write(Register::Status, 0);
    assert_eq!(driver.read(Register::InterruptStatus), 0);
    assert_eq!(driver.status(), 0);
}

#[test]
fn status_written_during_a_reset_holds_and_does_nothing() {
    let (go, wait) = channel::<()>();
    let mut device = Scripted::new(|_| Ok(()));
    device.stop = Box::new(move |_| _ = wait.recv());
    let driver = device.running(0);
    let write = |bits: u8| driver.port().write(Register::Status, bits.into());
    assert_eq!(write(0), Outcome::Hold);
    assert_eq!(write(status::FAILED), Outcome::Hold);
    assert!(driver.is_holding());
    go.send(()).unwrap();
    driver.wait_hold();
    assert_eq!(driver.status(), 0);
}
