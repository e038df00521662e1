//! Waiting for jobs, with an ear for whoever wants to end the monitor.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Supervisor;
use super::offloaded::Offloaded;
use super::patience::{END_PATIENCE, NOTICE, START_PATIENCE};
use crate::ending::Late;
use crate::job::{Job, Progress};
use crate::{Ending, Error};

/// How waiting ended.
enum Waited<T> {
    Done(T),
    Ended(Ending),
    Late,
}

impl Supervisor {
    /// Does `work`, which prepares a start, on another thread, and hears meanwhile whether the user wants to end the monitor.
    /// If so, the work has a second to come to its end; what it made is dropped. If that isn't enough it is left alone, to end
    /// with the process.
    ///
    /// # Errors
    /// It panicked, or the event loop failed.
    pub fn offload<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<Offloaded<T>, Error> {
        let job = self.start_job("starting", work);
        self.offloaded(job, START_PATIENCE, Late::Starting)
    }

    /// Waits for a job that may not come to its end, because somebody wants to end the monitor. `late` is where a run was whose
    /// time is up in it.
    pub(super) fn offloaded<T: Send + 'static>(
        &mut self,
        mut job: Job<T>,
        patience: Duration,
        late: fn(String) -> Late,
    ) -> Result<Offloaded<T>, Error> {
        let ending = match self.wait_for(&mut job, None, |_| true)? {
            Waited::Done(done) => return Ok(Offloaded::Done(done)),
            Waited::Ended(Ending::TimeIsUp(_)) => Ending::TimeIsUp(late(job.progress().text())),
            Waited::Ended(ending) => ending,
            // Never, without a limit.
            Waited::Late => Ending::Quit,
        };
        if let Some(done) = self.finish_job(&mut job, patience)? {
            self.discard(done);
        }
        Ok(Offloaded::Ended(ending))
    }

    /// Does `work`, which ends something, on another thread. Whoever wants to end the monitor need not wait longer than that takes,
    /// or than [`END_PATIENCE`].
    pub(super) fn finish<T: Send + 'static>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Option<T> {
        let mut job = self.start_job(what, work);
        match self.finish_job(&mut job, END_PATIENCE) {
            Ok(done) => done,
            Err(error) => {
                warn!("{error}");
                None
            }
        }
    }

    /// Drops what may wait for a file when it is dropped.
    pub(super) fn discard<T: Send + 'static>(&mut self, value: T) {
        self.finish("closing files", move |_| drop(value));
    }

    pub(super) fn start_job<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Job<T> {
        Job::start(what, Arc::clone(&self.job_done), work)
    }

    /// Waits for a job without which the monitor could end. `None` if it took too long, or the user, who has asked for the end
    /// already, asks once more.
    fn finish_job<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        patience: Duration,
    ) -> Result<Option<T>, Error> {
        let begun = Instant::now();
        if let Waited::Done(done) = self.wait_for(job, Some(begun + NOTICE.min(patience)), |_| false)? {
            return Ok(Some(done));
        }
        let doing = job.progress().text();
        // Who couldn't wait for a second needn't ask a third time.
        let is_asked_twice = self.asked_for.as_ref().is_some_and(Ending::is_asked_for);
        if patience > NOTICE && !is_asked_twice {
            let left = patience - NOTICE;
            warn!(
                "still {doing}; another signal or Ctrl-A x ends the monitor without waiting, as does a timeout in {left:?}"
            );
            if let Waited::Done(done) = self.wait_for(job, Some(begun + patience), Ending::is_asked_for)? {
                return Ok(Some(done));
            }
        }
        warn!("left unfinished: {}", job.progress().text());
        Ok(None)
    }

    /// Runs the event loop until the job is done, the time is over, or something asks for an end that is heeded.
    fn wait_for<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        until: Option<Instant>,
        is_heeded: fn(&Ending) -> bool,
    ) -> Result<Waited<T>, Error> {
        loop {
            if let Some(result) = job.take() {
                return result.map(Waited::Done).map_err(|_| Error::JobPanicked);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(Waited::Late);
            }
            while let Ok(message) = self.messages.1.try_recv() {
                match self.heed_without_guest(message, &job.progress().text()) {
                    Some(ending) if is_heeded(&ending) => return Ok(Waited::Ended(ending)),
                    Some(ending) => self.asked_for = self.asked_for.take().or(Some(ending)),
                    None => {}
                }
            }
            self.turn(until)?;
        }
    }

    /// A turn of the event loop.
    pub(super) fn turn(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let turned = match until {
            None => self.events.run(),
            Some(until) => {
                // Rounded up: the last millisecond is waited for too.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
                self.events.run_with_timeout(left.as_millis().try_into().unwrap_or(i32::MAX))
            }
        };
        turned.map(drop).map_err(Error::EventLoop)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::Timeouts;

    #[test]
    fn job_that_hangs_is_left_when_its_time_is_over() {
        let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
        let (release, released) = channel::<()>();
        let mut job = supervisor.start_job("starting", move |_| released.recv());
        assert!(supervisor.finish_job(&mut job, Duration::from_millis(20)).unwrap().is_none());
        release.send(()).unwrap();
        assert_eq!(supervisor.finish_job(&mut job, Duration::from_secs(10)).unwrap(), Some(Ok(())));
    }

    #[test]
    fn run_whose_time_is_up_leaves_work_that_is_not_done() {
        let timeouts = Timeouts { run: Some(Instant::now()), ..Timeouts::default() };
        let mut supervisor = Supervisor::new(Instant::now(), timeouts).unwrap();
        let (_release, released) = channel::<()>();
        let offloaded = supervisor.offload(move |_| released.recv()).unwrap();
        assert!(matches!(offloaded, Offloaded::Ended(Ending::TimeIsUp(_))), "{offloaded:?}");
    }
}
