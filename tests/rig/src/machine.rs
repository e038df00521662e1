//! The rig: runs a command in a machine with a genuine /dev/kvm.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::assets::Assets;
use crate::command::last_lines;
use crate::error::{At, Error, Result};
use crate::kernels::KernelKind;
use crate::qemu::{CONSOLE_LOG, Channel, Machine, QEMU_LOG, Qemu};
use crate::run_dir::RunDir;
use crate::script;
use crate::signals::Watch;
use crate::stage::Stage;
use crate::streams::{DRAIN_TIME, Stdin, copy_output, copy_stdin, copy_to_terminal};
use crate::terminal::{self, RawTerminal};
use crate::variables::IN_RIG;

/// Where a directory given to [`Rig::results`] appears in the rig.
pub const RESULTS_DIR: &str = "/run/results";

/// Enough for the outer kernel and a guest with RAM above 4 GiB. The host allocates it on use.
const DEFAULT_MEMORY_MIB: u32 = 6144;
/// More CPUs would share the same host thread.
const DEFAULT_CPUS: u32 = 1;
/// The outer kernel needs 4 s on an idle host with two cores.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// A whole suite of guest tests in software emulation takes minutes; only a hang takes this long.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 15;

/// Environment variables that the command inherits if set, in addition to all that start with `VMM_`.
const INHERITED: [&str; 9] =
    ["PATH", "HOME", "TERM", "LANG", "LC_ALL", "USER", "RUST_BACKTRACE", "RUST_LOG", "CARGO_MANIFEST_DIR"];
const INHERITED_PREFIX: &str = "VMM_";

/// Result of a command in the rig.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the command may have failed"]
pub struct CommandOutput {
    /// Its exit code; 128+n if signal n killed it, 127 if it wasn't found.
    pub exit_code: i32,
    /// Interleaved standard output and standard error; only with [`Rig::capture`], otherwise empty.
    pub output: Vec<u8>,
}

/// A prepared run: QEMU in software emulation, with a CPU that has SVM and a stock kernel with kvm_amd. The
/// command sees the host's root at the same paths; what it writes is kept in memory and lost afterwards,
/// except in [`RESULTS_DIR`]. It runs as root and without a network. Several rigs can run concurrently if
/// there is enough memory.
#[derive(Clone, Debug)]
pub struct Rig {
    assets: Assets,
    memory_mib: u32,
    cpus: u32,
    kernel_parameters: String,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    timeout: Duration,
    stdin: Stdin,
    results: Option<PathBuf>,
}

impl Rig {
    /// A rig with 6 GiB and one CPU (a second would share the same host thread), which starts in the current
    /// directory and inherits the relevant variables.
    pub fn new(assets: &Assets) -> Self {
        let env = std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(|name| is_inherited(name) && name != IN_RIG))
            .chain([(IN_RIG.into(), "1".into())])
            .collect();
        Self {
            assets: assets.clone(),
            memory_mib: DEFAULT_MEMORY_MIB,
            cpus: DEFAULT_CPUS,
            kernel_parameters: String::new(),
            env,
            dir: None,
            timeout: DEFAULT_TIMEOUT,
            stdin: Stdin::Null,
            results: None,
        }
    }

    /// Sets the outer machine's memory, at most half of which is used for files that the command writes.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Sets the number of outer CPUs.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Sets parameters of the outer kernel in addition to the usual ones.
    pub fn kernel_parameters(mut self, parameters: impl Into<String>) -> Self {
        self.kernel_parameters = parameters.into();
        self
    }

    /// Sets a variable in the command's environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        self.env.retain(|(other, _)| *other != name);
        self.env.push((name, value.into()));
        self
    }

    /// Sets the command's working directory.
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Limits the time from the start of QEMU to the end of the command.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the command's standard input, by default /dev/null. Ignored by [`Rig::run_on_terminal`].
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Shares the host directory `dir`, which must exist, as writable [`RESULTS_DIR`].
    pub fn results(mut self, dir: impl Into<PathBuf>) -> Self {
        self.results = Some(dir.into());
        self
    }

    /// Runs a command and forwards its output to our standard output immediately.
    pub fn run(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<CommandOutput> {
        self.run_into(argv, &mut io::stdout())
    }

    /// Runs a command and returns its output.
    pub fn capture(&self, argv: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<CommandOutput> {
        let mut output = Vec::new();
        let outcome = self.run_into(argv, &mut output)?;
        Ok(CommandOutput { output, ..outcome })
    }

    /// Runs a command and forwards its output to `sink` immediately. If `sink` fails, the command is stopped.
    pub fn run_into(
        &self,
        argv: impl IntoIterator<Item = impl AsRef<OsStr>>,
        sink: &mut (dyn Write + Send),
    ) -> Result<CommandOutput> {
        let channel = Channel::Stream { has_stdin: self.stdin != Stdin::Null };
        let (run_dir, mut qemu) = self.start(argv, channel)?;
        let (stop, stopped) =
            io::pipe().at("open", "a pipe".as_ref()).map(|(reader, writer)| (writer, reader))?;
        thread::scope(|scope| {
            match (qemu.take_stdin(), &self.stdin) {
                (Some(into), Stdin::Inherit) => drop(scope.spawn(|| copy_stdin(into, stopped, None))),
                // Fails if the command ends without reading all of it.
                (Some(mut into), Stdin::Bytes(bytes)) => drop(scope.spawn(move || into.write_all(bytes))),
                _ => {}
            }
            let output = qemu.take_stdout().expect("its standard output is a pipe");
            let copier = scope.spawn(|| copy_output(output, sink));
            let outcome = self.wait(&mut qemu, &run_dir, || copier.is_finished());
            drop(stop);
            // QEMU has ended and closed its end of the pipe, so the copier ends, too.
            let copied = copier.join().unwrap_or(Ok(()));
            copied.at("write", "the output of the command".as_ref())?;
            outcome
        })
    }

    /// Runs a command with our terminal as its controlling terminal, so that all keys reach it, including
    /// Ctrl-C. Our terminal is raw meanwhile and restored afterwards in any case. Standard input and output
    /// must be a terminal (see [`is_interactive`](crate::is_interactive)).
    pub fn run_on_terminal(
        &self,
        argv: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<CommandOutput> {
        let (rows, cols) = terminal::size();
        let (run_dir, mut qemu) = self.start(argv, Channel::Terminal { rows, cols })?;
        let (stop, stopped) =
            io::pipe().at("open", "a pipe".as_ref()).map(|(reader, writer)| (writer, reader))?;
        let raw = RawTerminal::enter().at("set the mode of", "the terminal on standard input".as_ref())?;
        let outcome = thread::scope(|scope| {
            let into = qemu.take_stdin().expect("its standard input is a pipe");
            let output = qemu.take_stdout().expect("its standard output is a pipe");
            let input = scope.spawn(|| copy_stdin(into, stopped, Some(&run_dir)));
            let copier = scope.spawn(|| copy_to_terminal(output));
            let outcome = self.wait(&mut qemu, &run_dir, || copier.is_finished() || input.is_finished());
            drop(stop);
            outcome
        });
        drop(raw);
        outcome
    }

    fn start(
        &self,
        argv: impl IntoIterator<Item = impl AsRef<OsStr>>,
        channel: Channel,
    ) -> Result<(RunDir, Qemu)> {
        let argv: Vec<OsString> = argv.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => std::env::current_dir().at("find", "the current directory".as_ref())?,
        };
        let kernel = self.assets.kernel(KernelKind::Generic61)?;
        let initrd = self.assets.outer_initrd(&kernel)?;
        let run_dir = RunDir::create(&self.assets.runs_dir())?;
        run_dir.write("command", &script::render(&dir, &self.env, &argv))?;
        if let Channel::Stream { has_stdin: true } = channel {
            run_dir.write("has_stdin", b"")?;
        }
        if self.results.is_some() {
            run_dir.write("has_results", b"")?;
        }
        let qemu = Qemu::start(&Machine {
            kernel: &kernel.vmlinuz(),
            initrd: &initrd,
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            channel,
            kernel_parameters: &self.kernel_parameters,
            run_dir: run_dir.path(),
            results: self.results.as_deref(),
        })?;
        Ok((run_dir, qemu))
    }

    /// Waits until QEMU has ended, or ends it: at the time limit, or when `is_cut_off` reports that the
    /// reader has gone.
    fn wait(
        &self,
        qemu: &mut Qemu,
        run_dir: &RunDir,
        is_cut_off: impl Fn() -> bool,
    ) -> Result<CommandOutput> {
        let start = Instant::now();
        let signals = Watch::start().at("watch", "signals".as_ref())?;
        let mut cut_off_at: Option<Instant> = None;
        loop {
            let stage = stage(run_dir);
            if let Some(status) = qemu.ended().at("wait for", "QEMU".as_ref())? {
                return outcome(run_dir)
                    .ok_or_else(|| self.failure(run_dir, stage, &format!("QEMU ended ({status})")));
            }
            if let Some(signal) = signals.caught() {
                qemu.kill();
                return Err(Error::Interrupted { signal });
            }
            if stage != Stage::Command && start.elapsed() > BOOT_TIMEOUT {
                qemu.kill();
                return Err(self.failure(
                    run_dir,
                    stage,
                    &format!("not done after {} s", BOOT_TIMEOUT.as_secs()),
                ));
            }
            if start.elapsed() > self.timeout {
                qemu.kill();
                return Err(Error::Timeout { limit: self.timeout });
            }
            if is_cut_off() && cut_off_at.get_or_insert_with(Instant::now).elapsed() > DRAIN_TIME {
                qemu.kill();
                return Err(self.failure(run_dir, stage, "our standard input or output was closed"));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn failure(&self, run_dir: &RunDir, stage: Stage, problem: &str) -> Error {
        let problem = run_dir.read("failed").unwrap_or_else(|| problem.to_owned());
        let logs = [QEMU_LOG, CONSOLE_LOG].map(|name| run_dir.read(name).unwrap_or_default());
        Error::Rig { stage, problem, log: last_lines(&logs.join("\n"), LOG_LINES) }
    }
}

fn stage(run_dir: &RunDir) -> Stage {
    match run_dir.read("stage").as_deref() {
        None => Stage::Boot,
        Some("command") => Stage::Command,
        Some(_) => Stage::Setup,
    }
}

fn outcome(run_dir: &RunDir) -> Option<CommandOutput> {
    let exit_code = run_dir.read("code")?.parse().ok()?;
    Some(CommandOutput { exit_code, output: Vec::new() })
}

fn is_inherited(name: &str) -> bool {
    INHERITED.contains(&name) || name.starts_with(INHERITED_PREFIX)
}
