//! What every device has to stand, as tests that it gets with one line.
//!
//! ```
//! # use vmm_virtio::{Fault, Session, Step, VirtioDevice};
//! # struct Sevens;
//! # impl VirtioDevice for Sevens {
//! #     fn queue_sizes(&self) -> Vec<u16> { vec![8] }
//! #     fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
//! #         session.drain(queue, |_| Ok(Step::Used(0)))
//! #     }
//! # }
//! use vmm_virtio::testing::Expectations;
//!
//! vmm_virtio::conformance!(
//!     sevens,
//!     || Box::new(Sevens),
//!     Expectations { id: 42, queues: &[8], writable: 16, written: 16, ..Expectations::NONE }
//! );
//! # fn main() {}
//! ```

#[doc(hidden)]
pub mod hostile;
#[doc(hidden)]
pub mod identity;
#[doc(hidden)]
pub mod lifecycle;
#[doc(hidden)]
pub mod malformed;
#[doc(hidden)]
pub mod registers;
#[doc(hidden)]
pub mod rings;
#[doc(hidden)]
pub mod service;

use super::{Buf, Driver, Used};
use crate::VirtioDevice;

/// What is to be expected of a device, among that a request that it answers at once and any number of times.
#[derive(Clone, Copy, Debug)]
pub struct Expectations {
    /// Its virtio device id.
    pub id: u32,
    /// What it offers, without the features that the transport adds.
    pub features: u64,
    /// The sizes of its queues.
    pub queues: &'static [u16],
    /// The queue that takes the request.
    pub queue: usize,
    /// What the device reads of the request.
    pub readable: &'static [u8],
    /// How much room the request has for the answer.
    pub writable: u32,
    /// How many bytes the device says that it wrote.
    pub written: u32,
    /// Looks at all of the answer's room.
    pub check: fn(&[u8]),
}

impl Expectations {
    /// A queue and an answer don't go without saying: those of a device that there isn't.
    pub const NONE: Self = Self {
        id: 0,
        features: 0,
        queues: &[],
        queue: 0,
        readable: &[],
        writable: 0,
        written: 0,
        check: |_| {},
    };
}

/// A device under test.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    make: fn() -> Box<dyn VirtioDevice>,
    expect: Expectations,
}

impl Subject {
    pub fn new(make: fn() -> Box<dyn VirtioDevice>, expect: Expectations) -> Self {
        Self { make, expect }
    }

    /// A driver with a new device, not initialised.
    fn driver(&self) -> Driver {
        Driver::new((self.make)(), self.expect.id)
    }

    /// A driver whose device runs.
    fn running(&self, features: u64) -> Driver {
        let mut driver = self.driver();
        driver.init(features);
        driver
    }

    /// The request's buffers.
    fn bufs(&self) -> Vec<Buf<'static>> {
        let mut bufs = Vec::new();
        if !self.expect.readable.is_empty() {
            bufs.push(Buf::Read(self.expect.readable));
        }
        if self.expect.writable > 0 {
            bufs.push(Buf::Write(self.expect.writable));
        }
        bufs
    }

    fn check(&self, used: &Used) {
        assert_eq!(used.len, self.expect.written, "bytes written");
        (self.expect.check)(&used.bytes);
    }

    /// Makes the request available and rings.
    fn send(&self, driver: &mut Driver) {
        let mut queue = driver.queue(self.expect.queue);
        queue.add(&self.bufs());
        queue.kick();
    }

    /// Takes the answer.
    fn receive(&self, driver: &mut Driver) {
        self.check(&driver.queue(self.expect.queue).wait_used());
    }

    /// The device answers the request.
    fn serve(&self, driver: &mut Driver) {
        self.send(driver);
        self.receive(driver);
    }

    /// Whatever was done to it, it is reset, initialised and answers.
    fn recover(&self, driver: &mut Driver) {
        driver.init(0);
        self.serve(driver);
    }
}

/// Tests of a device in a module called `$name`: `$make` is a function that makes the device, `$expect` the
/// [`Expectations`](crate::testing::Expectations) of it.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $make:expr, $expect:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn subject() -> $crate::testing::conformance::Subject {
                $crate::testing::conformance::Subject::new($make, $expect)
            }

            $crate::conformance_cases! {
                identity: [
                    registers_say_what_it_is,
                    features_offered_are_those_expected,
                    features_not_offered_are_refused,
                    features_without_version_1_are_refused,
                    features_refused_can_be_chosen_anew,
                    queues_are_those_expected,
                    configuration_can_be_read_at_every_offset,
                ],
                service: [
                    request_is_served,
                    request_with_event_idx_is_served,
                    request_in_an_indirect_table_is_served,
                    request_behind_a_descriptor_in_an_indirect_table_is_served,
                    request_in_any_number_of_descriptors_is_served,
                    request_with_descriptors_of_length_zero_is_served,
                    request_across_two_regions_is_served,
                    request_above_4_gib_is_served,
                    queue_full_of_requests_is_served,
                    queue_of_the_smallest_size_serves,
                    queue_of_no_possible_size_keeps_its_own,
                    interrupts_switched_off_stay_off,
                    interrupts_switched_off_by_event_idx_stay_off,
                    interrupt_comes_when_used_event_is_passed,
                ],
                registers: [
                    queue_before_features_ok_is_not_set_up,
                    queue_behind_driver_ok_is_frozen,
                    queue_that_is_ready_is_frozen,
                    features_behind_features_ok_are_frozen,
                    features_before_driver_are_ignored,
                    status_bits_out_of_order_are_ignored,
                    status_bits_cannot_be_cleared,
                    selectors_at_their_extremes_reach_nothing,
                    notification_in_any_state_is_harmless,
                    accesses_of_any_width_at_any_offset_are_survived,
                    accesses_at_random_are_survived,
                ],
                lifecycle: [
                    reset_makes_everything_as_it_was,
                    reset_with_chains_in_flight_ends,
                    reset_right_behind_driver_ok_ends,
                    reset_twice_at_once_ends,
                    suspend_keeps_what_comes_meanwhile,
                    suspend_with_chains_in_flight_loses_none,
                    suspend_with_chains_in_flight_and_event_idx_loses_none,
                    suspend_twice_is_once,
                    suspend_of_a_fresh_device_is_nothing,
                    suspend_during_a_reset_waits_for_it,
                    reset_of_a_suspended_device_is_a_reset,
                    power_cycle_makes_the_device_as_it_was_opened,
                    power_cycle_with_chains_in_flight_ends,
                    power_cycle_of_a_broken_device_mends_it,
                    needs_reset_survives_suspend_and_resume,
                ],
                malformed: [
                    chain_with_a_loop_needs_reset,
                    chain_with_next_out_of_range_needs_reset,
                    chain_with_its_head_out_of_range_needs_reset,
                    chain_with_a_readable_behind_a_writable_needs_reset,
                    chain_longer_than_the_queue_needs_reset,
                    indirect_without_negotiation_needs_reset,
                    indirect_in_indirect_needs_reset,
                    indirect_with_next_needs_reset,
                    indirect_of_no_length_needs_reset,
                    indirect_of_half_a_descriptor_needs_reset,
                    indirect_table_outside_memory_needs_reset,
                    indirect_table_at_the_end_of_addresses_needs_reset,
                    indirect_table_with_next_out_of_range_needs_reset,
                    indirect_table_with_a_loop_needs_reset,
                    buffer_past_the_end_of_memory_needs_reset,
                    buffer_across_the_end_of_memory_needs_reset,
                    buffer_into_the_gap_needs_reset,
                    buffer_across_the_end_of_addresses_needs_reset,
                    buffer_of_4_gib_needs_reset,
                    available_index_that_jumps_needs_reset,
                    available_index_that_goes_back_needs_reset,
                ],
                rings: [
                    descriptors_outside_memory_need_reset,
                    descriptors_misaligned_need_reset,
                    available_ring_outside_memory_needs_reset,
                    available_ring_misaligned_needs_reset,
                    used_ring_outside_memory_needs_reset,
                    used_ring_misaligned_needs_reset,
                    used_ring_across_the_gap_needs_reset,
                    rings_at_the_end_of_addresses_need_reset,
                    rings_one_over_the_other_are_survived,
                    queue_that_is_not_ready_is_left_alone,
                ],
                hostile: [
                    short_requests_are_survived,
                    chain_made_available_twice_is_survived,
                    memory_that_changes_under_the_device_is_survived,
                    chains_without_end_do_not_hold_up_a_stop,
                ],
            }
        }
    };
}

/// A test for each case of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($($module:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        $(mod $module {
            $(#[test]
            fn $case() {
                $crate::testing::conformance::$module::$case(&super::subject());
            })*
        })*
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fault, Session, Step};

    /// Writes back what it reads, to the end of the shorter part.
    struct Echo;

    impl VirtioDevice for Echo {
        fn queue_sizes(&self) -> Vec<u16> {
            vec![16, 32]
        }

        fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
            session.drain(queue, |chain| {
                let len = chain.readable().len().min(chain.writable().len()).min(64);
                let mut bytes = vec![0; len as usize];
                chain.readable().read(&mut bytes)?;
                chain.writable().write(&bytes)?;
                Ok(Step::Used(len as u32))
            })
        }
    }

    crate::conformance!(
        echo,
        || Box::new(Echo),
        Expectations {
            id: 42,
            queues: &[16, 32],
            queue: 1,
            readable: b"some bytes",
            writable: 10,
            written: 10,
            check: |bytes| assert_eq!(bytes, b"some bytes"),
            ..Expectations::NONE
        }
    );
}
