//! A device's state is saved, and another one goes on with it.

use super::Subject;
use crate::testing::{Driver, Port, Random, Register, features, status};
use crate::{ConfigSpace, Fault, Needs, Persistence, Session, VirtioDevice};

/// Saves the paused device as the section of its transport. `None` if it can't be saved, which is as expected: then it goes on.
fn save(subject: &Subject, driver: &Driver) -> Option<Vec<u8>> {
    driver.suspend();
    match (driver.save(), subject.expect.refusal) {
        (Ok(section), None) => Some(section),
        (Err(refusal), Some(expected)) => {
            assert_eq!(refusal.to_string(), format!("test: {expected}"));
            driver.resume();
            None
        }
        (saved, expected) => panic!("{saved:?}, but {expected:?} was expected"),
    }
}

/// Moves the paused driver to a fresh device, which has the same registers afterwards and is saved as the same section. It is suspended
/// if it was started.
fn move_paused(subject: &Subject, driver: Driver) -> Result<Driver, Box<Driver>> {
    if save(subject, &driver).is_none() {
        return Err(Box::new(driver));
    }
    // Reading it once changes the selectors.
    let _ = driver.image();
    let image = driver.image();
    let section = driver.save().expect("it can be saved again");
    let restored = driver.beside((subject.make)());
    drop(driver);
    restored.load(&section).expect("it is another one of the same kind");
    assert_eq!(restored.save().expect("it can be saved"), section, "what was loaded is saved");
    let other = restored.image();
    let difference = other.iter().zip(&image).position(|(one, other)| one != other);
    assert_eq!((difference, other.len()), (None, image.len()), "the registers");
    Ok(restored)
}

/// Moves the driver to a fresh device, which goes on. Without saving if that is refused, as expected.
fn move_on(subject: &Subject, driver: Driver) -> Driver {
    move_paused(subject, driver)
        .inspect(|restored| {
            restored.resume();
            restored.control().rouse();
        })
        .unwrap_or_else(|driver| *driver)
}

pub fn state_of_a_fresh_device_is_kept(subject: &Subject) {
    let mut driver = move_on(subject, subject.driver());
    assert_eq!(driver.status(), 0);
    subject.recover(&mut driver);
}

pub fn state_in_the_middle_of_a_probe_is_kept(subject: &Subject) {
    let mut driver = subject.driver();
    assert!(driver.negotiate(features::EVENT_IDX));
    let queues = subject.expect.queues;
    driver.set_up_queue(0, queues[0]);
    let mut driver = move_on(subject, driver);
    assert_eq!(driver.status(), status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
    (1..queues.len()).for_each(|queue| driver.set_up_queue(queue, queues[queue]));
    driver.driver_ok();
    subject.serve(&mut driver);
}

pub fn state_of_a_running_device_is_kept(subject: &Subject) {
    move_running(subject, 0);
}

pub fn state_of_a_running_device_with_event_idx_is_kept(subject: &Subject) {
    move_running(subject, features::EVENT_IDX);
}

fn move_running(subject: &Subject, features: u64) {
    let mut driver = subject.running(features);
    for _ in 0..3 {
        subject.serve(&mut driver);
        driver = move_on(subject, driver);
    }
    subject.serve(&mut driver);
    subject.recover(&mut driver);
}

pub fn requests_that_come_in_a_pause_are_served_after_it(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    driver.suspend();
    subject.send(&mut driver);
    let mut driver = move_on(subject, driver);
    subject.receive(&mut driver);
}

pub fn requests_in_flight_are_all_served(subject: &Subject) {
    move_with_requests(subject, features::INDIRECT);
}

pub fn requests_in_flight_with_event_idx_are_all_served(subject: &Subject) {
    move_with_requests(subject, features::INDIRECT | features::EVENT_IDX);
}

fn move_with_requests(subject: &Subject, features: u64) {
    let mut driver = subject.running(features);
    for _ in 0..5 {
        let count = super::lifecycle::fill(subject, &mut driver);
        driver = move_on(subject, driver);
        (0..count).for_each(|_| subject.receive(&mut driver));
    }
}

/// Neither an interrupt nor a notification of the source reaches the driver: both are repeated.
pub fn interrupt_that_was_on_its_way_comes_again(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.send(&mut driver);
    driver.queue(subject.expect.queue).poll_used_index(1);
    driver.suspend();
    // As if it had got lost.
    let _ = driver.interrupts();
    let mut driver = match move_paused(subject, driver) {
        Ok(restored) => restored,
        Err(mut driver) => return subject.receive(&mut driver),
    };
    driver.resume();
    driver.control().rouse();
    let came = match driver.port() {
        Port::Mmio(_) => driver.read(Register::InterruptStatus) & 1 != 0,
        Port::Pci(function) => function.messages(1 + subject.expect.queue) > 0,
    };
    assert!(came, "the queue's interrupt");
    subject.receive(&mut driver);
}

pub fn state_that_needs_a_reset_is_kept(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.provoke_fault(&mut driver);
    let mut driver = move_on(subject, driver);
    assert!(driver.needs_reset());
    subject.recover(&mut driver);
}

/// The interrupt for it may have been lost.
pub fn driver_of_a_device_that_needs_a_reset_is_interrupted_again(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.provoke_fault(&mut driver);
    driver.suspend();
    if let Ok(mut restored) = move_paused(subject, driver) {
        restored.resume();
        restored.control().rouse();
        restored.wait_needs_reset();
    }
}

pub fn state_after_a_reset_is_kept(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    driver.reset();
    let mut driver = move_on(subject, driver);
    assert_eq!(driver.status(), 0);
    subject.recover(&mut driver);
}

pub fn state_of_a_device_that_was_given_up_is_kept(subject: &Subject) {
    let driver = subject.running(0);
    driver.add_status(status::FAILED);
    let mut driver = move_on(subject, driver);
    assert_ne!(driver.status() & status::FAILED, 0);
    subject.recover(&mut driver);
}

/// A reset that comes before the machine is resumed.
pub fn restored_device_can_be_reset_at_once(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    driver.suspend();
    let mut driver = move_paused(subject, driver).unwrap_or_else(|driver| *driver);
    driver.reset();
    driver.resume();
    subject.recover(&mut driver);
}

pub fn device_that_was_saved_goes_on(subject: &Subject) {
    let mut driver = subject.running(features::INDIRECT);
    for _ in 0..3 {
        let count = super::lifecycle::fill(subject, &mut driver);
        save(subject, &driver);
        save(subject, &driver);
        driver.resume();
        (0..count).for_each(|_| subject.receive(&mut driver));
    }
}

pub fn device_that_runs_is_not_saved(subject: &Subject) {
    let mut driver = subject.running(0);
    let refusal = driver.save().expect_err("it isn't paused");
    assert_eq!(refusal.to_string(), "test: is running: pause the machine first");
    subject.serve(&mut driver);
}

pub fn device_in_use_takes_no_state(subject: &Subject) {
    let source = subject.driver();
    let Some(section) = save(subject, &source) else { return };
    let mut driver = subject.driver();
    driver.init(0);
    let refusal = driver.load(&section).expect_err("it has a driver");
    assert_eq!(refusal.to_string(), "test: status: this device is in use already");
    subject.serve(&mut driver);
}

/// The device of another machine, which has other memory.
pub fn state_over_another_machines_memory_is_refused(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    let Some(section) = save(subject, &driver) else { return };
    let mut other = subject.driver();
    let refusal = other.load(&section).expect_err("its rings are zeros");
    let queue = subject.expect.queue;
    assert!(refusal.to_string().starts_with(&format!("test: queue {queue}: next_")), "{refusal}");
    subject.recover(&mut other);
}

/// A device with other properties than the one inside it. It doesn't work.
struct Disguised {
    device: Box<dyn VirtioDevice>,
    features: u64,
    queue_sizes: Vec<u16>,
}

impl VirtioDevice for Disguised {
    fn needs(&self) -> Needs {
        self.device.needs()
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.queue_sizes.clone()
    }

    fn config_space(&self) -> ConfigSpace {
        self.device.config_space()
    }

    fn process(&mut self, _queue: usize, _session: &mut Session) -> Result<(), Fault> {
        Ok(())
    }

    fn persistence(&mut self) -> Persistence<'_> {
        self.device.persistence()
    }
}

/// Saves a device with other properties, and expects that one without them refuses the state in this way.
fn refuse(subject: &Subject, change: impl FnOnce(&mut Disguised), id: u32, expected: &str) {
    let device = (subject.make)();
    let (features, queue_sizes) = (device.features(), device.queue_sizes());
    let mut disguised = Disguised { device, features, queue_sizes };
    change(&mut disguised);
    let source = (subject.attach)(Box::new(disguised), id);
    let Some(section) = save(subject, &source) else { return };
    let mut driver = subject.driver();
    let refusal = driver.load(&section).expect_err("it is another device");
    assert!(refusal.to_string().starts_with(expected), "{refusal}");
    subject.recover(&mut driver);
}

/// PCI shows it in its configuration space, which is compared first.
pub fn state_of_another_kind_of_device_is_refused(subject: &Subject) {
    let id = subject.expect.id;
    let expected = ["test: device_id: ", "test: config_space: "][usize::from(subject.is_pci())];
    refuse(subject, |_| (), id + 1, expected);
}

pub fn state_with_another_number_of_queues_is_refused(subject: &Subject) {
    let expected = ["test: queues: has ", "test: config_space: "][usize::from(subject.is_pci())];
    refuse(subject, |disguised| disguised.queue_sizes.push(8), subject.expect.id, expected);
}

pub fn state_with_larger_queues_is_refused(subject: &Subject) {
    let double = |disguised: &mut Disguised| disguised.queue_sizes[0] *= 2;
    refuse(subject, double, subject.expect.id, "test: queue 0: size: ");
}

pub fn state_with_features_that_are_not_offered_is_refused(subject: &Subject) {
    let add = |disguised: &mut Disguised| disguised.features |= 1 << 50;
    refuse(subject, add, subject.expect.id, "test: offered: this device doesn't offer 0x4000000000000");
}

/// Features that the device has learned since aren't offered to a driver that didn't see them at first.
pub fn features_stay_those_that_were_offered(subject: &Subject) {
    let device = (subject.make)();
    let (features, queue_sizes) = (device.features(), device.queue_sizes());
    let source = subject.driver();
    let Some(section) = save(subject, &source) else { return };
    let disguised = Disguised { device, features: features | 1 << 50, queue_sizes };
    let driver = source.beside(Box::new(disguised));
    driver.load(&section).expect("it offers more");
    assert_eq!(driver.control().offered(), source.offered());
}

/// A state of which any byte has changed is refused, and the device is unchanged; or it is a state that the device can have.
pub fn state_with_any_byte_changed_is_refused_or_valid(subject: &Subject) {
    let mut source = subject.running(features::EVENT_IDX);
    subject.serve(&mut source);
    let Some(section) = save(subject, &source) else { return };
    let rings = source.arena.rings();
    let mut fresh = source.beside((subject.make)());
    for changed in changes(&section) {
        if fresh.load(&changed).is_ok() {
            fresh.resume();
            fresh.control().rouse();
            // A request is answered, perhaps by other bytes, such as input in the state.
            fresh.init(0);
            subject.send(&mut fresh);
            let _ = fresh.queue(subject.expect.queue).wait_used();
            drop(fresh);
            source.arena.put_rings(&rings);
            fresh = source.beside((subject.make)());
        }
    }
    // Those that were refused haven't changed it.
    fresh.load(&section).expect("it is as it was");
    assert_eq!(fresh.save().expect("it can be saved"), section);
    fresh.resume();
    subject.serve(&mut fresh);
}

/// The section with one bit or all bits of each byte flipped, and with a few bytes replaced.
fn changes(section: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let flipped = (0..section.len()).flat_map(|at| [(at, 1 << (at % 8)), (at, 0xff)]).map(|(at, mask)| {
        let mut changed = section.to_vec();
        changed[at] ^= mask;
        changed
    });
    let replaced = (0..200).map(|seed| {
        let (mut random, mut changed) = (Random::new(seed), section.to_vec());
        for _ in 0..=random.below(3) {
            let at = random.below(section.len() as u64) as usize;
            changed[at] = random.bits() as u8;
        }
        changed
    });
    flipped.chain(replaced)
}

pub fn state_with_fewer_or_more_bytes_is_refused(subject: &Subject) {
    let mut source = subject.running(0);
    subject.serve(&mut source);
    let Some(section) = save(subject, &source) else { return };
    let mut fresh = source.beside((subject.make)());
    for len in 0..section.len() {
        fresh.load(&section[..len]).expect_err("it has ended");
    }
    fresh.load(&[&section[..], &[0]].concat()).expect_err("something follows");
    fresh.load(&section).expect("it is as it was");
    fresh.resume();
    subject.serve(&mut fresh);
}

/// The ring's index is beyond the queue, and the device hasn't noticed: its state would be refused by whoever loads it.
pub fn device_with_broken_rings_is_not_saved(subject: &Subject) {
    let mut driver = subject.running(0);
    subject.serve(&mut driver);
    driver.suspend();
    let mut queue = driver.queue(subject.expect.queue);
    let size = queue.size();
    queue.set_available_index(size + 2);
    if subject.expect.refusal.is_none() {
        let index = subject.expect.queue;
        let refusal = driver.save().expect_err("its driver has broken the rings").to_string();
        let expected = format!("test: queue {index}: next_available: 1 is {} behind", size + 1);
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
    driver.resume();
    driver.control().kick(subject.expect.queue as u32);
    driver.wait_needs_reset();
    subject.recover(&mut driver);
}

/// What a driver writes while the machine is paused, it would also read there.
pub fn selectors_are_kept(subject: &Subject) {
    let driver = subject.driver();
    driver.write(Register::DeviceFeaturesSel, 1);
    driver.write(Register::QueueSel, 7777);
    if let Ok(restored) = move_with_selectors(subject, driver) {
        assert_ne!(restored.read(Register::DeviceFeatures) & 1, 0, "VIRTIO_F_VERSION_1");
        assert_eq!(restored.read(Register::QueueSizeMax), 0);
    }
}

fn move_with_selectors(subject: &Subject, driver: Driver) -> Result<Driver, Box<Driver>> {
    let Some(section) = save(subject, &driver) else { return Err(Box::new(driver)) };
    let restored = driver.beside((subject.make)());
    restored.load(&section).expect("it is another one of the same kind");
    Ok(restored)
}
