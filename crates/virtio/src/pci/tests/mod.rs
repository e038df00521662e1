//! The function against a model, and what the conformance suite can't reach.

mod bench;
mod function_model;
mod interrupts;
mod registers_model;
mod steps;

use proptest::prelude::*;

use bench::Bench;
use function_model::{FunctionModel, WINDOW};
use steps::{Step, steps};

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// What is read, where the BAR is decoded, which messages were sent and which are pending, and the queues that the device is
    /// started with.
    #[test]
    fn function_is_as_the_model_has_it(steps in steps()) {
        let (bench, mut model) = (Bench::new(), FunctionModel::new());
        for step in &steps {
            let (read, expected) = (bench.take(step), model.take(step));
            prop_assert_eq!(read, expected, "{:x?}", step);
            let (seen, expected) = (bench.seen(), model.seen());
            prop_assert!(seen.decoded.is_none_or(|at| bench.can_decode(0, at)), "after {:x?}", step);
            prop_assert_eq!(seen, expected, "after {:x?}", step);
        }
    }
}

#[test]
fn bar_where_no_guest_can_put_it_is_not_decoded() {
    let bench = Bench::new();
    assert!(bench.can_decode(0, WINDOW.start));
    assert!(!bench.can_decode(0, WINDOW.start + 0x1000), "not aligned");
    assert!(!bench.can_decode(0, WINDOW.end), "outside of the window");
    assert!(!bench.can_decode(2, WINDOW.start), "it has one BAR");
}

/// The steps reach what the model is about: without this, a change of the strategies could leave the property without contents.
#[test]
fn steps_reach_a_started_device_messages_and_moves() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut started, mut sent, mut moved, mut refused, mut failed) = (0, 0, 0, 0, 0);
    for _ in 0..100 {
        let mut model = FunctionModel::new();
        let steps: Vec<Step> = steps().new_tree(&mut runner).expect("a value").current();
        steps.iter().for_each(|step| _ = model.take(step));
        let seen = model.seen();
        started += usize::from(!seen.starts.is_empty());
        sent += usize::from(!seen.sent.is_empty());
        moved += usize::from(seen.moves > 1);
        refused += usize::from(seen.refused > 0);
        failed += model.faults;
    }
    for (what, count) in
        [("started", started), ("sent", sent), ("moved", moved), ("refused", refused), ("failed", failed)]
    {
        assert!(count >= 10, "{what}: {count} of 100");
    }
}
