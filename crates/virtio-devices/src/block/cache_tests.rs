//! When writes complete, seen from the image.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vmm_virtio::Buffers;
use vmm_virtio::testing::{Buf, Driver};

use super::config::Cache;
use super::image::{Image, Source};
use super::properties::DiskProperties;
use super::shape::Shape;
use super::stamp::StampedFile;
use super::{Block, Disk};

const OUT: u32 = 1;
const FLUSH: u64 = 1 << 9;
const CONFIG_WCE: u64 = 1 << 11;

/// Records operations on an image in order: `w` for a write, `f` for a flush.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<String>>);

impl Recorded {
    fn note(&self, what: char) -> io::Result<()> {
        self.0.lock().unwrap().push(what);
        Ok(())
    }

    /// Operations since the last call.
    fn take(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Source for Recorded {
    fn read(&mut self, _: u64, _: &Buffers<'_>) -> io::Result<()> {
        Ok(())
    }

    fn read_bytes(&mut self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Ok(())
    }

    fn files(&self) -> Vec<StampedFile<'_>> {
        Vec::new()
    }
}

impl Image for Recorded {
    fn write(&mut self, _: u64, _: &Buffers<'_>) -> io::Result<()> {
        self.note('w')
    }

    fn flush(&mut self) -> io::Result<()> {
        self.note('f')
    }

    fn discard(&mut self, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&mut self, _: Range<u64>, _: bool) -> io::Result<()> {
        Ok(())
    }
}

fn driver(cache: Cache) -> (Driver, Recorded) {
    let image = Recorded::default();
    let properties =
        DiskProperties { sectors: 8, shape: Shape::of_blocks(512), read_only: false, cache, queues: 1 };
    let disk = Disk::Image(Box::new(image.clone()));
    let block = Block::new(disk, properties, ([0; 20], None), String::new()).unwrap();
    (Driver::new(Box::new(block), 2), image)
}

fn write(driver: &mut Driver) {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&OUT.to_le_bytes());
    let used = driver.queue(0).request(&[Buf::Read(&header), Buf::Read(&[1; 512]), Buf::Write(1)]);
    assert_eq!(used.bytes, [0]);
}

#[test]
fn driver_that_flushes_gets_the_configured_mode() {
    let (mut driver, image) = driver(Cache::Writeback);
    driver.init(FLUSH | CONFIG_WCE);
    write(&mut driver);
    assert_eq!(image.take(), "w");
}

/// virtio 1.2 §5.2.5.2: writeback starts at 0.
#[test]
fn driver_that_may_choose_but_never_flushes_starts_with_write_through() {
    let (mut driver, image) = driver(Cache::Writeback);
    driver.init(CONFIG_WCE);
    assert_eq!(driver.config(32, 1), [0]);
    write(&mut driver);
    assert_eq!(image.take(), "wf");
}

#[test]
fn writeback_is_0_as_soon_as_the_features_are_accepted() {
    let (mut driver, _image) = driver(Cache::Writeback);
    assert_eq!(driver.config(32, 1), [1]);
    assert!(driver.negotiate(CONFIG_WCE));
    assert_eq!(driver.config(32, 1), [0]);
}

#[test]
fn driver_that_can_do_neither_writes_through() {
    let (mut driver, image) = driver(Cache::Writeback);
    driver.init(0);
    write(&mut driver);
    assert_eq!(image.take(), "wf");
}

#[test]
fn reset_restores_the_configured_mode() {
    let (mut driver, image) = driver(Cache::Writeback);
    driver.init(FLUSH | CONFIG_WCE);
    driver.write_config(32, &[0]);
    driver.reset();
    assert_eq!(driver.config(32, 1), [1]);
    driver.init(FLUSH | CONFIG_WCE);
    image.take();
    write(&mut driver);
    assert_eq!(image.take(), "w");
}

#[test]
fn reset_restores_write_through_for_the_next_driver() {
    let (mut driver, image) = driver(Cache::Writethrough);
    driver.init(FLUSH | CONFIG_WCE);
    driver.write_config(32, &[1]);
    driver.reset();
    driver.init(FLUSH | CONFIG_WCE);
    image.take();
    write(&mut driver);
    assert_eq!(image.take(), "wf");
}

/// The first driver never reached DRIVER_OK, so the device itself isn't notified of this reset.
#[test]
fn reset_of_a_device_that_never_ran_restores_the_mode() {
    let (mut driver, _image) = driver(Cache::Writeback);
    assert!(driver.negotiate(FLUSH | CONFIG_WCE));
    driver.write_config(32, &[0]);
    driver.reset();
    assert_eq!(driver.config(32, 1), [1]);
}

#[test]
fn switch_to_write_through_flushes_what_was_written() {
    let (mut driver, image) = driver(Cache::Writeback);
    driver.init(FLUSH | CONFIG_WCE);
    write(&mut driver);
    driver.write_config(32, &[0]);
    // The device handles the driver's configuration write before it stops; the stop itself flushes once more.
    driver.suspend();
    assert_eq!(image.take(), "wff");
    driver.resume();
    write(&mut driver);
    assert_eq!(image.take(), "wf");
}

#[test]
fn switch_to_writeback_and_what_changes_nothing_flush_nothing() {
    let (mut driver, image) = driver(Cache::Writethrough);
    driver.init(FLUSH | CONFIG_WCE);
    driver.write_config(32, &[0]);
    driver.suspend();
    assert_eq!(image.take(), "f");
    driver.resume();
    driver.write_config(32, &[1]);
    driver.suspend();
    assert_eq!(image.take(), "f");
    driver.resume();
    write(&mut driver);
    assert_eq!(image.take(), "w");
}
