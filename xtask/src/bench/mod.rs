//! `cargo xtask bench`: start-up time and memory of our monitor beside others', on the same kernel and initramfs, in
//! interleaved runs so that a noisy machine treats them alike.
//!
//! The outer half prepares and reports; [`inner`] measures, in the rig where this host's KVM can't run Linux. [`exits`] is a
//! benchmark of its own, whose tables follow.

mod exits;
pub(crate) mod inner;
mod report;
mod spec;
mod words;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use rig::packages::find_program;
use rig::{Assets, KernelKind, Rig, note};

use crate::{Failure, workspace};
use spec::{Contender, Sample, Spec};

const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";
const QEMU: &str = "qemu-system-x86_64";
const QEMU_COMMAND: &str = "qemu-system-x86_64 -M microvm -enable-kvm -cpu host -m {mem_mib} -smp 1 \
    -kernel {kernel} -initrd {initrd} -append {cmdline} \
    -nodefaults -no-user-config -display none -serial stdio -no-reboot";
/// The slowest monitor known needs 14 s in the rig; each run of it gets this long.
const RUN_TIMEOUT_S: u64 = 60;
const SPEC_FILE: &str = "spec.json";
pub(crate) const SAMPLES_FILE: &str = "samples.json";

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    only: Option<Only>,
    /// Runs of each monitor
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Guest memory in MiB
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    memory: u32,
    /// Another monitor's command, with {kernel} (bzImage) {vmlinux} {initrd} {cmdline} {mem_mib} in it; without any, QEMU's
    /// microvm if it's installed
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<String>,
    /// Measure this monitor instead of building vmm-bin
    #[arg(long, value_name = "PATH")]
    monitor: Option<PathBuf>,
    /// Leave our own monitor out
    #[arg(long)]
    peers_only: bool,
    /// Use the rig even if this host's KVM runs Linux
    #[arg(long)]
    rig: bool,
}

/// One part of the benchmark.
#[derive(Debug, clap::Subcommand)]
enum Only {
    /// Exits per second beside a bare loop on kvm-ioctls
    Exits(exits::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    if let Some(Only::Exits(arguments)) = &arguments.only {
        return exits::run(arguments);
    }
    let assets = Assets::at(workspace::root());
    let kernel = assets.kernel(KernelKind::Cloud61)?;
    let files = Files {
        kernel: kernel.vmlinuz(),
        vmlinux: kernel.vmlinux()?,
        initrd: assets.guest_initrd()?,
        mem_mib: arguments.memory,
    };
    let mut contenders = Vec::new();
    let mut monitor = None;
    if !arguments.peers_only {
        let path = match &arguments.monitor {
            Some(path) => {
                fs::canonicalize(path).map_err(|error| format!("can't open {}: {error}", path.display()))?
            }
            None => workspace::build_monitor(),
        };
        contenders.extend(ours(&path, &files));
        monitor = Some(path);
    }
    contenders.extend(peers(&arguments.peer, &files)?);
    let spec = Spec {
        runs: arguments.runs,
        mem_mib: arguments.memory,
        timeout_s: RUN_TIMEOUT_S,
        warm: vec![files.kernel, files.vmlinux, files.initrd],
        contenders,
    };
    note(&format!("kernel {}, {} MiB, {} runs each", kernel.release(), spec.mem_mib, spec.runs));
    let samples = measure(&spec, &assets, arguments.rig)?;
    report::print(&spec, &samples, monitor.as_deref());
    // Exits are those of the crates beside us; who measures others, or an older build, doesn't ask for them.
    if arguments.peers_only || arguments.monitor.is_some() {
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    exits::run(&exits::Arguments::with_rig(arguments.rig))
}

/// What every monitor gets.
struct Files {
    kernel: PathBuf,
    vmlinux: PathBuf,
    initrd: PathBuf,
    mem_mib: u32,
}

impl Files {
    fn fill(&self, word: &str) -> String {
        word.replace("{kernel}", &self.kernel.to_string_lossy())
            .replace("{vmlinux}", &self.vmlinux.to_string_lossy())
            .replace("{initrd}", &self.initrd.to_string_lossy())
            .replace("{cmdline}", CMDLINE)
            .replace("{mem_mib}", &self.mem_mib.to_string())
    }
}

fn ours(monitor: &Path, files: &Files) -> [Contender; 2] {
    let with = |name: &str, kernel: &str| {
        let words = ["-v", "--kernel", kernel, "--initrd", "{initrd}", "--cmdline", "{cmdline}"];
        let size = ["--memory", "{mem_mib}M", "--cpus", "1"];
        let mut argv = vec![monitor.to_string_lossy().into_owned()];
        argv.extend(words.iter().chain(&size).map(|word| files.fill(word)));
        Contender { name: name.to_owned(), argv }
    };
    [with("vmm-bin, ELF", "{vmlinux}"), with("vmm-bin, bzImage", "{kernel}")]
}

fn peers(given: &[String], files: &Files) -> Result<Vec<Contender>, Failure> {
    let default = [format!("QEMU microvm, bzImage={QEMU_COMMAND}")];
    let peers = if given.is_empty() && find_program(QEMU).is_some() { &default[..] } else { given };
    peers.iter().map(|peer| contender(peer, files)).collect()
}

fn contender(peer: &str, files: &Files) -> Result<Contender, Failure> {
    let (name, command) =
        peer.split_once('=').ok_or_else(|| format!("--peer {peer}: write it as NAME=COMMAND"))?;
    let words = words::split(command).ok_or_else(|| format!("--peer {name}: a quote is not closed"))?;
    if words.is_empty() {
        return Err(format!("--peer {name}: the command is empty").into());
    }
    // Filled after splitting: the command line stays one word.
    Ok(Contender { name: name.to_owned(), argv: words.iter().map(|word| files.fill(word)).collect() })
}

/// Runs the inner half where guests can run, and reads what it measured.
fn measure(spec: &Spec, assets: &Assets, always_rig: bool) -> Result<Vec<Sample>, Failure> {
    let dir = workspace::target_dir().join("bench");
    fs::create_dir_all(&dir).map_err(|error| format!("can't create {}: {error}", dir.display()))?;
    let spec_path = dir.join(SPEC_FILE);
    fs::write(&spec_path, serde_json::to_vec_pretty(spec)?)
        .map_err(|error| format!("can't write {}: {error}", spec_path.display()))?;
    let inner = |out: &Path| -> Result<[OsString; 4], Failure> {
        let program = std::env::current_exe()?.into_os_string();
        Ok([program, "bench-inner".into(), spec_path.clone().into_os_string(), out.as_os_str().to_owned()])
    };
    let code = match rig::reason_for_rig() {
        None if !always_rig => {
            let command = inner(&dir)?;
            Command::new(&command[0]).args(&command[1..]).status()?.code().unwrap_or(1)
        }
        reason => {
            let reason = reason.map_or("as asked".to_owned(), |reason| reason.to_string());
            note(&format!("{reason}; measuring in the rig"));
            let each = u64::from(spec.runs) * spec.contenders.len() as u64 * (spec.timeout_s + 10);
            Rig::new(assets)
                .results(&dir)
                .timeout(Duration::from_secs(120 + each))
                .run(inner(Path::new(rig::RESULTS_DIR))?)?
                .exit_code
        }
    };
    if code != 0 {
        return Err(format!("the measuring half failed with exit code {code}").into());
    }
    let samples = dir.join(SAMPLES_FILE);
    let text = fs::read(&samples).map_err(|error| format!("can't read {}: {error}", samples.display()))?;
    Ok(serde_json::from_slice(&text)?)
}
