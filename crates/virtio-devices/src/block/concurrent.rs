//! Requests that complete on stable storage, while others are in flight.
//!
//! Linux reports an error of writing back a file once for each open file description: of several fdatasync(2) at the same
//! time, one fails and the others succeed, although the lost data may have been theirs. The one that fails has asked for
//! errors before the others did, so it is in flight when they complete, or has completed. Therefore a request is held until
//! all those that were in flight at its completion have completed, too. Later ones don't matter, so none is held forever.

use std::collections::VecDeque;

/// Such requests, each with its `T`.
#[derive(Debug)]
pub(super) struct Concurrent<T> {
    /// Number of the next request.
    next: u64,
    /// The numbers of those in flight.
    in_flight: Vec<u64>,
    /// Those that have completed, each with what `next` was then.
    held: VecDeque<(u64, T)>,
}

impl<T> Concurrent<T> {
    /// Allocates for `depth` requests in flight.
    pub(super) fn new(depth: u16) -> Self {
        let depth = depth.into();
        Self { next: 0, in_flight: Vec::with_capacity(depth), held: VecDeque::with_capacity(depth) }
    }

    /// A request is submitted. Returns its number.
    pub(super) fn begin(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.in_flight.push(number);
        number
    }

    /// The request with this number has completed. It is held.
    pub(super) fn complete(&mut self, number: u64, with: T) {
        self.cancel(number);
        self.held.push_back((self.next, with));
    }

    /// The request with this number wasn't submitted after all.
    pub(super) fn cancel(&mut self, number: u64) {
        self.in_flight.retain(|other| *other != number);
    }

    /// Takes a completed request out that isn't held any more.
    pub(super) fn take(&mut self) -> Option<T> {
        let (end, _) = self.held.front()?;
        if self.in_flight.iter().any(|number| number < end) {
            return None;
        }
        self.held.pop_front().map(|(_, with)| with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_in_flight() -> (Concurrent<char>, [u64; 2]) {
        let mut requests = Concurrent::new(4);
        let numbers = [requests.begin(), requests.begin()];
        (requests, numbers)
    }

    #[test]
    fn request_alone_is_not_held() {
        let mut requests = Concurrent::new(4);
        let number = requests.begin();
        requests.complete(number, 'a');
        assert_eq!(requests.take(), Some('a'));
    }

    #[test]
    fn request_is_held_until_one_submitted_before_it_has_completed() {
        let (mut requests, [first, second]) = two_in_flight();
        requests.complete(second, 'b');
        assert_eq!(requests.take(), None);
        requests.complete(first, 'a');
        assert_eq!([requests.take(), requests.take(), requests.take()], [Some('b'), Some('a'), None]);
    }

    #[test]
    fn request_is_held_until_one_submitted_after_it_has_completed() {
        let (mut requests, [first, second]) = two_in_flight();
        requests.complete(first, 'a');
        assert_eq!(requests.take(), None);
        requests.complete(second, 'b');
        assert_eq!([requests.take(), requests.take()], [Some('a'), Some('b')]);
    }

    /// Else a guest that always has some in flight would wait forever.
    #[test]
    fn request_is_not_held_by_one_submitted_after_it_has_completed() {
        let (mut requests, [first, second]) = two_in_flight();
        requests.complete(first, 'a');
        requests.begin();
        requests.complete(second, 'b');
        assert_eq!([requests.take(), requests.take()], [Some('a'), None]);
    }

    #[test]
    fn request_that_is_not_submitted_holds_none() {
        let (mut requests, [first, second]) = two_in_flight();
        requests.complete(first, 'a');
        requests.cancel(second);
        assert_eq!(requests.take(), Some('a'));
    }
}
