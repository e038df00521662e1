//! `cargo xtask calls`: runs tests with the monitor under strace, and compares what each thread called with what its filter permits.
//!
//! The permissions are those of the programs that the kernel got, as strace shows them. So nothing here repeats the lists of the crates.

mod filter;
mod line;
mod reasons;
mod roles;
mod suites;
mod trace;

use std::process::ExitCode;

use self::roles::Seen;
use self::suites::{Suite, Traced};
use crate::failure::Failure;
use crate::workspace;

/// Why a filter permits what no test needs.
const REASONS: &str = include_str!("reasons.txt");

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Tests to run; the traces of others are those of the last time [default: all]
    #[arg(value_enum)]
    suites: Vec<Suite>,
    /// Run no tests: compare the traces of the last time
    #[arg(long, conflicts_with = "suites")]
    compare: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let traced = Traced::in_target();
    let mut problems = Vec::new();
    if !arguments.compare {
        rig::packages::install(&["strace"])?;
        traced.prepare(&workspace::build_monitor())?;
        let suites = if arguments.suites.is_empty() { &Suite::ALL[..] } else { &arguments.suites };
        // A test that fails has still made calls, so what follows is of use.
        for suite in suites {
            problems.extend(traced.run(*suite)?);
        }
    }
    problems.extend(compare_traces(&traced)?);
    if problems.is_empty() {
        println!("each system call that a filter permits was made, or has a reason");
        return Ok(ExitCode::SUCCESS);
    }
    problems.iter().for_each(|problem| println!("error: {problem}"));
    Ok(ExitCode::FAILURE)
}

/// Prints what was found; returns what is wrong.
fn compare_traces(traced: &Traced) -> Result<Vec<String>, Failure> {
    let mut seen = Seen::default();
    let (mut filters, mut unreadable) = (0, 0);
    let runs = traced.runs()?;
    for run in &runs {
        let found = trace::read(run).map_err(|error| format!("{}: {error}", run.display()))?;
        found.applied.iter().for_each(|applied| seen.add(applied));
        filters += found.applied.len();
        unreadable += found.unreadable;
    }
    println!("{} runs, {filters} filters; {unreadable} filters couldn't be read", runs.len());
    let (roles, mut problems) = seen.roles();
    let comparison = reasons::compare(&roles, &reasons::parse(REASONS)?);
    for (role, permitted, unneeded) in comparison.counts {
        println!("{role:<12} {permitted:>4} permitted {:>4} seen", permitted - unneeded);
    }
    comparison.stale.iter().for_each(|reason| println!("stale: {reason}"));
    problems.extend(seen.violations.iter().map(|call| format!("outside the filter: {call}")));
    problems.extend(comparison.unexplained.iter().map(|one| format!("not seen and without a reason: {one}")));
    Ok(problems)
}
