//! What a panic, a defect of ours, does to the terminal and to standard error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::{panic, thread};

use vmm_machine::terminal;

use crate::streams::Streams;

/// Reports panics by `streams`. One of this thread, the main one, ends the program, and the terminal is restored first. A
/// device's or a vCPU's thread leaves it as it is: the machine goes on, or ends in order.
pub(crate) fn report_to(streams: &Streams) {
    let (streams, main) = (streams.clone(), thread::current().id());
    panic::set_hook(Box::new(move |panic| {
        let thread = thread::current();
        let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("without a name"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text += &format!("\nstack backtrace:\n{backtrace}");
        }
        if thread.id() == main {
            terminal::restore();
        }
        streams.report(&text);
        if thread.id() == main {
            streams.flush();
        }
    }));
}
