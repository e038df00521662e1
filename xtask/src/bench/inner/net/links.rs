//! The ends of the network that is measured, in this process's own network namespace: a TAP for each guest, and a veth pair
//! into a second namespace.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::super::super::spec::NetKind;

/// The TAP of every guest, by turns.
pub(in super::super::super) const TAP: &str = "vmmbench";
/// The addresses at a TAP's two ends. Nothing else is in this namespace that they could collide with.
pub(in super::super::super) const HOST: &str = "10.77.0.1";
pub(in super::super::super) const GUEST: &str = "10.77.0.2";
/// Those of the pair.
pub(super) const VETH_HOST: &str = "10.78.0.1";
const VETH_OTHER: &str = "10.78.0.2";

/// A TAP that is there, with its address, while this lives.
#[derive(Debug)]
pub(super) struct Tap(());

impl Tap {
    /// Makes the one for a contender of this kind; in user mode there is none.
    pub(super) fn make(kind: NetKind) -> Result<Option<Self>, String> {
        let more = match kind {
            NetKind::User => return Ok(None),
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
        // It is gone with the namespace at the latest.
        let _ = ip(&format!("link delete {TAP}"));
    }
}

/// A pair, and the namespace of its other end, which are there while this lives.
#[derive(Debug)]
pub(super) struct Veth {
    /// Keeps the namespace.
    holder: Child,
}

impl Veth {
    /// Makes both, and brings up loopback.
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
        // Until then the process is in this namespace.
        if !matches!(said, Some(Ok(_))) {
            return Err("unshare made no network namespace".to_owned());
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

    /// The command in the other namespace.
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

/// What a command said last.
pub(super) fn last_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().lines().last().unwrap_or_default().to_owned()
}
