//! What a filter costs per system call: `cargo run --release -p vmm-sandbox --example cost`.
//!
//! Prints nanoseconds for the fastest of several rounds, for an ioctl that is compared first, as KVM_RUN is on a vCPU's thread, for
//! one that is compared after 30 others, and for a call that is allowed whatever its arguments; with no filter, one and two, since a
//! thread created by a confined one has the filters of both.

use std::hint::black_box;
use std::io;
use std::os::fd::AsFd;
use std::thread;
use std::time::Instant;

use vmm_sandbox::{Allow, SPAWN, ViolationAction, confine_thread, enable};

const FIONREAD: u32 = 0x541b;
const FIRST: &[Allow] =
    &[Allow::when(libc::SYS_ioctl, 1, &[FIONREAD]), Allow::when(libc::SYS_ioctl, 1, &MANY)];
const LAST: &[Allow] =
    &[Allow::when(libc::SYS_ioctl, 1, &MANY), Allow::when(libc::SYS_ioctl, 1, &[FIONREAD])];
const ALWAYS: &[Allow] = &[Allow::call(libc::SYS_getppid)];
/// Requests of KVM.
const MANY: [u32; 30] = {
    let mut requests = [0; 30];
    let mut index = 0;
    while index < requests.len() {
        requests[index] = 0xae80 + index as u32;
        index += 1;
    }
    requests
};

fn main() -> io::Result<()> {
    let (pipe, _write) = io::pipe()?;
    let ioctl = || {
        let _ = black_box(rustix::io::ioctl_fionread(pipe.as_fd()));
    };
    let getppid = || {
        let _ = black_box(rustix::process::getppid());
    };
    enable(ViolationAction::Trap);
    println!("filters  ioctl, first  ioctl, last  getppid");
    for filters in 0..3 {
        let [first, last, other] = [
            on_a_thread(filters, &[FIRST, ALWAYS, SPAWN], ioctl)?,
            on_a_thread(filters, &[LAST, ALWAYS, SPAWN], ioctl)?,
            on_a_thread(filters, &[FIRST, ALWAYS, SPAWN], getppid)?,
        ];
        println!("{filters:7} {first:10.1} ns {last:9.1} ns {other:5.1} ns");
    }
    let started = Instant::now();
    thread::scope(|scope| scope.spawn(|| confine_thread("timed", &[FIRST])).join()).expect("no panic")?;
    println!("a filter takes {:?} to compile and load, with its thread", started.elapsed());
    Ok(())
}

/// Nanoseconds of one `call` on a thread with as many filters of `lists`.
fn on_a_thread(filters: usize, lists: &[&[Allow]], call: impl Fn() + Sync) -> io::Result<f64> {
    let timed = || {
        (0..filters).try_for_each(|_| confine_thread("timed", lists))?;
        Ok((0..20).map(|_| round(&call)).fold(f64::MAX, f64::min))
    };
    thread::scope(|scope| scope.spawn(timed).join()).expect("no panic")
}

fn round(call: &impl Fn()) -> f64 {
    const CALLS: u32 = 50_000;
    let started = Instant::now();
    (0..CALLS).for_each(|_| call());
    started.elapsed().as_nanos() as f64 / f64::from(CALLS)
}
