//! I/O by blocking threads, for hosts without io_uring.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use vmm_bus::EventFd;
use vmm_sandbox::confine_thread;

use super::system_calls::FILE_IO_CALLS;
use super::task::Task;

/// Threads per device. With one, a flush would block reads; more than a few gain nothing on one disk.
const THREADS: usize = 4;
/// Linux's limit on thread names in bytes (TASK_COMM_LEN without its NUL).
const NAME_LEN: usize = 15;
/// Stack size in bytes, enough for a system call and its callers.
const STACK_LEN: usize = 64 << 10;

/// A thread pool, started with the first task.
pub(super) struct Threads {
    shared: Arc<Shared>,
    name: String,
    threads: Vec<JoinHandle<()>>,
    in_flight: usize,
}

struct Shared {
    work: Mutex<Work>,
    has_work: Condvar,
    done: Mutex<VecDeque<Done>>,
    has_done: Condvar,
    ready: Arc<EventFd>,
}

type Done = (Task, io::Result<()>);

struct Work {
    tasks: VecDeque<Task>,
    is_over: bool,
}

impl Threads {
    pub(super) fn new(depth: u16, ready: Arc<EventFd>, name: &str) -> Self {
        let depth = usize::from(depth);
        let work = Mutex::new(Work { tasks: VecDeque::with_capacity(depth), is_over: false });
        let done = Mutex::new(VecDeque::with_capacity(depth));
        let shared = Shared { work, has_work: Condvar::new(), done, has_done: Condvar::new(), ready };
        let name = format!("io-{name}").chars().take(NAME_LEN).collect();
        Self { shared: Arc::new(shared), name, threads: Vec::new(), in_flight: 0 }
    }

    pub(super) fn submit(&mut self, mut task: Task) {
        self.in_flight += 1;
        if self.threads.is_empty() {
            self.start();
        }
        if self.threads.is_empty() {
            // The host can't create a thread: execute the task synchronously.
            let result = task.run();
            self.shared.finish(task, result);
            return;
        }
        self.shared.work().tasks.push_back(task);
        self.shared.has_work.notify_one();
    }

    /// Called on the first submit, so that the threads inherit the device thread's signal mask, which blocks
    /// signals.
    fn start(&mut self) {
        for _ in 0..THREADS {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name(self.name.clone()).stack_size(STACK_LEN);
            let name = self.name.clone();
            self.threads.extend(builder.spawn(move || {
                confine_thread(&name, &[FILE_IO_CALLS]).expect("a filter was accepted at the start");
                shared.run();
            }));
        }
    }

    pub(super) fn completed(&mut self) -> Option<Done> {
        let done = self.shared.done().pop_front()?;
        self.in_flight -= 1;
        Some(done)
    }

    pub(super) fn wait(&mut self) {
        if self.in_flight == 0 {
            return;
        }
        let done = self.shared.done();
        drop(self.shared.has_done.wait_while(done, |done| done.is_empty()).expect(NO_PANIC));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.work().is_over = true;
        self.shared.has_work.notify_all();
        // The threads finish queued tasks first.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

const NO_PANIC: &str = "no panic while it is held";

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().expect(NO_PANIC)
    }

    fn done(&self) -> MutexGuard<'_, VecDeque<Done>> {
        self.done.lock().expect(NO_PANIC)
    }

    fn run(&self) {
        while let Some(mut task) = self.next() {
            let result = task.run();
            self.finish(task, result);
        }
    }

    fn next(&self) -> Option<Task> {
        let is_idle = |work: &mut Work| work.tasks.is_empty() && !work.is_over;
        let mut work = self.has_work.wait_while(self.work(), is_idle).expect(NO_PANIC);
        work.tasks.pop_front()
    }

    fn finish(&self, task: Task, result: io::Result<()>) {
        self.done().push_back((task, result));
        self.has_done.notify_one();
        // Non-blocking. If the counter is at its maximum, it is readable anyway.
        let _ = self.ready.write(1);
    }
}
