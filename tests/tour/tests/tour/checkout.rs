//! Where the commands of a page run.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use tour_tests::agrees;

/// Ends the output of a command, with its exit code: a line that no program prints.
const MARK: &str = "\u{1e}exit code ";

/// Seconds, for a guest that nothing ends. A step takes a minute, on a busy host ten.
const STEP_DEADLINE: &str = "1800";
/// The same for the whole tour, which builds and fetches everything.
const TOUR_DEADLINE: &str = "7200";

/// Where the manual's commands run.
const MANUAL: &str = "target/manual";

/// What `cargo xtask linux` makes.
const FETCHED: &str = "target/linux";
/// What a reader makes in the exercises.
const MADE: [&str; 2] = ["target/tour", "crates/vcpu/examples/mine.rs"];
/// Where that is kept if it is there before the test.
const KEPT: &str = "target/tour-before-test";

/// A checkout of the project.
pub(crate) struct Checkout {
    root: PathBuf,
    /// Whose `vmm-bin` is the program under test, rather than what the page builds.
    is_ours: bool,
    deadline: &'static str,
}

impl Checkout {
    /// The one that this test is from.
    pub(crate) fn here() -> Self {
        Self { root: workspace().to_owned(), is_ours: true, deadline: STEP_DEADLINE }
    }

    /// A new one of the last commit, with an empty target directory.
    pub(crate) fn fresh_clone() -> Result<Self, Failed> {
        let root = workspace().join("target/fresh-clone");
        remove(&root)?;
        let mut git = Command::new("git");
        let status = git.args(["clone", "--quiet"]).arg(workspace()).arg(&root).status()?;
        if !status.success() {
            return Err(format!("git clone: {status}").into());
        }
        Ok(Self { root, is_ours: false, deadline: TOUR_DEADLINE })
    }

    /// The text of a page in docs.
    pub(crate) fn page(&self, name: &str) -> String {
        fs::read_to_string(self.root.join("docs").join(name)).expect("the page is in docs")
    }

    pub(crate) fn read(&self, path: &str) -> Result<String, Failed> {
        fs::read_to_string(self.root.join(path)).map_err(|error| format!("{path}: {error}").into())
    }

    /// Moves a reader's own work out of the way of the steps.
    pub(crate) fn keep(&self) -> Result<(), Failed> {
        let kept = self.root.join(KEPT);
        for path in MADE.map(|path| self.root.join(path)).iter().filter(|path| path.exists()) {
            fs::create_dir_all(&kept)?;
            let to = kept.join(path.file_name().expect("the paths have names"));
            remove(&to)?;
            fs::rename(path, &to)?;
            rig::note(&format!("{} is now {}", path.display(), to.display()));
        }
        Ok(())
    }

    /// Removes what steps write, so that none finds what another one, or `cargo xtask`, has left.
    pub(crate) fn clear(&self) -> Result<(), Failed> {
        MADE.iter().chain([&FETCHED]).try_for_each(|path| remove(&self.root.join(path)))
    }

    pub(crate) fn remove(self) -> Result<(), Failed> {
        remove(&self.root)
    }

    /// A directory of the checkout in which the files are that the manual's commands name, as a reader of it would have them.
    pub(crate) fn with_files(&self, files: &[(&str, &str)]) -> Result<Self, Failed> {
        let root = self.root.join(MANUAL);
        remove(&root)?;
        fs::create_dir_all(&root)?;
        for (name, file) in files {
            symlink(self.root.join(file), root.join(name))?;
        }
        Ok(Self { root, ..*self })
    }

    /// Runs the commands in one shell. Each must succeed and print what it should.
    pub(crate) fn take(&self, commands: &[tour_tests::Command]) -> Result<(), Failed> {
        self.take_if(commands, agrees)
    }

    /// As [`take`](Self::take), where `is_as` compares what a command should print with what it prints.
    pub(crate) fn take_if(
        &self,
        commands: &[tour_tests::Command],
        is_as: fn(&[String], &[&str]) -> bool,
    ) -> Result<(), Failed> {
        let printed = self.run(commands)?;
        let mut rest = printed.as_str();
        for command in commands {
            let (output, after) = rest.split_once(MARK).unwrap_or((rest, "none: the shell has ended"));
            let (code, after) = after.split_once('\n').unwrap_or((after, ""));
            rest = after;
            let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
            if code != "0" || !is_as(&command.expected, &lines) {
                let (script, expected) = (&command.script, command.expected.join("\n"));
                let printed =
                    format!("$ {script}\n--- printed ---\n{output}--- exit code {code}; expected ---");
                return Err(format!("{printed}\n{expected}").into());
            }
        }
        Ok(())
    }

    /// What a command prints, which must succeed.
    pub(crate) fn print(&self, script: &str) -> Result<String, Failed> {
        let command = tour_tests::Command { script: script.to_owned(), expected: Vec::new() };
        let printed = self.run(&[command])?;
        match printed.split_once(MARK) {
            Some((output, "0\n")) => Ok(output.to_owned()),
            _ => Err(format!("$ {script}\n{printed}").into()),
        }
    }

    fn path(&self) -> OsString {
        let mut path = OsString::new();
        if self.is_ours
            && let Some(dir) = driver::monitor_program().parent()
        {
            path.push(dir);
            path.push(":");
        }
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// The outputs of the commands, each followed by the mark.
    fn run(&self, commands: &[tour_tests::Command]) -> Result<String, Failed> {
        let script: String = commands
            .iter()
            // The mark leaves the exit code of the command for the next one to see.
            .map(|command| {
                format!("{}\nstatus=$?; printf '{MARK}%s\\n' $status; (exit $status)\n", command.script)
            })
            .collect();
        let output = Command::new("timeout")
            .args(["--kill-after=10", self.deadline, "sh", "-c", &format!("exec 2>&1\n{script}")])
            .env("PATH", self.path())
            .env_remove("CARGO_TARGET_DIR")
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/tour lies in the workspace")
}

/// Removes a file or a directory, if it is there.
fn remove(path: &Path) -> Result<(), Failed> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("can't remove {}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}
