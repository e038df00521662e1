//! The outer machine: QEMU's command line and process.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use crate::error::{At, Error, Result};
use crate::packages::{find_program, install};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// How the command in the outer machine is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// /dev/hvc0 of this size as its controlling terminal.
    Terminal { rows: u16, cols: u16 },
    /// Pipes for its output and optionally its input.
    Stream { has_stdin: bool },
}

/// Configuration of the outer machine.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: &'a Path,
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    pub(crate) channel: Channel,
    /// Parameters of its kernel in addition to the usual ones.
    pub(crate) kernel_parameters: &'a str,
    pub(crate) run_dir: &'a Path,
    pub(crate) results: Option<&'a Path>,
}

/// The outer kernel's console, within the run directory.
pub(crate) const CONSOLE_LOG: &str = "console.log";
/// QEMU's own messages, within the run directory.
pub(crate) const QEMU_LOG: &str = "qemu.log";

/// Installs QEMU if it's missing.
pub fn install_qemu() -> Result<()> {
    if find_program(PROGRAM).is_none() { install(&[PACKAGE]) } else { Ok(()) }
}

/// A running QEMU. It dies when this is dropped, and when the thread that started it dies.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
}

impl Qemu {
    /// Starts `machine`, installing QEMU first if it's missing.
    pub(crate) fn start(machine: &Machine<'_>) -> Result<Self> {
        install_qemu()?;
        let log = machine.run_dir.join(QEMU_LOG);
        let log_file = File::create(&log).at("create", &log)?;
        let stdin = match machine.channel {
            Channel::Stream { has_stdin: false } => Stdio::null(),
            _ => Stdio::piped(),
        };
        let child = dying_with_us(PROGRAM)
            .args(arguments(machine))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .map_err(|source| Error::ProgramMissing {
                program: PROGRAM.to_owned(),
                remedy: format!("can't start it ({source}); it's in the package {PACKAGE}"),
            })?;
        Ok(Self { child })
    }

    /// The pipe to the command; `None` on the second call, or if it has none.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// The pipe from the command; `None` on the second call.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The exit status if QEMU has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills QEMU and waits for it. No effect if it has ended.
    pub(crate) fn kill(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A command that receives SIGTERM when the thread that started it ends for any reason. `setpriv` is part of
/// util-linux, which every Debian has; without it, the kill on drop has to suffice.
fn dying_with_us(program: &str) -> Command {
    match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", program]);
            command
        }
        None => Command::new(program),
    }
}

fn arguments(machine: &Machine<'_>) -> Vec<OsString> {
    let mut args = Arguments::default();
    // One thread for all emulated CPUs. With a thread per CPU, QEMU 7.2 sometimes delivers an interrupt to
    // the outer kernel immediately after VMRUN, with the inner guest's GS base still loaded, and the outer
    // kernel panics, about once in ten boots. One thread isn't slower, because its code needs no atomic
    // instructions.
    args.words("-M pc -accel tcg,thread=single -cpu max -display none -nodefaults -no-reboot");
    args.words(&format!("-smp {} -m {}", machine.cpus, machine.memory_mib));
    args.pair("-kernel", machine.kernel.to_owned());
    args.pair("-initrd", machine.initrd.to_owned());
    args.pair("-append", format!("{} {}", command_line(machine.channel), machine.kernel_parameters));
    args.option("-serial", "file:", &machine.run_dir.join(CONSOLE_LOG), "");
    args.share("run_dir", machine.run_dir, "");
    // The host's root spans file systems, so inode numbers must be remapped to stay unique.
    args.share("host", Path::new("/"), ",readonly=on,multidevs=remap");
    if let Some(results) = machine.results {
        args.share("results", results, "");
    }
    args.words("-device virtio-serial-pci");
    match machine.channel {
        Channel::Terminal { .. } => {
            args.words("-chardev stdio,id=terminal,signal=off -device virtconsole,chardev=terminal");
        }
        Channel::Stream { has_stdin } => {
            // Separate files for output and input, because a port whose chardev has reached the end of its
            // input drops all output.
            args.words(
                "-chardev file,id=out,path=/dev/stdout -device virtserialport,chardev=out,name=rig.out",
            );
            if has_stdin {
                args.words("-chardev stdio,id=in,signal=off -device virtserialport,chardev=in,name=rig.in");
            }
        }
    }
    args.0
}

fn command_line(channel: Channel) -> String {
    // A panic resets immediately, which with -no-reboot ends QEMU.
    //
    // A periodic timer rather than a one-shot timer (nohz, highres): QEMU 7.2 occasionally loses an interrupt
    // while an inner guest makes many exits. The local APIC keeps the request, but delivers it only with the
    // next interrupt, which a one-shot timer never raises, so that the outer machine hangs.
    let common = "console=ttyS0 quiet loglevel=1 mitigations=off panic=-1 reboot=k nohz=off highres=off";
    match channel {
        Channel::Terminal { rows, cols } => {
            format!("{common} rig.io=terminal rig.rows={rows} rig.cols={cols}")
        }
        Channel::Stream { .. } => format!("{common} rig.io=stream"),
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn words(&mut self, words: &str) {
        self.0.extend(words.split_whitespace().map(OsString::from));
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }

    fn option(&mut self, name: &str, before: &str, path: &Path, after: &str) {
        let mut value = OsString::from(before);
        value.push(escaped(path));
        value.push(after);
        self.pair(name, value);
    }

    fn share(&mut self, tag: &str, path: &Path, more: &str) {
        let before = format!("local,id={tag},security_model=none,path=");
        self.option("-fsdev", &before, path, more);
        self.words(&format!("-device virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
    }
}

/// In QEMU's option lists, commas within values are doubled.
fn escaped(path: &Path) -> PathBuf {
    match path.to_str() {
        Some(text) => PathBuf::from(text.replace(',', ",,")),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_comma_is_doubled() {
        assert_eq!(escaped(Path::new("/home/a,b")), Path::new("/home/a,,b"));
    }
}
