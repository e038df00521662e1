//! The data path doesn't allocate.

use super::{Scripted, shared_value};
use crate::Step;
use crate::testing::{Buf, features};

#[test]
fn drain_allocates_nothing() {
    let (counts, in_device) = shared_value::<Vec<u64>>();
    let device = Scripted::new(move |session| {
        let info = allocation_counter::measure(|| {
            let drained = session.drain(0, |chain| {
                let mut bytes = [0; 4];
                chain.readable().read(&mut bytes)?;
                let (first, rest) = chain.writable().split_at(1).expect("there are 4 bytes");
                first.write(&bytes[..1])?;
                rest.write(&bytes[1..])?;
                Ok(Step::Used(4))
            });
            drained.expect("sound chains");
        });
        in_device.lock().unwrap().push(info.count_total);
        Ok(())
    });
    let mut driver = device.running(features::INDIRECT | features::EVENT_IDX);
    let mut queue = driver.queue(0);
    queue.add(&[Buf::Read(b"ab"), Buf::Read(b"cd"), Buf::Write(4)]);
    queue.add_indirect(&[Buf::Read(b"abcd"), Buf::Write(2), Buf::Write(2)]);
    queue.kick();
    assert_eq!(queue.wait_used().written(), b"abcd");
    assert_eq!(queue.wait_used().written(), b"abcd");
    driver.suspend();
    let counts = counts.lock().unwrap();
    assert!(counts.len() >= 2, "at the start, and after the notification");
    assert_eq!(*counts, vec![0; counts.len()]);
}
