//! Creates a card from its config.

use std::io;
use std::path::Path;

use rustix::io::Errno;
use vmm_hostio::{FramePort, TapError};
use vmm_virtio::{Claim, DeviceError, Kind, Setting};

use super::Net;
use super::carrier::Carrier;
use super::config::{Backend, Config, ForwardText};
use super::link::{Link, PortLink};
use super::mac::Mac;
use super::properties::{NetProperties, TAP_OFFLOADS, TAP_OFFLOADS_USO, USER_OFFLOADS};
use super::vhost::{self, Kernel};
use super::{passt, user};

/// Default maximum number of queue pairs; one thread serves all of them.
const PAIRS: u32 = 16;

impl Kind for Net {
    const NAME: &'static str = "net";
    const ID: u32 = 1;
    type Config = Config;

    /// Forwarded ports, each of which the host provides only once; a port on one address conflicts with that
    /// on all addresses.
    fn config_claims(config: &Config, _setting: &Setting<'_>) -> Vec<Claim> {
        let forwards = config.forward.iter().flatten().enumerate();
        let claim = |(index, given): (usize, &ForwardText)| Claim {
            part_of: given.0.host_end_of_all(),
            ..Claim::new(format!("forward[{index}]"), "port of the host", given.0.host_end())
        };
        forwards.map(claim).collect()
    }

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, DeviceError> {
        open(&config, setting)
    }
}

fn open(config: &Config, setting: &Setting<'_>) -> Result<Net, DeviceError> {
    check_rules(config)?;
    let limiter = config.limits.limiter()?;
    vhost::check(config, limiter.is_some())?;
    let queues = config.queues.map(|queues| queues.get() as u16);
    let pairs = pairs(queues, setting.vcpus)?;
    let mac_at = |origin: &str| config.mac.unwrap_or_else(|| Mac::of(&[setting.id, origin]));
    let opened = match &config.backend {
        Backend::Tap(name) => {
            OpenedBackend::from_ports(open_tap(name.as_str(), pairs, queues.is_some())?, config)?
        }
        Backend::Passt(path) => {
            check_one_pair(queues, "passt")?;
            OpenedBackend::new(Box::new(passt::open(&setting.path(path))?), "passt", 0)
        }
        Backend::User => {
            check_one_pair(queues, "the user backend")?;
            let (link, mtu) = user::open(config, mac_at("user"))?;
            OpenedBackend { mtu: Some(mtu), ..OpenedBackend::new(link, "user", USER_OFFLOADS) }
        }
        Backend::Fd(fd) => {
            check_one_pair(queues, "a descriptor")?;
            OpenedBackend::from_ports(vec![open_fd(fd.get() as i32)?], config)?
        }
    };
    let OpenedBackend { links, kernel, carrier, origin, offloads, mtu } = opened;
    let mac = mac_at(&origin);
    let properties = NetProperties {
        mac,
        mtu: config.mtu.map(|mtu| mtu.get() as u16).or(mtu),
        pairs: links.len() as u16,
        offloads,
    };
    let through = if origin.is_empty() { "a socket" } else { &origin };
    let by = if kernel.is_some() { ", by vhost" } else { "" };
    let description = format!("{through}{by}, {mac}, pairs of queues: {}", links.len());
    Ok(Net { kernel, carrier, ..Net::new(links, properties, limiter, description)? })
}

/// A backend, opened.
struct OpenedBackend {
    /// One per queue pair.
    links: Vec<Box<dyn Link>>,
    /// Set if the host's kernel serves the queues.
    kernel: Option<Kernel>,
    /// Set for a TAP.
    carrier: Option<Carrier>,
    /// Input for the default MAC address besides the id, also used in the log. Empty for a socket.
    origin: String,
    /// Supported offloads as TUN_F_ bits.
    offloads: u32,
    /// Default MTU, if it differs from Ethernet's.
    mtu: Option<u16>,
}

impl OpenedBackend {
    fn new(link: Box<dyn Link>, origin: &str, offloads: u32) -> Self {
        Self {
            links: vec![link],
            kernel: None,
            carrier: None,
            origin: origin.to_owned(),
            offloads,
            mtu: None,
        }
    }

    fn from_ports(ports: Vec<FramePort>, config: &Config) -> Result<Self, DeviceError> {
        let kernel = Kernel::open(config, &ports)?;
        let carrier = ports[0].name().map(Carrier::of).transpose();
        let carrier = carrier.map_err(|error| DeviceError::host("backend", error))?.flatten();
        let origin = ports[0].name().unwrap_or_default().to_owned();
        let offloads = probe(&ports[0]).map_err(|error| DeviceError::host("backend", error))?;
        let links = ports.into_iter().map(|port| Box::new(PortLink::new(port)) as Box<dyn Link>);
        Ok(Self { links: links.collect(), kernel, carrier, origin, offloads, mtu: None })
    }
}

/// Rejects rules for backends that would ignore them.
fn check_rules(config: &Config) -> Result<(), DeviceError> {
    if matches!(config.backend, Backend::User) {
        return Ok(());
    }
    let given = [
        ("allow", config.allow.is_some()),
        ("forward", config.forward.is_some()),
        ("dns", config.dns.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((field, _)) => Err(DeviceError::config(
            field,
            "only \"backend\": \"user\" supports this; use that, or remove the field",
        )),
        None => Ok(()),
    }
}

fn check_one_pair(queues: Option<u16>, backend: &str) -> Result<(), DeviceError> {
    if queues.is_some_and(|queues| queues > 1) {
        return Err(DeviceError::config(
            "queues",
            format!("{backend} has a single queue pair, remove \"queues\""),
        ));
    }
    Ok(())
}

/// The number of pairs, at least one.
fn pairs(given: Option<u16>, vcpus: u32) -> Result<u16, DeviceError> {
    let Some(pairs) = given else { return Ok(vcpus.clamp(1, PAIRS) as u16) };
    let most = vcpus.clamp(1, PAIRS);
    if u32::from(pairs) > most {
        let problem =
            format!("{pairs} queue pairs are more than the vCPUs or more than {PAIRS}, at most {most}");
        return Err(DeviceError::config("queues", problem));
    }
    Ok(pairs)
}

fn open_fd(fd: i32) -> Result<FramePort, DeviceError> {
    if fd < 3 {
        let problem = format!("{fd} can't be used for frames: 0 to 2 are the monitor's standard streams");
        return Err(DeviceError::config("backend.fd", problem));
    }
    FramePort::inherited(fd).map_err(|error| {
        let problem = match Errno::from_io_error(&error) {
            Some(Errno::BADF) => format!(
                "descriptor {fd} isn't open: the monitor didn't inherit it; pass it to the monitor, or correct the number"
            ),
            _ => format!("descriptor {fd} {error}"),
        };
        DeviceError::config("backend.fd", problem)
    })
}

/// Opens the TAP once per pair.
fn open_tap(name: &str, pairs: u16, is_wanted: bool) -> Result<Vec<FramePort>, DeviceError> {
    let is_invalid = |error: &TapError| matches!(error, TapError::Interface(error) if error.kind() == io::ErrorKind::InvalidInput);
    let refused = |error| refusal(name, &error);
    let has_many = pairs > 1;
    let (first, pairs) = match FramePort::tap(name, has_many) {
        // It was created for a single queue or for several, and we asked for the other.
        Err(error) if is_invalid(&error) && has_interface(name, "tun_flags") => {
            if is_wanted && has_many {
                let problem = format!(
                    "{name} has a single queue: remove \"queues\", or recreate it by \
                     `sudo ip tuntap del {name} mode tap; sudo ip tuntap add {name} mode tap multi_queue user $USER`"
                );
                return Err(DeviceError::config("queues", problem));
            }
            (FramePort::tap(name, !has_many).map_err(refused)?, 1)
        }
        other => (other.map_err(refused)?, pairs),
    };
    let more = (1..pairs).map(|_| FramePort::tap(name, true).map_err(refused));
    let ports = std::iter::once(Ok(first)).chain(more).collect::<Result<Vec<_>, _>>()?;
    if queues_in_use(name) > ports.len() {
        return Err(refusal(name, &TapError::Interface(io::ErrorKind::ResourceBusy.into())));
    }
    Ok(ports)
}

/// Number of queues in use. A multi-queue TAP can be opened while another program uses it, but that program
/// would then lose frames to us. 0 if sysfs doesn't show it.
fn queues_in_use(name: &str) -> usize {
    let queues = std::fs::read_dir(Path::new("/sys/class/net").join(name).join("queues"));
    let names = queues.into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with("rx-")).count()
}

/// Whether the interface exists and has a file of this name in sysfs.
fn has_interface(name: &str, file: &str) -> bool {
    Path::new("/sys/class/net").join(name).join(file).exists()
}

/// Explains why the TAP can't be used, with the command that fixes it.
fn refusal(name: &str, error: &TapError) -> DeviceError {
    let add = format!("sudo ip tuntap add {name} mode tap user $USER");
    let host = |problem: String| DeviceError::host("backend.tap", problem);
    match error {
        TapError::Device(error) => match error.kind() {
            io::ErrorKind::NotFound => {
                host("there is no /dev/net/tun: `sudo modprobe tun` loads the kernel's driver".into())
            }
            io::ErrorKind::PermissionDenied => host(
                "/dev/net/tun isn't open to you: `sudo chmod 666 /dev/net/tun` (each TAP has its own owner)"
                    .into(),
            ),
            _ => host(format!("/dev/net/tun can't be opened: {error}")),
        },
        TapError::Interface(error) => match error.kind() {
            io::ErrorKind::ResourceBusy => {
                host(format!("{name} is in use by another program: stop that one, or use another TAP"))
            }
            io::ErrorKind::PermissionDenied if has_interface(name, "") => host(format!(
                "{name} belongs to another user: `sudo ip tuntap del {name} mode tap; {add}` makes it yours"
            )),
            io::ErrorKind::PermissionDenied => host(format!(
                "there is no {name}, and you may not make one: `{add} && sudo ip link set {name} up` does"
            )),
            io::ErrorKind::InvalidInput if has_interface(name, "") => DeviceError::config(
                "backend.tap",
                format!("{name} isn't a TAP: `{add}` with another name creates one"),
            ),
            _ => host(format!("{name} can't be opened: {error}")),
        },
        TapError::Setup(call, error) => host(format!("{name} can't be set up: {call}: {error}")),
    }
}

/// Determines the supported TUN_F_ bits, and disables them again.
fn probe(port: &FramePort) -> io::Result<u32> {
    // A socket's peer doesn't complete checksums.
    if port.name().is_none() {
        return Ok(0);
    }
    let offloads = [TAP_OFFLOADS_USO, TAP_OFFLOADS].into_iter().find(|all| port.set_offloads(*all).is_ok());
    port.set_offloads(0)?;
    Ok(offloads.unwrap_or(0))
}
