//! Starts the monitor.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Monitor;
use crate::ends::Ends;
use crate::fd::set_nonblocking;
use crate::program::loader;
use crate::terminal::Terminal;

/// Wraps every start. A test run in the background, or under nohup, ignores signals, and its children inherit
/// that; the monitor would ignore them, too, and tests that send signals would wait in vain.
const DEFAULT_SIGNALS: [&str; 2] = ["/usr/bin/env", "--default-signal=HUP,INT,QUIT"];

/// Wraps every start where the tests run as a user with capabilities.
const WITHOUT_CAPABILITIES: [&str; 3] = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all"];

/// The program's standard input.
#[derive(Clone, Debug)]
pub enum Stdin {
    /// A pipe, for [`Monitor::send`].
    Pipe,
    /// /dev/null.
    Null,
    /// This file.
    File(PathBuf),
    /// Closed: there is no descriptor 0.
    Closed,
    /// The terminal, for [`Monitor::send`].
    Terminal,
}

/// The program's standard output.
#[derive(Clone, Debug)]
pub enum Stdout {
    /// A pipe that is read immediately, for [`Monitor::expect`].
    Captured,
    /// A pipe that only the test reads: [`Monitor::take_stdout`].
    Held,
    /// /dev/null.
    Null,
    /// This file, truncated.
    File(PathBuf),
    /// Closed: there is no descriptor 1.
    Closed,
    /// The terminal, for [`Monitor::expect`].
    Terminal,
}

/// A prepared start of the monitor. Standard error is always captured.
#[derive(Debug)]
#[must_use = "nothing runs before `start`"]
pub struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    wrapper: Vec<OsString>,
    dir: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    stdin: Stdin,
    stdout: Stdout,
}

impl Monitor {
    /// Prepares a start of [`monitor_program`](crate::monitor_program) with `args`.
    pub fn command(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Launch {
        Launch::new(crate::monitor_program(), args)
    }
}

impl Launch {
    /// Prepares a start of `program` with `args`, with /dev/null as input and captured output.
    pub fn new(program: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self {
            program: program.to_owned(),
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            wrapper: Vec::new(),
            dir: None,
            env: Vec::new(),
            stdin: Stdin::Null,
            stdout: Stdout::Captured,
        }
    }

    /// Appends arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets the standard input.
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets the standard output.
    pub fn stdout(mut self, stdout: Stdout) -> Self {
        self.stdout = stdout;
        self
    }

    /// Uses a new terminal for both.
    pub fn on_terminal(self) -> Self {
        self.stdin(Stdin::Terminal).stdout(Stdout::Terminal)
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs it through this command, which executes its further arguments: `setpriv --reuid 65534`, `sh -c
    /// 'exec "$0" "$@"'`.
    pub fn wrapped(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.wrapper = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Starts the program.
    #[track_caller]
    pub fn start(self) -> Monitor {
        let mut command = self.command();
        let wants_terminal = matches!(self.stdin, Stdin::Terminal) || matches!(self.stdout, Stdout::Terminal);
        let terminal = wants_terminal.then(Terminal::open);
        let slave = || {
            let terminal = terminal.as_ref().expect("there is one if it is wanted");
            Stdio::from(terminal.slave.try_clone().expect("a descriptor"))
        };
        let mut ends = Ends::default();
        command.stdin(match &self.stdin {
            Stdin::Pipe => {
                let (reader, writer) = io::pipe().expect("a pipe");
                ends.input = Some(writer.into());
                reader.into()
            }
            Stdin::Null | Stdin::Closed => Stdio::null(),
            Stdin::File(path) => File::open(path).expect("the input file").into(),
            Stdin::Terminal => slave(),
        });
        command.stdout(match &self.stdout {
            Stdout::Captured => ends.output(|ends| &mut ends.captured),
            Stdout::Held => ends.output(|ends| &mut ends.held),
            Stdout::Null | Stdout::Closed => Stdio::null(),
            Stdout::File(path) => File::create(path).expect("the output file").into(),
            Stdout::Terminal => slave(),
        });
        command.stderr(ends.output(|ends| &mut ends.stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        // Close our copies of the child's ends, without which its exit wouldn't be detected.
        drop(command);
        if let Some(input) = &ends.input {
            set_nonblocking(input);
        }
        if let Some(terminal) = &terminal {
            set_nonblocking(&terminal.master);
        }
        Monitor::new(child, ends, terminal)
    }

    fn command(&self) -> Command {
        // std can't start a program with a closed descriptor, but a shell can.
        let closing = match (&self.stdin, &self.stdout) {
            (Stdin::Closed, Stdout::Closed) => Some(r#"exec "$0" "$@" <&- >&-"#),
            (Stdin::Closed, _) => Some(r#"exec "$0" "$@" <&-"#),
            (_, Stdout::Closed) => Some(r#"exec "$0" "$@" >&-"#),
            _ => None,
        };
        let closing = closing.map(|script| ["sh", "-c", script]).into_iter().flatten().map(OsString::from);
        let program = self.program.clone().into_os_string();
        let default_signals = DEFAULT_SIGNALS.into_iter().map(OsString::from);
        let as_user = crate::is_as_user().then_some(WITHOUT_CAPABILITIES);
        let as_user = as_user.into_iter().flatten().map(OsString::from);
        let wrapper = self.wrapper.iter().cloned();
        let mut words = default_signals
            .chain(as_user)
            .chain(wrapper)
            .chain(closing)
            .chain(loader())
            .chain([program])
            .chain(self.args.iter().cloned());
        let mut command = Command::new(words.next().expect("the program, if nothing else"));
        command.args(words).envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }
}
