//! The measuring half of the benchmarks: starts each monitor in turn, and measures its guest and its memory.

mod arguments;
mod block;
mod costs;
mod guest;
mod memory;
pub(super) mod net;
mod run;
mod smaps;
mod snapshot;
mod warm;

use std::process::ExitCode;

pub(crate) use arguments::Arguments;

use super::part::Part;
use crate::failure::Failure;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    match arguments.part {
        Part::Start => arguments.measure(run::all),
        Part::Block => arguments.measure(block::all),
        Part::Memory => arguments.measure(memory::all),
        Part::Net if !arguments.own_network => net::in_own_network(arguments),
        Part::Net => arguments.measure(net::all),
        Part::Snapshot => arguments.measure(snapshot::all),
    }
}
