//! Work on several values at the same time.

use std::sync::Mutex;
use std::thread::{self, ScopedJoinHandle};

/// Calls `each` for all `values`, each on a thread of its own as far as the host has threads, and returns the results in order;
/// `None` for those that have panicked.
pub(crate) fn in_parallel<T: Send, R: Send>(values: Vec<T>, each: impl Fn(T) -> R + Sync) -> Vec<Option<R>> {
    // A thread that can't be started must not own its value.
    let values: Vec<_> = values.into_iter().map(|value| Mutex::new(Some(value))).collect();
    let work = |kept: &Mutex<Option<T>>| {
        let value = kept.lock().ok().and_then(|mut kept| kept.take());
        value.map(&each)
    };
    thread::scope(|scope| {
        let work = &work;
        let start = |kept| thread::Builder::new().spawn_scoped(scope, move || work(kept)).map_err(|_| kept);
        let started: Vec<_> = values.iter().map(start).collect();
        let result = |started: Result<ScopedJoinHandle<'_, _>, _>| match started {
            Ok(thread) => thread.join().ok().flatten(),
            // The host can't create a thread: on this one.
            Err(kept) => work(kept),
        };
        started.into_iter().map(result).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Each waits for the others.
    #[test]
    fn values_are_worked_on_at_the_same_time_and_keep_their_order() {
        let barrier = Barrier::new(3);
        let results = in_parallel(vec![1, 2, 3], |value| {
            barrier.wait();
            10 * value
        });
        assert_eq!(results, [Some(10), Some(20), Some(30)]);
    }

    #[test]
    fn value_whose_work_panics_has_no_result() {
        let results = in_parallel(vec![1, 0], |value| 1 / value);
        assert_eq!(results, [Some(1), None]);
    }
}
