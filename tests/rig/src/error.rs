//! What can go wrong between a bare host and a running rig.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::stage::Stage;

/// Every failure of this crate. The text names the thing and, where the reader can mend it, how.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory operation failed.
    #[error("can't {action} {path}: {source}", path = path.display())]
    File {
        /// What was tried: "read", "write", "create", ...
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },

    /// A program isn't installed and can't be installed from here.
    #[error("{program} isn't installed: {remedy}")]
    ProgramMissing {
        /// The program or package that is needed.
        program: String,
        /// What the reader can do.
        remedy: String,
    },

    /// A program ran and failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    CommandFailed {
        /// The command line.
        command: String,
        /// Its exit status in words.
        status: String,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },

    /// No kernel package fits.
    #[error(
        "no package like `{pattern}` in the apt cache: run `apt-get update`, or give a kernel with --kernel PATH"
    )]
    KernelNotFound {
        /// The package name that was looked for, `*` for any text.
        pattern: String,
    },

    /// A kernel has neither a module file nor a built-in driver of this name.
    #[error("{release} has no module named {module}, neither as a file nor built in")]
    ModuleNotFound {
        /// The kernel's release.
        release: String,
        /// The module's name.
        module: String,
    },

    /// A file doesn't have the format that its role asks for.
    #[error("{what}: {problem}")]
    Format {
        /// The file or structure.
        what: String,
        /// What is wrong with it.
        problem: String,
    },

    /// Inside the rig, where nothing can be fetched, something that should have been prepared outside is missing.
    #[error(
        "{what} isn't prepared, and inside the rig nothing can be fetched: run `cargo xtask test` on the host"
    )]
    NotPrepared {
        /// The missing thing.
        what: String,
    },

    /// The rig ended before the command's exit code arrived.
    #[error("the rig failed while {stage}: {problem}{tail}", tail = indented(log))]
    Rig {
        /// How far it came.
        stage: Stage,
        /// What was seen from outside.
        problem: String,
        /// The last lines of QEMU's messages and of the outer kernel's console.
        log: String,
    },

    /// A signal asked this process to end; the rig was stopped and the terminal restored.
    #[error("stopped by signal {signal}")]
    Interrupted {
        /// Its number.
        signal: i32,
    },

    /// The command ran in the rig for longer than it may.
    #[error("the command in the rig was stopped after {} s: give it a longer timeout", limit.as_secs())]
    Timeout {
        /// The limit that was set.
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

/// Adds the action and the path to an [`io::Result`]: `fs::read(p).at("read", p)?`.
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
