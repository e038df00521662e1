//! Waits for jobs while the event loop keeps running, so that the user can end the monitor.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Supervisor;
use super::offloaded::Offloaded;
use super::patience::{END_PATIENCE, LAST_PATIENCE, NOTICE, START_PATIENCE};
use crate::ending::TimeoutPhase;
use crate::job::{Job, Progress};
use crate::{Ending, Error};

/// The result of waiting for a job.
enum WaitResult<T> {
    Done(T),
    Ended(Ending),
    TimedOut,
}

impl Supervisor {
    /// Does `work`, which prepares a start, on another thread, while the event loop runs. If the user ends the monitor
    /// meanwhile, the work has one second to finish, and its result is dropped. After that its thread is abandoned until the
    /// process exits.
    ///
    /// # Errors
    /// The work panicked, or the event loop failed. Or the jobs' thread is occupied by abandoned work, and the host can't create
    /// another.
    pub fn offload<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<Offloaded<T>, Error> {
        let mut job = self.start_job("starting", work);
        let offloaded = self.offloaded(&mut job, TimeoutPhase::Starting)?;
        if let Offloaded::Ended(_) = &offloaded {
            job.progress().cancel();
            if let Some(done) = self.finish_job(&mut job, START_PATIENCE)? {
                self.discard(done);
            }
        }
        Ok(offloaded)
    }

    /// Waits for a job, which an end of the monitor interrupts. It is then unfinished. `late` is the phase of the ending if the run
    /// times out.
    pub(super) fn offloaded<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        late: fn(String) -> TimeoutPhase,
    ) -> Result<Offloaded<T>, Error> {
        let until = job.delayed_by().map(|_| Instant::now() + LAST_PATIENCE);
        let ending = match self.wait_for(job, until, |_| true)? {
            WaitResult::Done(done) => return Ok(Offloaded::Done(done)),
            WaitResult::Ended(Ending::TimedOut(_)) => Ending::TimedOut(late(job.progress().text())),
            WaitResult::Ended(ending) => ending,
            // Only a delayed job has a time limit.
            WaitResult::TimedOut => {
                let error = job.delayed_by().map_or(io::ErrorKind::TimedOut.into(), copy);
                return Err(Error::Host { what: "thread of a job", source: error });
            }
        };
        Ok(Offloaded::Ended(ending))
    }

    /// Does `work`, which stops or closes something, on another thread. `None` if it isn't done after [`END_PATIENCE`], or if
    /// the user asks once more to end the monitor.
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

    /// Drops `value` on another thread, for values whose drop may block on storage, as closing or removing a file may. The user can
    /// end the wait, as that for a device that stops.
    pub fn discard<T: Send + 'static>(&mut self, value: T) {
        self.finish("closing files", move |_| drop(value));
    }

    pub(super) fn start_job<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Job<T> {
        let job = Job::start(&self.worker, what, Arc::clone(&self.job_done), work);
        if let Some(error) = job.delayed_by() {
            warn!("{what}: thread of a job: {error}; it waits for the thread of unfinished work");
        }
        job
    }

    /// Waits for a job that the monitor can exit without. `None` if it takes longer than `patience`, or if the user asks once
    /// more for the end that is already under way. A job that is delayed waits for one that has had its time: it has only
    /// [`LAST_PATIENCE`], or the time limits of all would add up.
    pub(super) fn finish_job<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        patience: Duration,
    ) -> Result<Option<T>, Error> {
        if job.delayed_by().is_none()
            && let Some(done) = self.wait_patiently(job, patience)?
        {
            return Ok(Some(done));
        }
        job.progress().cancel();
        let until = Some(Instant::now() + LAST_PATIENCE.min(patience));
        if let WaitResult::Done(done) = self.wait_for(job, until, |_| false)? {
            return Ok(Some(done));
        }
        warn!("left unfinished: {}", job.progress().text());
        Ok(None)
    }

    /// Waits for a job, which isn't asked to give up yet.
    fn wait_patiently<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        patience: Duration,
    ) -> Result<Option<T>, Error> {
        let begun = Instant::now();
        if let WaitResult::Done(done) = self.wait_for(job, Some(begun + NOTICE.min(patience)), |_| false)? {
            return Ok(Some(done));
        }
        let activity = job.progress().text();
        // A second request within the first second counts: the user needn't ask a third time.
        let is_asked_twice = self.requested_ending.as_ref().is_some_and(Ending::ends_waiting);
        if patience > NOTICE && !is_asked_twice {
            let left = patience - NOTICE;
            let keys = if self.consoles.is_empty() { "" } else { " or Ctrl-A x" };
            warn!(
                "still {activity}; another signal{keys} ends the monitor without waiting, as does a timeout in {left:?}"
            );
            match self.wait_for(job, Some(begun + patience), Ending::ends_waiting)? {
                WaitResult::Done(done) => return Ok(Some(done)),
                // For the jobs that follow: the user doesn't ask once for each.
                WaitResult::Ended(ending) => {
                    self.requested_ending = self.requested_ending.take().or(Some(ending))
                }
                WaitResult::TimedOut => {}
            }
        }
        Ok(None)
    }

    /// Runs the event loop until the job is done, `until` has passed, or a message causes an ending that `is_accepted`. The first
    /// ending that isn't accepted is kept in `requested_ending`.
    fn wait_for<T: Send + 'static>(
        &mut self,
        job: &mut Job<T>,
        until: Option<Instant>,
        is_accepted: fn(&Ending) -> bool,
    ) -> Result<WaitResult<T>, Error> {
        loop {
            if let Some(result) = job.take() {
                return result.map(WaitResult::Done).map_err(|_| Error::JobPanicked);
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(WaitResult::TimedOut);
            }
            while let Ok(message) = self.messages.1.try_recv() {
                match self.handle_without_guest(message, &job.progress().text()) {
                    Some(ending) if is_accepted(&ending) => return Ok(WaitResult::Ended(ending)),
                    Some(ending) => self.requested_ending = self.requested_ending.take().or(Some(ending)),
                    None => {}
                }
            }
            self.turn(until)?;
        }
    }

    /// One turn of the event loop, which waits for an event at most until `until`.
    pub(super) fn turn(&mut self, until: Option<Instant>) -> Result<(), Error> {
        // epoll takes whole milliseconds: rounded up.
        let time =
            until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        self.events.turn(time).map(drop)
    }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::Timeouts;

    #[test]
    fn job_that_hangs_is_abandoned_after_its_time_limit() {
        let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
        let (release, released) = channel::<()>();
        let mut job = supervisor.start_job("starting", move |_| released.recv());
        assert!(supervisor.finish_job(&mut job, Duration::from_millis(20)).unwrap().is_none());
        release.send(()).unwrap();
        assert_eq!(supervisor.finish_job(&mut job, Duration::from_secs(10)).unwrap(), Some(Ok(())));
    }

    #[test]
    fn run_that_times_out_abandons_unfinished_work() {
        let timeouts = Timeouts { run: Some(Instant::now()), ..Timeouts::default() };
        let mut supervisor = Supervisor::new(Instant::now(), timeouts).unwrap();
        let (_release, released) = channel::<()>();
        let offloaded = supervisor.offload(move |_| released.recv()).unwrap();
        assert!(matches!(offloaded, Offloaded::Ended(Ending::TimedOut(_))), "{offloaded:?}");
    }

    /// A supervisor whose thread of jobs is occupied until the sender is dropped, on a host that is out of threads.
    fn without_threads() -> (Supervisor, std::sync::mpsc::Sender<()>) {
        let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default()).unwrap();
        supervisor.worker.without_threads();
        let (release, released) = channel::<()>();
        let mut job = supervisor.start_job("stopping the guest", move |_| released.recv());
        assert!(supervisor.finish_job(&mut job, Duration::from_millis(20)).unwrap().is_none());
        (supervisor, release)
    }

    /// On this thread it could block for ever. Its own time limit would be added to that of the job that occupies the thread.
    #[test]
    fn job_without_a_thread_is_given_up_and_dropped_elsewhere() {
        let (mut supervisor, release) = without_threads();
        let (names, name) = channel();
        let begun = Instant::now();
        let finished = supervisor.finish("closing files", move |_| names.send(thread::current().id()));
        assert!(finished.is_none());
        assert!(begun.elapsed() < END_PATIENCE, "{:?}", begun.elapsed());
        drop(release);
        assert_ne!(name.recv_timeout(Duration::from_secs(10)).unwrap(), thread::current().id());
    }

    #[test]
    fn job_without_a_thread_is_done_if_the_one_before_ends() {
        let (mut supervisor, release) = without_threads();
        let mut job = supervisor.start_job("closing files", |_| thread::current().id());
        drop(release);
        let on = supervisor.finish_job(&mut job, END_PATIENCE).unwrap().unwrap();
        assert_ne!(on, thread::current().id());
    }

    #[test]
    fn preparation_without_a_thread_is_an_error() {
        let (mut supervisor, _release) = without_threads();
        let error = supervisor.offload(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("thread of a job: Resource temporarily unavailable"), "{error}");
    }
}
