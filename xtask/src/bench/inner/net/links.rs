//! The network interfaces of the benchmark, in this process's network namespace: a TAP for each guest, and a veth pair that connects a
//! second namespace.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::super::super::spec::NetKind;

/// Name of the TAP, which is created anew for each guest.
pub(in super::super::super) const TAP: &str = "vmmbench";
/// The addresses of both ends of a TAP. They can't conflict with others, since the namespace is our own.
pub(in super::super::super) const HOST: &str = "10.77.0.1";
pub(in super::super::super) const GUEST: &str = "10.77.0.2";
/// The addresses of the veth pair.
pub(super) const VETH_HOST: &str = "10.78.0.1";
const VETH_OTHER: &str = "10.78.0.2";

/// A TAP with its address, which is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct Tap(());

impl Tap {
    /// Creates the TAP for a contender of this kind; `None` in user mode.
    pub(super) fn make(kind: NetKind) -> Result<Option<Self>, String> {
        let more = match kind {
            NetKind::User | NetKind::UserOff => return Ok(None),
            NetKind::Tap4 | NetKind::Qemu4 => " multi_queue",
            _ => "",
        };
        ip(&format!("tuntap add dev {TAP} mode tap{more}"))?;
        let tap = Self(());
        ip(&format!("address add {HOST}/24 dev {TAP}"))?;
        ip(&format!("link set {TAP} up"))?;
        Ok(Some(tap))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // If this fails, it is deleted with the namespace.
        let _ = ip(&format!("link delete {TAP}"));
    }
}

/// A veth pair and the namespace of its other end; both exist until this is dropped.
#[derive(Debug)]
pub(super) struct Veth {
    /// The process that keeps the namespace alive.
    holder: Child,
}

impl Veth {
    /// Creates both, and brings up the loopback interface.
    pub(super) fn set_up() -> Result<Self, String> {
        ip("link set lo up")?;
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo up; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("can't start unshare: {error}"))?;
        let said = BufReader::new(holder.stdout.take().expect("it is a pipe")).lines().next();
        let veth = Self { holder };
        // Before it prints, the process is still in our namespace.
        if !matches!(said, Some(Ok(_))) {
            return Err("unshare didn't create a network namespace".to_owned());
        }
        let pid = veth.holder.id();
        ip(&format!("link add vmmveth0 type veth peer name vmmveth1 netns {pid}"))?;
        ip(&format!("address add {VETH_HOST}/24 dev vmmveth0"))?;
        ip("link set vmmveth0 up")?;
        for words in [&format!("address add {VETH_OTHER}/24 dev vmmveth1")[..], "link set vmmveth1 up"] {
            let words: Vec<_> = ["ip"].into_iter().chain(words.split(' ')).map(str::to_owned).collect();
            run(&mut veth.command(&words))?;
        }
        Ok(veth)
    }

    /// A command that runs in the other namespace.
    pub(super) fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string()]).args(words);
        command
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn ip(words: &str) -> Result<(), String> {
    run(Command::new("ip").args(words.split(' ')))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output();
    let words = || {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{}: {}", words(), last_line(&output.stderr))),
        Err(error) => Err(format!("{}: {error}", words())),
    }
}

/// The last line of a command's output.
pub(super) fn last_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().lines().last().unwrap_or_default().to_owned()
}
