//! How long the steps of something took, for the log.

use std::fmt;
use std::time::Instant;

/// The time that each step has taken. Displayed as `350 us (jail 210, Landlock 140)`.
#[derive(Clone, Debug)]
pub struct StepTimes {
    last: Instant,
    steps: Vec<(&'static str, u128)>,
}

impl StepTimes {
    /// The first step began at `began`.
    #[must_use]
    pub fn since(began: Instant) -> Self {
        Self { last: began, steps: Vec::new() }
    }

    /// The step `name` is done.
    pub fn add(&mut self, name: &'static str) {
        let now = Instant::now();
        self.steps.push((name, now.duration_since(self.last).as_micros()));
        self.last = now;
    }
}

impl fmt::Display for StepTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u128 = self.steps.iter().map(|(_, time)| time).sum();
        let steps: Vec<_> = self.steps.iter().map(|(name, time)| format!("{name} {time}")).collect();
        write!(f, "{all} us ({})", steps.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_displayed_with_their_sum() {
        let times = StepTimes { last: Instant::now(), steps: vec![("jail", 210), ("Landlock", 140)] };
        assert_eq!(times.to_string(), "350 us (jail 210, Landlock 140)");
    }
}
