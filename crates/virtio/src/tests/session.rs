//! Events, configuration changes and log messages of a running device.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use vmm_bus::EventFd;

use super::{Scripted, shared_value};
use crate::testing::{Buf, DEADLINE, Driver, Register};
use crate::{ConfigSpace, Fault, Step, Undelivered};

#[test]
fn thread_has_the_name_of_its_device() {
    let (send, names) = channel();
    let mut device = Scripted::new(|_| Ok(()));
    device.start = Box::new(move |_| {
        send.send(std::fs::read_to_string("/proc/thread-self/comm").unwrap()).unwrap();
        Ok(())
    });
    let _driver = device.running(0);
    assert_eq!(names.recv().unwrap(), "vq-test\n");
}

#[test]
fn command_has_a_session_only_while_a_driver_uses_the_device() {
    let mut driver = Scripted::new(|session| session.drain(0, |_| Err(Fault::Request("of a test")))).driver();
    let has_session = |driver: &Driver| {
        let answer = driver.control().with_device(|_, session| session.is_some());
        answer.recv_timeout(DEADLINE).unwrap()
    };
    assert!(!has_session(&driver));
    driver.init(0);
    assert!(has_session(&driver));
    driver.suspend();
    assert!(!has_session(&driver));
    driver.resume();
    assert!(has_session(&driver));
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    driver.wait_needs_reset();
    assert!(!has_session(&driver), "it is broken");
}

#[test]
fn device_is_stopped_and_dropped_with_its_transport() {
    let (calls, in_device) = shared_value::<Vec<&str>>();
    let mut device = Scripted::new(|_| Ok(()));
    let alive = Arc::new(());
    let kept = Arc::clone(&alive);
    device.stop = Box::new(move |_| {
        let _ = &kept;
        in_device.lock().unwrap().push("stop");
    });
    drop(device.running(0));
    assert_eq!(*calls.lock().unwrap(), ["stop"]);
    assert_eq!(Arc::strong_count(&alive), 1);
}

#[test]
fn event_comes_while_a_descriptor_can_be_read_and_not_when_stopped() {
    let event = Arc::new(EventFd::new().unwrap());
    let (watched, read) = (Arc::clone(&event), Arc::clone(&event));
    let (send, events) = channel();
    let mut device = Scripted::new(|_| Ok(()));
    device.start = Box::new(move |session| {
        // Also called at a resume, when it is watched already.
        let _ = session.watch(&*watched, 7);
        Ok(())
    });
    device.event = Box::new(move |_| {
        send.send(read.read().unwrap()).unwrap();
        Ok(())
    });
    let driver = device.running(0);
    event.write(5).unwrap();
    assert_eq!(events.recv().unwrap(), 5);
    driver.suspend();
    event.write(6).unwrap();
    assert!(events.try_recv().is_err(), "it is stopped");
    driver.resume();
    assert_eq!(events.recv().unwrap(), 6);
}

/// A device that has something for a host's program, and sends the number of each call that delivers it: nothing is left after the
/// call `last`.
fn delivering(last: u32) -> (Scripted, std::sync::mpsc::Receiver<u32>) {
    let (send, calls) = channel();
    let mut device = Scripted::new(|session| session.drain(0, |_| Err(Fault::Request("of a test"))));
    let mut count = 0;
    device.deliver = Box::new(move || {
        count += 1;
        send.send(count).unwrap();
        let left = Undelivered { connection: "connection".to_owned(), len: 1, sent_len: 0 };
        if count < last { vec![left] } else { Vec::new() }
    });
    (device, calls)
}

#[test]
fn device_without_a_driver_delivers_until_nothing_is_left() {
    let (device, calls) = delivering(3);
    let mut driver = device.driver();
    assert_eq!([(); 3].map(|()| calls.recv_timeout(DEADLINE).unwrap()), [1, 2, 3]);
    assert!(calls.recv_timeout(Duration::from_millis(200)).is_err(), "nothing is left");
    driver.init(0);
    driver.reset();
    assert_eq!(calls.recv_timeout(DEADLINE).unwrap(), 4);
}

#[test]
fn device_that_is_broken_delivers() {
    let (device, calls) = delivering(3);
    let mut driver = device.running(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    driver.wait_needs_reset();
    assert_eq!([(); 3].map(|()| calls.recv_timeout(DEADLINE).unwrap()), [1, 2, 3]);
}

#[test]
fn device_that_runs_or_is_suspended_does_not_deliver() {
    let (device, calls) = delivering(u32::MAX);
    let driver = device.running(0);
    driver.suspend();
    calls.try_iter().for_each(drop);
    assert!(calls.recv_timeout(Duration::from_millis(200)).is_err(), "its machine is paused");
    driver.resume();
    assert!(calls.recv_timeout(Duration::from_millis(200)).is_err(), "a driver uses it");
}

#[test]
fn configuration_that_changes_is_read_whole() {
    changing_configuration_is_read_whole(Scripted::driver);
}

/// config_generation has 8 bits there.
#[test]
fn configuration_that_changes_is_read_whole_with_pci() {
    changing_configuration_is_read_whole(Scripted::function);
}

fn changing_configuration_is_read_whole(attach: fn(Scripted) -> Driver) {
    let mut device = Scripted::new(|_| Ok(()));
    let config = ConfigSpace::read_only([0; 8]);
    device.config = config.clone();
    let mut driver = attach(device);
    driver.init(0);
    let (stop, stopped) = channel::<()>();
    let writer = std::thread::spawn(move || {
        let mut value = 0_u8;
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            value = value.wrapping_add(1);
            config.update(|bytes| bytes.fill(value));
            std::thread::yield_now();
        }
    });
    for _ in 0..200 {
        let bytes = driver.config(0, 8);
        assert_eq!(bytes, [bytes[0]; 8]);
    }
    drop(stop);
    writer.join().unwrap();
}

#[test]
fn configuration_change_is_an_interrupt_and_a_new_generation() {
    changing_configuration_interrupts(Scripted::driver);
}

#[test]
fn configuration_change_is_an_interrupt_and_a_new_generation_with_pci() {
    changing_configuration_interrupts(Scripted::function);
}

fn changing_configuration_interrupts(attach: fn(Scripted) -> Driver) {
    let config = ConfigSpace::read_only([1]);
    let mut device = Scripted::new({
        let config = config.clone();
        move |session| {
            config.update(|bytes| bytes[0] += 1);
            session.config_changed();
            session.drain(0, |_| Ok(Step::Used(0)))
        }
    });
    device.config = config;
    let mut driver = attach(device);
    driver.init(0);
    driver.wait_config_change();
    let generation = driver.read(Register::ConfigGeneration);
    driver.queue(0).request(&[Buf::Write(1)]);
    driver.wait_config_change();
    assert_ne!(driver.read(Register::ConfigGeneration), generation);
    assert!(driver.config(0, 1)[0] >= 3);
}

/// A device that blocks in `process` until it is released, and counts its driver's configuration writes.
fn busy() -> (Scripted, super::SharedValue<u32>, std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>) {
    let (count, in_device) = shared_value::<u32>();
    let (go, wait) = channel::<()>();
    let (entered, has_entered) = channel();
    let mut device = Scripted::new(move |session| {
        session.drain(0, |_| {
            let _ = entered.send(());
            let _ = wait.recv();
            Ok(Step::Used(0))
        })
    });
    device.config = ConfigSpace::new([0; 4], 0..4);
    device.config_written = Box::new(move |_| {
        *in_device.lock().unwrap() += 1;
        Ok(())
    });
    (device, count, go, has_entered)
}

#[test]
fn configuration_written_faster_than_a_device_handles_it_is_reported_once() {
    let (device, count, go, has_entered) = busy();
    let mut driver = device.running(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    has_entered.recv().unwrap();
    (0..1000_u32).for_each(|value| driver.write_config(0, &value.to_le_bytes()));
    go.send(()).unwrap();
    driver.suspend();
    assert_eq!(*count.lock().unwrap(), 1);
    assert_eq!(driver.config(0, 4), 999_u32.to_le_bytes());
}

#[test]
fn configuration_written_while_suspended_is_reported_at_the_resume() {
    let (device, count, _go, _) = busy();
    let driver = device.running(0);
    driver.suspend();
    driver.write_config(0, &[1]);
    driver.resume();
    driver.suspend();
    assert_eq!(*count.lock().unwrap(), 1);
}

#[test]
fn configuration_written_before_driver_ok_is_not_reported() {
    let (device, count, _go, _) = busy();
    let mut driver = device.driver();
    assert!(driver.negotiate(0));
    driver.write_config(0, &[1]);
    driver.driver_ok();
    // Afterwards the device has received everything that its start brings.
    driver.suspend();
    assert_eq!(*count.lock().unwrap(), 0);
}

/// The thread isn't involved in such a reset.
#[test]
fn configuration_written_before_driver_ok_is_undone_by_a_reset() {
    let (device, _count, _go, _) = busy();
    let mut driver = device.driver();
    assert!(driver.negotiate(0));
    driver.write_config(0, &[1]);
    driver.reset();
    assert_eq!(driver.config(0, 4), [0; 4]);
}

#[test]
fn configuration_written_where_it_cannot_be_is_not_reported() {
    let (device, count, _go, _) = busy();
    let driver = device.running(0);
    // It has 4 bytes.
    driver.write_config(4, &[1]);
    driver.suspend();
    assert_eq!(*count.lock().unwrap(), 0);
}

#[test]
fn configuration_written_before_a_reset_is_not_reported_after_it() {
    let (device, count, go, has_entered) = busy();
    let mut driver = device.running(0);
    driver.queue(0).add(&[Buf::Write(1)]);
    driver.queue(0).kick();
    has_entered.recv().unwrap();
    driver.reset_while(|driver| {
        driver.write_config(0, &[1]);
        go.send(()).unwrap();
    });
    let told = *count.lock().unwrap();
    driver.init(0);
    driver.suspend();
    assert_eq!(*count.lock().unwrap(), told);
}

#[test]
fn log_message_of_a_device_is_taken_once() {
    let mut driver = Scripted::new(|session| {
        session.drain(0, |_| Ok(Step::Used(0)))?;
        session.tell("a line");
        Ok(())
    })
    .running(0);
    driver.queue(0).request(&[Buf::Write(1)]);
    driver.suspend();
    // Once at the start, when chains may be available, and once or twice for the request.
    let told = driver.control().take_notices();
    assert!(told.texts.iter().all(|text| text == "a line") && !told.texts.is_empty(), "{told:?}");
    assert_eq!(driver.control().take_notices(), crate::Notices::default());
}
