//! What a state says is checked before anything of it is taken over.

use proptest::prelude::*;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use super::Scripted;
use crate::control_state::ControlState;
use crate::testing::{Driver, Register, features, status};
use crate::{ConfigSpace, FieldReader, MmioState, PciState, Persistence, Session, State};

/// A device without a state of its own, with two queues, and a byte that the driver may write.
struct Plain;

impl crate::VirtioDevice for Plain {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![16, 16]
    }

    fn config_space(&self) -> ConfigSpace {
        ConfigSpace::new([1, 2, 3], 1..2)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), crate::Fault> {
        session.drain(queue, |_| Ok(crate::Step::Used(0)))
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Stateless
    }
}

/// The state of a device after this many steps of a probe, suspended, and a fresh one over the same memory.
fn saved(steps: usize) -> (ControlState, Driver) {
    let mut driver = Driver::new(Box::new(Plain), 42);
    if steps > 0 {
        assert!(driver.negotiate(features::EVENT_IDX));
        driver.write_config(1, &[9]);
    }
    if steps > 1 {
        (0..2).for_each(|queue| driver.set_up_queue(queue, 16));
        driver.driver_ok();
    }
    driver.suspend();
    let state = driver.control().save().expect("it is at rest");
    let fresh = driver.beside(Box::new(Plain));
    (state, fresh)
}

/// Why a fresh device refuses what `change` makes of the state of a running one.
fn refusal(change: impl FnOnce(&mut ControlState)) -> String {
    let (mut state, fresh) = saved(2);
    change(&mut state);
    let refusal = fresh.control().load(&state).expect_err("it is impossible");
    assert_eq!((fresh.status(), fresh.config(0, 3)), (0, vec![1, 2, 3]), "nothing has changed");
    let text = refusal.to_string();
    text.strip_prefix("test: ").expect("it names the device").to_owned()
}

#[test]
fn state_of_a_driver_is_taken_over() {
    for steps in 0..3 {
        let (state, fresh) = saved(steps);
        fresh.control().load(&state).expect("it is of the same kind");
        assert_eq!(fresh.control().save().expect("it is at rest"), state);
        assert_eq!(fresh.config(0, 3), [1, if steps > 0 { 9 } else { 2 }, 3]);
    }
}

#[test]
fn device_that_is_another_is_refused() {
    assert_eq!(refusal(|state| state.device_id = 7), "device_id: 7 is another device: this one is 42");
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let accepted = refusal(|state| state.accepted |= 1 << 5);
    assert_eq!(accepted, "accepted: 0x120000020 weren't offered (0x130000000)");
    assert_eq!(refusal(|state| state.accepted = 0), "accepted: 0x0 weren't offered (0x130000000)");
    assert_eq!(refusal(|state| state.offered |= 1 << 7), "offered: this device doesn't offer 0x80");
    assert_eq!(refusal(|state| state.offered = 0), "offered: is without VIRTIO_F_VERSION_1");
}

#[test]
fn status_that_no_driver_can_reach_is_refused() {
    for bits in [status::DRIVER_OK, 3 | status::DRIVER_OK, 2, 8 | 1, 0x10, status::NEEDS_RESET | 0xf] {
        let text = refusal(|state| state.status = bits);
        assert_eq!(text, format!("status: {bits:#x} can't be reached by a driver"));
    }
}

#[test]
fn reset_needed_before_the_start_is_refused() {
    let text = refusal(|state| (state.status, state.needs_reset) = (0xb, true));
    assert_eq!(text, "needs_reset: is set for a device that hasn't been started");
}

#[test]
fn queues_and_configuration_of_another_shape_are_refused() {
    assert_eq!(refusal(|state| _ = state.queues.pop()), "queues: has 1, this device 2");
    assert_eq!(refusal(|state| state.config.push(0)), "config: has 4 bytes, this device 3");
}

#[test]
fn size_of_a_queue_that_is_impossible_is_refused() {
    for size in [0, 3, 32] {
        let text = refusal(|state| state.queues[1].size = size);
        assert_eq!(text, format!("queue 1: size: {size} isn't a power of two up to 16"));
    }
}

#[test]
fn position_that_does_not_fit_is_refused() {
    assert_eq!(refusal(|state| state.queues[1].position = None), "queue 1: position: doesn't fit the status");
    let unready = refusal(|state| state.queues[0].ready = false);
    assert_eq!(unready, "queue 0: position: doesn't fit the status");
    let unstarted = refusal(|state| state.status = 0xb);
    assert_eq!(unstarted, "queue 0: position: doesn't fit the status");
}

#[test]
fn rings_outside_memory_are_refused() {
    let text = refusal(|state| state.queues[1].used = 1 << 40);
    assert_eq!(text, "queue 1: rings: aren't in memory or are misaligned");
    let text = refusal(|state| state.queues[1].descriptors |= 1);
    assert_eq!(text, "queue 1: rings: aren't in memory or are misaligned");
}

#[test]
fn position_that_isn_t_in_memory_is_refused() {
    let position = |available, used| Some(crate::queue::RingPosition { available, used });
    let ahead = refusal(|state| state.queues[0].position = position(1, 0));
    assert_eq!(ahead, "queue 0: next_available: 1 is 65535 behind the available ring in memory");
    let used = refusal(|state| state.queues[0].position = position(0, 1));
    assert_eq!(used, "queue 0: next_used: 1 isn't the used ring's index in memory, 0");
}

/// A device that needs a reset doesn't use its rings, which may be the reason.
#[test]
fn rings_of_a_device_that_needs_a_reset_may_be_anything() {
    let (mut state, fresh) = saved(2);
    state.needs_reset = true;
    state.queues[1].used = 1 << 40;
    state.queues[0].position = None;
    fresh.control().load(&state).expect("a driver can do that");
    fresh.resume();
    fresh.control().rouse();
    assert!(fresh.needs_reset());
}

/// The driver has moved the used ring's index: a state over this memory would be refused.
#[test]
fn device_whose_used_ring_was_changed_is_not_saved() {
    let mut driver = Driver::new(Box::new(Plain), 42);
    driver.init(0);
    let [_, _, used] = driver.queue(1).addresses();
    driver.suspend();
    driver.ram().memory().write_obj(7_u16, GuestAddress(used + 2)).unwrap();
    let refusal = driver.save().unwrap_err().to_string();
    assert_eq!(refusal, "test: queue 1: next_used: 0 isn't the used ring's index in memory, 7");
}

#[test]
fn device_without_a_persistence_is_refused_by_name() {
    let driver = Scripted::new(|_| Ok(())).driver();
    assert_eq!(driver.save().unwrap_err().to_string(), "test: a device of this kind can't be saved");
}

#[test]
fn device_whose_thread_has_panicked_is_refused() {
    let mut driver = Scripted::new(|_| panic!("on purpose")).running(0);
    driver.queue(0).add(&[crate::testing::Buf::Write(1)]);
    driver.queue(0).notify();
    driver.wait_needs_reset();
    driver.suspend();
    let refusal = driver.save().unwrap_err().to_string();
    assert_eq!(refusal, "test: its thread has panicked, which is a bug in the monitor");
}

#[test]
fn interrupt_status_with_other_bits_is_refused() {
    let driver = Driver::new(Box::new(Plain), 42);
    let mut section = driver.save().unwrap();
    // The fourth field.
    section[12] = 4;
    let fresh = driver.beside(Box::new(Plain));
    assert_eq!(fresh.load(&section).unwrap_err().to_string(), "test: interrupt_status: 0x4 has unknown bits");
}

/// Interrupts that the source had raised, and that the driver hadn't handled.
#[test]
fn interrupt_status_is_kept_until_it_is_acknowledged() {
    let mut driver = Driver::new(Box::new(Plain), 42);
    driver.init(0);
    driver.queue(0).add(&[crate::testing::Buf::Write(1)]);
    driver.queue(0).notify();
    driver.queue(0).poll_used_index(1);
    driver.suspend();
    let fresh = driver.beside(Box::new(Plain));
    fresh.load(&driver.save().unwrap()).unwrap();
    assert_eq!(fresh.read(Register::InterruptStatus), 1);
}

/// Any bytes, and those of a running device with some of them changed.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let of = |function: bool| {
        let attach = if function { Driver::new_pci } else { Driver::new };
        let mut driver = attach(Box::new(Plain), 42);
        driver.init(0);
        driver.suspend();
        driver.save().expect("it is at rest")
    };
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let changed = (prop::sample::select(vec![of(false), of(true)]), changes);
    let changed = changed.prop_map(|(mut section, changes)| {
        for (at, byte) in changes {
            let at = at.index(section.len());
            section[at] = byte;
        }
        section
    });
    prop_oneof![changed, any::<Vec<u8>>()]
}

/// A state that can be read is written as it was read.
fn reads_as_written<S: State>(section: &[u8]) {
    let mut fields = FieldReader::new(section);
    let Ok(state) = S::load(S::VERSION, &mut fields) else { return };
    if fields.finish().is_ok() {
        let mut written = crate::FieldWriter::new();
        state.save(&mut written);
        assert_eq!(written.into_bytes(), section);
    }
}

proptest! {
    #[test]
    fn section_of_any_bytes_is_read_as_written_or_refused(section in bytes()) {
        reads_as_written::<MmioState>(&section);
        reads_as_written::<PciState>(&section);
    }
}
