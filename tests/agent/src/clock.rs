//! Whether time is the same on all processors.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The last time that was read, the processor's number, and whose turn is next.
struct Baton {
    time: Instant,
    cpu: usize,
    turn: usize,
}

/// Reads CLOCK_MONOTONIC on one processor after the other, `rounds` times on each. Each reading is made after the previous one, so it must
/// not be earlier.
pub(crate) fn compare(rounds: usize) -> io::Result<String> {
    let allowed = sched_getaffinity(THIS_THREAD)?;
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect();
    let baton = (Mutex::new(Baton { time: Instant::now(), cpu: cpus[0], turn: 0 }), Condvar::new());
    let (baton, count) = (&baton, cpus.len());
    thread::scope(|scope| {
        let start = |(index, cpu)| scope.spawn(move || run(baton, (index, count), cpu, rounds));
        let threads: Vec<_> = cpus.iter().copied().enumerate().map(start).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it doesn't panic"))
    })?;
    Ok(format!("{count} processors agree"))
}

const THIS_THREAD: Pid = Pid::from_raw(0);

/// The readings of processor `cpu`, whose turn is each `index` of `count`.
fn run(
    baton: &(Mutex<Baton>, Condvar),
    (index, count): (usize, usize),
    cpu: usize,
    rounds: usize,
) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    let pinned = sched_setaffinity(THIS_THREAD, &only);
    let (baton, passed) = baton;
    let mut back = None;
    for _ in 0..rounds {
        let baton = baton.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = passed.wait_while(baton, |baton| baton.turn != index);
        let mut baton = waited.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(early) = baton.time.checked_duration_since(now).filter(|early| !early.is_zero()) {
            back = back.or(Some(format!("processor {cpu} is {early:?} behind processor {}", baton.cpu)));
        }
        *baton = Baton { time: now, cpu, turn: (index + 1) % count };
        drop(baton);
        passed.notify_all();
    }
    pinned?;
    back.map_or(Ok(()), |back| Err(io::Error::other(back)))
}
