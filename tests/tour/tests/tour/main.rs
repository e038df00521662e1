#![forbid(unsafe_code)]

//! Takes docs/tour.md and docs/coming-from.md step by step, as a reader would, and compares what is printed with what the page
//! shows.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use driver::{guests, monitor_program};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tour_tests::{Step, agrees, steps};

/// Stands between the outputs of two commands: a line that no program prints.
const MARK: &str = "\u{1e}end of command\u{1e}";

/// In docs. A step may use what an earlier one has built.
const PAGES: [&str; 2] = ["tour.md", "coming-from.md"];

fn main() -> ExitCode {
    let trials = PAGES.into_iter().flat_map(|page| {
        let text = std::fs::read_to_string(workspace().join("docs").join(page)).expect("the page is in docs");
        let trial =
            move |step: Step| Trial::ignorable_test(step.title.clone(), move || take(&step)).with_kind(page);
        steps(&text).into_iter().map(trial).collect::<Vec<_>>()
    });
    let mut arguments = Arguments::from_args();
    // A step may build what the next one uses.
    arguments.test_threads = Some(1);
    if !arguments.list {
        // What the pages have done before their first step, and the kernels of their last.
        guests::build_all();
        rig::Assets::here().prepare_all().expect("the kernels are fetched");
        rig::packages::install(&["nasm"]).expect("the assembler of a text that the reader comes from");
    }
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/tour lies in the workspace")
}

fn take(step: &Step) -> Result<Completion, Failed> {
    if let [first, ..] = step.not_run()[..] {
        return Err(format!("a table lists `$ {first}`, which no block of the step runs").into());
    }
    // The steps are about this host's KVM; what needs one that runs Linux starts the rig by itself.
    if let Err(reason) = rig::can_run_linux()
        && reason != rig::Reason::SoftwareKvm
    {
        return match rig::guests_required() {
            true => Err(reason.to_string().into()),
            false => Ok(Completion::ignored_with(reason.to_string())),
        };
    }
    let printed = run(step);
    let mark = format!("{MARK}\n");
    let mut outputs = printed.split(&mark);
    for command in &step.commands {
        let output = outputs.next().unwrap_or("");
        let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
        if !agrees(&command.expected, &lines) {
            let expected = command.expected.join("\n");
            return Err(format!(
                "$ {}\n--- printed ---\n{output}--- expected ---\n{expected}",
                command.script
            )
            .into());
        }
    }
    Ok(Completion::Completed)
}

/// Runs the commands of a step in one shell; their outputs, each followed by the mark.
fn run(step: &Step) -> String {
    let script: String = step
        .commands
        .iter()
        // The mark leaves the exit code of the command for the next one to see.
        .map(|command| format!("{}\nstatus=$?; printf '{MARK}\\n'; (exit $status)\n", command.script))
        .collect();
    // The program under test, in front of any other of its name.
    let mut path = monitor_program().parent().expect("a file is in a directory").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .env("PATH", path)
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
