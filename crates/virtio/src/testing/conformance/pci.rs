//! What only the PCI transport has: a configuration space, fields of their own widths in a BAR, and MSI-X.

use std::ops::Range;
use std::time::Instant;

use vmm_bus::{BusDevice, Outcome};

use super::Subject;
use super::registers::scribble;
use crate::PCI_BAR_LEN;
use crate::testing::{DEADLINE, Driver, PciPort, Random, Register, status};

/// Offsets in the common configuration.
const QUEUE_SIZE: u64 = 24;
/// Vector Control in an entry of the table.
const VECTOR_CONTROL: u64 = 12;

fn config<const N: usize>(function: &PciPort, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    function.read_config(at, &mut bytes);
    bytes
}

fn put_config(function: &PciPort, at: u64, bytes: &[u8]) {
    assert_eq!(function.write_config(at, bytes), Outcome::Done);
}

fn bar<const N: usize>(driver: &Driver, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    driver.read_bytes(at, &mut bytes);
    bytes
}

pub fn configuration_space_says_what_it_is(subject: &Subject) {
    let driver = subject.driver();
    let function = driver.function();
    let device = 0x1040 + subject.expect.id as u16;
    assert_eq!(config(function, 0), 0x1af4_u16.to_le_bytes());
    assert_eq!(config(function, 2), device.to_le_bytes());
    assert_eq!(config(function, 8), [1], "the revision of a device that isn't transitional");
    assert_eq!(config(function, 0x0e), [0], "a header of type 0, and one function");
    assert_eq!(config(function, 0x3d), [0], "no interrupt pin");
    let structures = function.structures();
    assert_eq!(structures.vectors, subject.expect.queues.len() + 1);
    // virtio 1.2 §4.1.4.3.1, §4.1.4.4.1, §4.1.4.6.1.
    assert_eq!((structures.common % 4, structures.notify % 2, structures.device % 4), (0, 0, 0));
    assert!(structures.window != 0 && structures.isr != 0);
    assert_eq!((driver.status(), driver.read(Register::InterruptStatus)), (0, 0));
}

/// virtio 1.2 §4.1.4.3.2: a driver must not write 0.
pub fn queue_is_not_disabled_by_queue_enable(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    driver.set_up_queue(subject.expect.queue, subject.expect.queues[subject.expect.queue]);
    for value in [0, 2, 0xfffe, 0xffff] {
        driver.write(Register::QueueReady, value);
        assert_eq!(driver.read(Register::QueueReady), 1, "after {value:#x}");
    }
    driver.driver_ok();
    subject.serve(&mut driver);
}

pub fn queue_registers_read_back_in_halves(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    driver.write(Register::QueueSel, subject.expect.queue as u32);
    let halves = [
        Register::QueueDescLow,
        Register::QueueDescHigh,
        Register::QueueDriverLow,
        Register::QueueDriverHigh,
        Register::QueueDeviceLow,
        Register::QueueDeviceHigh,
    ];
    let values = || (0x1111_0010_u32..).step_by(0x1111_0000);
    halves.into_iter().zip(values()).for_each(|(register, value)| driver.write(register, value));
    halves.into_iter().zip(values()).for_each(|(register, value)| {
        assert_eq!(driver.read(register), value, "{register:?}");
    });
    driver.write(Register::QueueSize, 2);
    assert_eq!(driver.read(Register::QueueSize), 2);
    driver.reset();
    driver.write(Register::QueueSel, subject.expect.queue as u32);
    assert_eq!(driver.read(Register::QueueSize), u32::from(subject.expect.queues[subject.expect.queue]));
    assert!(halves.into_iter().all(|register| driver.read(register) == 0));
}

pub fn queue_has_a_vector_of_its_own(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    let function = driver.function();
    assert!(function.messages(subject.expect.queue + 1) > 0);
    assert_eq!((function.messages(0), function.stray_messages()), (0, 0));
}

/// The vector of the request queue.
fn vector(subject: &Subject, driver: &Driver) -> u64 {
    driver.function().structures().table + 16 * (subject.expect.queue as u64 + 1)
}

/// Whether the request queue's vector is pending.
fn is_pending(subject: &Subject, driver: &Driver) -> bool {
    let vector = subject.expect.queue + 1;
    let bits =
        u64::from_le_bytes(bar(driver, driver.function().structures().pending + vector as u64 / 64 * 8));
    bits >> (vector % 64) & 1 != 0
}

/// The request is served while its vector can't send. After `release` its message comes.
fn pends(subject: &Subject, driver: &mut Driver, release: impl FnOnce(&Driver)) {
    let before = driver.function().messages(subject.expect.queue + 1);
    subject.send(driver);
    subject.check(&driver.queue(subject.expect.queue).poll_used());
    // Afterwards the device has finished all work.
    driver.suspend();
    assert_eq!(driver.function().messages(subject.expect.queue + 1), before, "it can't be sent");
    assert!(is_pending(subject, driver));
    release(driver);
    assert_eq!(driver.function().messages(subject.expect.queue + 1), before + 1);
    assert!(!is_pending(subject, driver));
    driver.resume();
    let _ = driver.interrupts();
    subject.serve(driver);
}

pub fn vector_that_is_masked_is_pending(subject: &Subject) {
    let mut driver = subject.running(0);
    let control = vector(subject, &driver) + VECTOR_CONTROL;
    driver.write_bytes(control, &1_u32.to_le_bytes());
    pends(subject, &mut driver, |driver| driver.write_bytes(control, &0_u32.to_le_bytes()));
    let msix = driver.function().structures().msix + 2;
    put_config(driver.function(), msix, &0xc000_u16.to_le_bytes());
    pends(subject, &mut driver, |driver| put_config(driver.function(), msix, &0x8000_u16.to_le_bytes()));
}

pub fn bus_master_that_is_off_sends_nothing(subject: &Subject) {
    let mut driver = subject.running(0);
    put_config(driver.function(), 4, &0b010_u16.to_le_bytes());
    pends(subject, &mut driver, |driver| put_config(driver.function(), 4, &0b110_u16.to_le_bytes()));
}

/// virtio 1.2 §4.1.4.5.1. Reading it clears it.
pub fn msix_that_is_off_leaves_the_cause_in_isr_status(subject: &Subject) {
    let mut driver = subject.running(0);
    let msix = driver.function().structures().msix + 2;
    put_config(driver.function(), msix, &[0, 0]);
    subject.send(&mut driver);
    subject.check(&driver.queue(subject.expect.queue).poll_used());
    // Afterwards the device has finished all work.
    driver.suspend();
    assert_eq!(driver.function().messages(subject.expect.queue + 1), 0);
    assert_eq!(config::<2>(driver.function(), 6)[0] & 0b1000, 0b1000, "Interrupt Status");
    assert_eq!((driver.read(Register::InterruptStatus), driver.read(Register::InterruptStatus)), (1, 0));
    assert_eq!(config::<2>(driver.function(), 6)[0] & 0b1000, 0);
    driver.resume();
    subject.recover(&mut driver);
}

/// virtio 1.2 §4.1.4.5.1: also with MSI-X, ISR status says that the configuration has changed.
pub fn fault_comes_by_the_vector_of_the_configuration(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.provoke_fault(&mut driver);
    assert_eq!(driver.function().messages(0), 1);
    assert_eq!((driver.read(Register::InterruptStatus), driver.read(Register::InterruptStatus)), (2, 0));
    subject.recover(&mut driver);
}

/// Notifications are exits until the eventfd is in place: of 16 bits, or of 32 as with NOTIFICATION_DATA.
pub fn notification_of_any_width_is_taken(subject: &Subject) {
    let mut driver = subject.running(0);
    let structures = driver.function().structures();
    let register = structures.notify + subject.expect.queue as u64 * structures.multiplier;
    for bytes in [&[0_u8; 2][..], &[0xff; 4][..]] {
        driver.queue(subject.expect.queue).add(&subject.bufs());
        driver.write_bytes(register, bytes);
        subject.receive(&mut driver);
    }
}

/// virtio 1.2 §4.1.4.9.
pub fn window_reaches_the_registers(subject: &Subject) {
    let driver = subject.driver();
    let (function, structures) = (driver.function(), driver.function().structures());
    let aim = |offset: u64, len: u32| {
        put_config(function, structures.window + 4, &[0]);
        put_config(function, structures.window + 8, &(offset as u32).to_le_bytes());
        put_config(function, structures.window + 12, &len.to_le_bytes());
    };
    let data = structures.window + 16;
    aim(structures.common + 22, 2);
    put_config(function, data, &(subject.expect.queue as u32).to_le_bytes());
    aim(structures.common + QUEUE_SIZE, 2);
    assert_eq!(config(function, data), subject.expect.queues[subject.expect.queue].to_le_bytes());
    aim(structures.common + 20, 1);
    put_config(function, data, &[status::ACKNOWLEDGE, 0, 0, 0]);
    assert_eq!(driver.status(), status::ACKNOWLEDGE);
    // A whole reset.
    put_config(function, data, &[0; 4]);
    assert_eq!(driver.status(), 0);
}

/// The same low bits as those of a valid selector, through registers of every width.
pub fn selectors_at_their_extremes_reach_nothing(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(0));
    let count = subject.expect.queues.len() as u32;
    for index in [count, 0xff, 0x100, 0x7fff, 0x8000, 0xffff] {
        driver.write(Register::QueueSel, index);
        assert_eq!(driver.read(Register::QueueSize), 0);
        scribble(&driver);
        driver.write(Register::QueueReady, 1);
        assert_eq!((driver.read(Register::QueueReady), driver.read(Register::QueueSize)), (0, 0));
        driver.write(Register::QueueNotify, index);
        (0..count).for_each(|queue| {
            driver.write(Register::QueueSel, queue);
            assert_eq!(driver.read(Register::QueueReady), 0, "queue {queue}, by selector {index:#x}");
        });
    }
    // queue_select has 16 bits: an access of 32 is none.
    let common = driver.function().structures().common;
    driver.write(Register::QueueSel, count);
    driver.write_bytes(common + 22, &0x1_0000_u32.to_le_bytes());
    assert_eq!(driver.read(Register::QueueSel), count);
    driver.init(0);
    subject.serve(&mut driver);
    super::mmio::feature_selectors_at_their_extremes_reach_nothing(subject);
}

/// The structures, with the bytes before and after them.
fn places(driver: &Driver) -> Vec<Range<u64>> {
    let structures = driver.function().structures();
    let vectors = structures.vectors as u64;
    let end = PCI_BAR_LEN;
    let lens = [
        (structures.common, 0x40),
        (structures.isr, 4),
        (structures.device, 0x200),
        (structures.device + structures.device_len, 0),
        (structures.notify, 4 * vectors),
        (structures.table, 16 * vectors),
        (structures.pending, 8),
        (end, 0),
    ];
    lens.map(|(start, len)| start.saturating_sub(16)..(start + len + 16).min(end)).to_vec()
}

pub fn accesses_of_any_width_at_any_offset_are_survived(subject: &Subject) {
    let mut driver = subject.running(0);
    for width in [1, 2, 4, 8] {
        for offset in
            places(&driver).into_iter().flatten().filter(|offset| offset + width as u64 <= PCI_BAR_LEN)
        {
            super::read_and_write(&driver, offset, width);
        }
    }
    subject.recover(&mut driver);
}

pub fn accesses_at_random_are_survived(subject: &Subject) {
    let mut driver = subject.driver();
    for seed in 0..20 {
        accesses(&driver, Random::new(seed));
        // Memory accesses may be off, the BAR elsewhere, and vectors masked.
        driver.reset();
    }
    subject.recover(&mut driver);
}

pub fn accesses_of_two_vcpus_at_once_are_survived(subject: &Subject) {
    let mut driver = subject.driver();
    std::thread::scope(|scope| {
        let (one, other) = (&driver, &driver);
        scope.spawn(|| (100..105).for_each(|seed| accesses(one, Random::new(seed))));
        scope.spawn(|| (200..205).for_each(|seed| accesses(other, Random::new(seed))));
    });
    subject.recover(&mut driver);
}

fn accesses(driver: &Driver, mut random: Random) {
    let places = places(driver);
    for _ in 0..500 {
        let width = random.of(&[1, 1, 2, 2, 2, 4, 4, 4, 4, 8]);
        let outcome = match random.below(4) {
            0 => configure(driver, &mut random, width),
            _ => access(driver, &mut random, &places, width),
        };
        let until = Instant::now() + DEADLINE;
        // Not by the eventfd, which would wake one of two vCPUs.
        while outcome == Outcome::Hold && driver.is_holding() {
            assert!(Instant::now() < until, "the device doesn't finish its reset");
            std::thread::yield_now();
        }
    }
}

fn value(random: &mut Random) -> [u8; 8] {
    let value = match random.below(4) {
        0 => random.bits(),
        1 => random.of(&[0, u64::MAX, 1 << 31, 1 << 32, 0x1000]),
        _ => random.below(16),
    };
    value.to_le_bytes()
}

/// Mostly aligned, in and around the structures.
fn access(driver: &Driver, random: &mut Random, places: &[Range<u64>], width: usize) -> Outcome {
    let place = &places[random.below(places.len() as u64) as usize];
    let place = if random.below(2) == 0 { &places[0] } else { place };
    let offset = place.start + random.below(place.end - place.start);
    let offset = if random.below(8) > 0 { offset / width as u64 * width as u64 } else { offset };
    let offset = offset.min(PCI_BAR_LEN - width as u64);
    let value = value(random);
    if random.below(3) == 0 {
        driver.read_bytes(offset, &mut [0xff; 8][..width]);
        return Outcome::Done;
    }
    driver.port().area().write(offset, &value[..width])
}

/// An access to configuration space, by either mechanism.
fn configure(driver: &Driver, random: &mut Random, width: usize) -> Outcome {
    let function = driver.function();
    let offset = if random.below(8) > 0 { random.below(0x100) } else { random.below(0x1000) };
    let (offset, value) = (offset.min(0x1000 - width as u64), value(random));
    match random.below(4) {
        0 => {
            function.read_config(offset, &mut [0xff; 8][..width]);
            Outcome::Done
        }
        1 => {
            let select = 1 << 31 | random.below(0x100) << 11 | offset & 0xfc;
            let _ = function.cam().write(0, &(select as u32).to_le_bytes());
            function.cam().write(random.below(8), &value[..width])
        }
        _ => function.write_config(offset, &value[..width]),
    }
}
