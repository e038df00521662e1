//! The monitors and network cards that are compared.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::super::contenders::{OUR_ARGUMENTS, Placeholders, QEMU_COMMAND, has_qemu, peers};
use super::super::inner;
use super::super::spec::{NetContender, NetKind};
use crate::failure::Failure;

const CMDLINE: &str = "console=ttyS0 reboot=k panic=-1 quiet";

/// Number of vCPUs and queue pairs of multi-queue candidates.
const MULTI_QUEUE: u32 = 4;
/// All contenders except those of `--peer`, in the order of the table.
const CANDIDATES: [Candidate; 11] = [
    Candidate { kind: NetKind::Tap, name: "vmm-bin, TAP", cpus: 1 },
    Candidate { kind: NetKind::TapMmio, name: "vmm-bin, TAP, MMIO", cpus: 1 },
    Candidate { kind: NetKind::Tap4, name: "vmm-bin, TAP, 4 queues", cpus: MULTI_QUEUE },
    Candidate { kind: NetKind::Vhost, name: "vmm-bin, vhost", cpus: 1 },
    Candidate { kind: NetKind::VhostMmio, name: "vmm-bin, vhost, MMIO", cpus: 1 },
    Candidate { kind: NetKind::User, name: "vmm-bin, user mode", cpus: 1 },
    Candidate { kind: NetKind::TapOff, name: "vmm-bin, TAP, no sandbox", cpus: 1 },
    Candidate { kind: NetKind::UserOff, name: "vmm-bin, user, no sandbox", cpus: 1 },
    Candidate { kind: NetKind::Qemu, name: "QEMU microvm, TAP", cpus: 1 },
    Candidate { kind: NetKind::Qemu4, name: "QEMU microvm, 4 queues", cpus: MULTI_QUEUE },
    Candidate { kind: NetKind::QemuVhost, name: "QEMU microvm, vhost", cpus: 1 },
];
/// The kinds that are measured by default.
const DEFAULT: [NetKind; 8] = [
    NetKind::Tap,
    NetKind::TapMmio,
    NetKind::Tap4,
    NetKind::Vhost,
    NetKind::VhostMmio,
    NetKind::User,
    NetKind::Qemu,
    NetKind::Qemu4,
];
/// QEMU's network card, with the modern virtio-mmio registers, which vmm-bin has as well.
const QEMU_CARD: &str = "-global virtio-mmio.force-legacy=false \
    -netdev tap,id=net,ifname={tap},script=no,downscript=no{netdev} -device virtio-net-device,netdev=net{card}";

struct Candidate {
    kind: NetKind,
    name: &'static str,
    cpus: u32,
}

/// Writes a file with this name and contents and returns its path.
pub(super) type Write = fn(&str, &[u8]) -> Result<PathBuf, Failure>;

/// The contenders of `kinds`, or of the default kinds if that is empty; then those of `--peer`, which replace QEMU. vmm-bin's configs
/// are written by `write`.
pub(super) fn contenders(
    kinds: &[NetKind],
    given: &[String],
    placeholders: &Placeholders,
    write: Write,
) -> Result<Vec<NetContender>, Failure> {
    let wants = |candidate: &&Candidate| match kinds.is_empty() {
        false => kinds.contains(&candidate.kind),
        true => {
            DEFAULT.contains(&candidate.kind) && (candidate.kind.is_ours() || given.is_empty() && has_qemu())
        }
    };
    let mut contenders: Vec<_> = CANDIDATES
        .iter()
        .filter(wants)
        .map(|candidate| candidate.contender(placeholders, write))
        .collect::<Result<_, _>>()?;
    if !given.is_empty() {
        let placeholders = guest(placeholders.clone(), NetKind::Peer, 1);
        let peer = |peer: super::super::spec::Contender| NetContender {
            kind: NetKind::Peer,
            name: peer.name,
            argv: peer.argv,
            check: None,
        };
        contenders.extend(peers(given, ("", ""), &placeholders)?.into_iter().map(peer));
    }
    Ok(contenders)
}

impl NetKind {
    /// Whether the monitor is vmm-bin.
    pub(in super::super) fn is_ours(self) -> bool {
        !matches!(self, Self::Qemu | Self::Qemu4 | Self::QemuVhost | Self::Peer)
    }

    /// vmm-bin's transport of this kind, as in a config.
    fn transport(self) -> &'static str {
        match self {
            Self::TapMmio | Self::VhostMmio => "mmio",
            _ => "pci",
        }
    }

    /// vmm-bin's device of this kind, as in a config.
    fn device(self) -> Value {
        let tap = inner::net::TAP;
        match self {
            Self::Vhost | Self::VhostMmio => {
                json!({ "type": "net", "backend": { "tap": tap }, "vhost": true })
            }
            Self::User | Self::UserOff => json!({ "type": "net", "backend": "user", "allow": "all" }),
            _ => json!({ "type": "net", "backend": { "tap": tap } }),
        }
    }
}

impl Candidate {
    fn contender(&self, placeholders: &Placeholders, write: Write) -> Result<NetContender, Failure> {
        let placeholders = guest(placeholders.clone(), self.kind, self.cpus);
        if !self.kind.is_ours() {
            let (netdev, card) = match self.kind {
                NetKind::Qemu4 => (format!(",queues={}", self.cpus), ",mq=on"),
                NetKind::QemuVhost => (",vhost=on".to_owned(), ""),
                _ => (String::new(), ""),
            };
            let card = QEMU_CARD.replace("{netdev}", &netdev).replace("{card}", card);
            let argv = placeholders.contender(self.name, &format!("{QEMU_COMMAND} {card}"))?.argv;
            return Ok(NetContender { kind: self.kind, name: self.name.to_owned(), argv, check: None });
        }
        let config =
            json!({ "transport": self.kind.transport(), "devices": [self.kind.device()] }).to_string();
        let file = format!("net-{}.json", format!("{:?}", self.kind).to_lowercase());
        let config = write(&file, config.as_bytes())?;
        let placeholders = placeholders.with("config", config.to_string_lossy());
        let sandbox = match self.kind {
            NetKind::TapOff | NetKind::UserOff => " --sandbox off",
            _ => "",
        };
        let command =
            format!("{{monitor}} --config {{config}} --kernel {{vmlinux}} {OUR_ARGUMENTS}{sandbox}");
        let argv = placeholders.contender(self.name, &command)?.argv;
        let check = Some([&argv[..], &["--check".to_owned()]].concat());
        Ok(NetContender { kind: self.kind, name: self.name.to_owned(), argv, check })
    }
}

/// Adds the placeholders for the guest's command line, which describes its network, and for its CPUs.
fn guest(placeholders: Placeholders, kind: NetKind, cpus: u32) -> Placeholders {
    let (address, server, flows) = match kind {
        NetKind::User | NetKind::UserOff => {
            ("10.0.2.15", "10.0.2.2", placeholders.of("flows").unwrap_or("0").to_owned())
        }
        _ => (inner::net::GUEST, inner::net::HOST, "0".to_owned()),
    };
    let seconds = placeholders.of("seconds").unwrap_or_default();
    let cmdline = format!(
        "{} net.address={address}/24 net.server={server} net.seconds={seconds} net.flows={flows}",
        CMDLINE
    );
    placeholders.with("cmdline", cmdline).with("cpus", cpus.to_string()).with("tap", inner::net::TAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placeholders() -> Placeholders {
        Placeholders::default().with("seconds", "3").with("flows", "1000").with("monitor", "/vmm")
    }

    fn nowhere(name: &str, _: &[u8]) -> Result<PathBuf, Failure> {
        Ok(name.into())
    }

    #[test]
    fn contenders_peers_take_the_place_of_qemu() {
        let contenders =
            contenders(&[], &["other=/other --tap {tap} {cpus}".to_owned()], &placeholders(), nowhere)
                .unwrap();
        let kinds: Vec<_> = contenders.iter().map(|contender| contender.kind).collect();
        let ours = [
            NetKind::Tap,
            NetKind::TapMmio,
            NetKind::Tap4,
            NetKind::Vhost,
            NetKind::VhostMmio,
            NetKind::User,
        ];
        assert_eq!(kinds, [&ours[..], &[NetKind::Peer]].concat());
        assert_eq!(contenders[6].argv, ["/other", "--tap", "vmmbench", "1"]);
    }

    #[test]
    fn contenders_named_are_the_only_ones() {
        let contenders =
            contenders(&[NetKind::QemuVhost, NetKind::Tap], &[], &placeholders(), nowhere).unwrap();
        let names: Vec<_> = contenders.iter().map(|contender| &contender.name[..]).collect();
        assert_eq!(names, ["vmm-bin, TAP", "QEMU microvm, vhost"]);
        assert!(
            contenders[1]
                .argv
                .contains(&"tap,id=net,ifname=vmmbench,script=no,downscript=no,vhost=on".to_owned())
        );
    }

    #[test]
    fn contender_of_ours_is_checked_by_its_own_words() {
        let contender = &contenders(&[NetKind::Tap], &[], &placeholders(), nowhere).unwrap()[0];
        let check = contender.check.as_ref().unwrap();
        assert_eq!(check[..check.len() - 1], contender.argv);
        assert_eq!(check.last().unwrap(), "--check");
    }

    #[test]
    fn guest_in_user_mode_alone_opens_idle_connections() {
        let cmdline = |kind| guest(placeholders(), kind, 1).of("cmdline").unwrap().to_owned();
        assert!(
            cmdline(NetKind::User)
                .ends_with("net.address=10.0.2.15/24 net.server=10.0.2.2 net.seconds=3 net.flows=1000")
        );
        assert!(cmdline(NetKind::Tap).ends_with("net.server=10.77.0.1 net.seconds=3 net.flows=0"));
    }
}
