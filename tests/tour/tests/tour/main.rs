#![forbid(unsafe_code)]

//! Takes docs/tour.md and docs/coming-from.md step by step, as a reader would, and compares what is printed with what the page
//! shows. The commands of the other pages are run if a bare-metal guest suffices, and have a test elsewhere if not.

mod checkout;
mod manual;
mod need;
mod on_request;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tour_tests::Step;

use checkout::Checkout;

/// In docs. A step may use what the set-up of its page has built, and nothing of another step.
const PAGES: [&str; 2] = [TOUR, "coming-from.md"];
const TOUR: &str = "tour.md";

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They build, fetch and remove the same files.
    arguments.test_threads = Some(1);
    let here = Checkout::here();
    let mut trials = Vec::new();
    for page in PAGES {
        let mut steps = Step::all(&here.page(page)).into_iter();
        let set_up = steps.next().expect("a page begins with its set-up");
        if !arguments.list
            && let Err(failed) = prepare(&set_up, &here)
        {
            eprintln!("the set-up of docs/{page}: {}", failed.message().unwrap_or("failed"));
            return ExitCode::FAILURE;
        }
        trials.extend(steps.map(|step| trial(page, step)));
    }
    trials.extend(manual::tests());
    trials.extend(on_request::tests());
    trials.push(Trial::test("a_fresh_clone", in_a_fresh_clone).with_kind(TOUR).with_ignored_flag(true));
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs what a page says before its first step.
fn prepare(set_up: &Step, here: &Checkout) -> Result<(), Failed> {
    here.keep()?;
    check(set_up, here)?;
    here.take(&set_up.commands())
}

fn trial(page: &'static str, step: Step) -> Trial {
    let title = step.title.clone();
    Trial::ignorable_test(title, move || take(&step)).with_kind(page)
}

fn take(step: &Step) -> Result<Completion, Failed> {
    let here = Checkout::here();
    check(step, &here)?;
    if let Err(reason) = need::of(&step.commands()) {
        return match rig::guests_required() {
            true => Err(reason.into()),
            false => Ok(Completion::ignored_with(reason)),
        };
    }
    here.clear()?;
    let outcome = here.take(&step.commands());
    here.clear()?;
    outcome.map(|()| Completion::Completed)
}

/// What a step promises apart from what its commands print.
fn check(step: &Step, here: &Checkout) -> Result<(), Failed> {
    if let [first, ..] = &step.not_run()[..] {
        return Err(format!("a table lists `$ {first}`, which no block of the step runs").into());
    }
    if let [first, ..] = &step.unannounced()[..] {
        return Err(format!("the page doesn't say how long this takes: $ {first}").into());
    }
    for quote in step.quotes() {
        if !quote.is_in(&here.read(&quote.path)?) {
            return Err(format!("the page quotes {} otherwise than it is: {quote:#?}", quote.path).into());
        }
    }
    if step.is_numbered() { step.teaches().map_err(Failed::from) } else { Ok(()) }
}

/// The whole tour in one shell, with nothing built or fetched before. Only what is committed is in the clone.
fn in_a_fresh_clone() -> Result<(), Failed> {
    let clone = Checkout::fresh_clone()?;
    let steps = Step::all(&clone.page(TOUR));
    let commands: Vec<_> = steps.iter().flat_map(Step::commands).collect();
    need::of(&commands)?;
    clone.take(&commands)?;
    clone.remove()
}
