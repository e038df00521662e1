//! Errors of setting up and running the rig.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::stage::Stage;

/// An error of this crate. Its message contains the affected object and, if possible, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory operation failed.
    #[error("can't {action} {path}: {source}", path = path.display())]
    File {
        /// The operation: "read", "write", "create", ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },

    /// A program isn't installed and can't be installed automatically.
    #[error("{program} isn't installed: {remedy}")]
    ProgramMissing {
        /// The program or package.
        program: String,
        /// What the user can do.
        remedy: String,
    },

    /// A program failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    CommandFailed {
        /// The command line.
        command: String,
        /// Its exit status as text.
        status: String,
        /// The end of its standard error.
        stderr: String,
    },

    /// No kernel package matches.
    #[error(
        "no package like `{pattern}` in the apt cache: run `apt-get update`, or specify a kernel with --kernel PATH"
    )]
    KernelNotFound {
        /// The package name searched for, with `*` for any text.
        pattern: String,
    },

    /// A kernel has no module or built-in driver with this name.
    #[error("{release} has no module named {module}, neither as a file nor built in")]
    ModuleNotFound {
        /// The kernel's release.
        release: String,
        /// The module's name.
        module: String,
    },

    /// A file has an unexpected format.
    #[error("{what}: {problem}")]
    Format {
        /// The file or structure.
        what: String,
        /// What is wrong with it.
        problem: String,
    },

    /// In the rig, where nothing can be fetched, something is missing that should have been prepared on the
    /// host.
    #[error(
        "{what} isn't prepared, and inside the rig nothing can be fetched: run `cargo xtask test` on the host"
    )]
    NotPrepared {
        /// The missing object.
        what: String,
    },

    /// The rig ended before the command's exit code arrived.
    #[error("the rig failed while {stage}: {problem}{tail}", tail = indented(log))]
    Rig {
        /// The stage reached.
        stage: Stage,
        /// What was observed from outside.
        problem: String,
        /// The last lines of QEMU's messages and of the outer kernel's console.
        log: String,
    },

    /// This process received a signal; the rig was stopped and the terminal restored.
    #[error("stopped by signal {signal}")]
    Interrupted {
        /// Its number.
        signal: i32,
    },

    /// The command in the rig exceeded its time limit.
    #[error("the command in the rig was stopped after {} s: give it a longer timeout", limit.as_secs())]
    Timeout {
        /// The time limit.
        limit: Duration,
    },
}

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn format(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Format { what: what.into(), problem: problem.into() }
    }
}

/// Adds the operation and the path to an [`io::Result`]: `fs::read(p).at("read", p)?`.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { action, path: path.to_owned(), source: source.into() })
    }
}

fn indented(log: &str) -> String {
    log.lines().map(|line| format!("\n    {line}")).collect()
}
