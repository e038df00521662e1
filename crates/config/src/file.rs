//! A config file: all fields are optional, and those present are valid.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_path_to_error::{Segment, Track};

use crate::{
    affinity::{self, HostCpus},
    announce::AnnounceVirtio,
    cmdline::CommandLine,
    count::CpuCount,
    device::Device,
    error::{ConfigError, Position, ReadProblem},
    expect::{Expect, ExpectSection},
    features::CpuFeatures,
    flat::FlatSection,
    on_reboot::OnReboot,
    path::FilePath,
    protocol::Protocol,
    sandbox::Sandbox,
    serial::Serial,
    size::{ByteSize, MemorySize},
    strict,
    text::quote,
    text_file::{self, is_descriptor, read_text},
    transport::Transport,
    user::User,
};

/// A virtual machine, as described by a config file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object such as {\"boot\": {\"kernel\": \"vmlinuz\"}}")]
#[schemars(title = "vmm config")]
pub struct ConfigFile {
    /// What the guest boots.
    #[serde(deserialize_with = "strict::object", skip_serializing_if = "is_default")]
    pub boot: BootSection,
    /// The guest's memory.
    #[serde(deserialize_with = "strict::object", skip_serializing_if = "is_default")]
    pub memory: MemorySection,
    /// The virtual processors.
    #[serde(deserialize_with = "strict::object", skip_serializing_if = "is_default")]
    pub cpus: CpusSection,
    /// Where the first serial port, COM1, is connected.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Serial", extend("default" = Serial::default()))]
    pub serial: Option<Serial>,
    /// Whether KVM emulates the interrupt controllers, the timer and the local APICs. Without them hlt ends
    /// the guest, and there is one processor. Enabled by default, except for a flat image on one processor
    /// without virtio devices.
    #[serde(deserialize_with = "strict::present_bool", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub irqchip: Option<bool>,
    /// What happens when the guest resets the machine: the monitor exits, or the machine restarts.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnReboot", extend("default" = OnReboot::default()))]
    pub on_reboot: Option<OnReboot>,
    /// A unix socket at which the monitor accepts commands, of mode 0600; default: none. A relative path starts at the
    /// directory of this file.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub control: Option<FilePath>,
    /// How a Linux kernel discovers its virtio devices: through the ACPI tables or its command line.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AnnounceVirtio", extend("default" = AnnounceVirtio::default()))]
    pub announce_virtio: Option<AnnounceVirtio>,
    /// The transport of virtio devices. The default is PCI for a kernel that discovers them through the ACPI tables, and MMIO
    /// otherwise.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Transport")]
    pub transport: Option<Transport>,
    /// How the monitor confines itself: as far as the host allows, completely or not at all. With an object, its filters of
    /// system calls only log.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Sandbox", extend("default" = Sandbox::default()))]
    pub sandbox: Option<Sandbox>,
    /// The user and the group to which a monitor changes that root has started.
    #[serde(deserialize_with = "strict::object", skip_serializing_if = "is_default")]
    pub user: User,
    /// Additional devices.
    #[serde(deserialize_with = "devices", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Conditions that must hold when the guest halts; otherwise the run ends with an error. Only without
    /// irqchip.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExpectSection")]
    pub expect: Option<Expect>,
    /// The file that this was read from. Relative paths start at its directory, or at the current directory
    /// if it is a descriptor such as `/dev/stdin`. `None` without a file.
    #[serde(skip)]
    pub origin: Option<PathBuf>,
}

/// What the guest boots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object such as {\"kernel\": \"vmlinuz\"}")]
pub struct BootSection {
    /// The kernel: an ELF vmlinux or a bzImage. Required, here or by --kernel, unless there is a flat image.
    /// A relative path starts at the directory of this file.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub kernel: Option<FilePath>,
    /// The initial RAM disk (initramfs); default: none. A relative path starts at the directory of this file.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FilePath")]
    pub initrd: Option<FilePath>,
    /// The kernel's command line, of printable ASCII. Among flat images, only multiboot kernels use it,
    /// without a default.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CommandLine", extend("default" = CommandLine::default()))]
    pub cmdline: Option<CommandLine>,
    /// How the kernel is entered.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Protocol", extend("default" = Protocol::default()))]
    pub protocol: Option<Protocol>,
    /// A flat image, in place of kernel, initrd and protocol.
    #[serde(deserialize_with = "strict::present_object", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FlatSection")]
    pub flat: Option<FlatSection>,
}

/// The guest's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object such as {\"size\": \"512M\"}")]
pub struct MemorySection {
    /// Size of the guest's memory: digits and K, M, G or T (binary), "4K" to "4096T", a multiple of 4 KiB.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MemorySize", extend("default" = MemorySize::default()))]
    pub size: Option<MemorySize>,
    /// Whether it is a memfd, which other processes can map if they receive it.
    #[serde(deserialize_with = "strict::present_bool", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool", extend("default" = false))]
    pub shared: Option<bool>,
}

/// The virtual processors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, expecting = "an object such as {\"count\": 1}")]
pub struct CpusSection {
    /// Number of processors, 1 to 4096; the host's KVM may allow fewer.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CpuCount", extend("default" = CpuCount::default()))]
    pub count: Option<CpuCount>,
    /// Threads per core; default: 1, unless the other numbers imply more.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CpuCount")]
    pub threads_per_core: Option<CpuCount>,
    /// Cores per socket; default: as many as the count requires, unless the other numbers are set.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CpuCount")]
    pub cores_per_socket: Option<CpuCount>,
    /// Number of sockets; default: 1, unless the other numbers imply more.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CpuCount")]
    pub sockets: Option<CpuCount>,
    /// For each processor, the list of host CPUs on which it may run; default: the host decides.
    #[serde(deserialize_with = "affinity::lists", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<HostCpus>")]
    pub affinity: Option<Vec<HostCpus>>,
    /// The guest's CPU features: those of the host, or of a baseline that many hosts share, and changes to
    /// them.
    #[serde(deserialize_with = "strict::present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CpuFeatures", extend("default" = CpuFeatures::default()))]
    pub features: Option<CpuFeatures>,
}

fn devices<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Device>, D::Error> {
    strict::list(deserializer, "a list such as [{\"type\": \"debug-console\"}]")
}

/// Whether a section is empty, and thus omitted when printed.
fn is_default<T: Default + PartialEq>(section: &T) -> bool {
    *section == T::default()
}

impl ConfigFile {
    /// Maximum length of a file read by [`ConfigFile::read`]: a hundred times the total length of all fields
    /// at their maximum.
    pub const MAX_LEN: ByteSize = text_file::MAX_LEN;

    /// Parses `text` from the file `origin`, which is the name in messages and the base of relative paths.
    ///
    /// # Errors
    /// The first error, with its position. Never panics on any text.
    pub fn parse(text: &str, origin: &Path) -> Result<ConfigFile, ConfigError> {
        if text.trim().is_empty() {
            return Err(ConfigError::Read { file: origin.to_owned(), problem: ReadProblem::Empty });
        }
        if text.starts_with('\u{feff}') {
            let message = "byte order mark, save the file as UTF-8 without one".to_owned();
            let at = Position { line: 1, column: 1 };
            return Err(ConfigError::Syntax { file: origin.to_owned(), at, message });
        }
        let mut track = Track::new();
        let mut json = serde_json::Deserializer::from_str(text);
        let parsed: Result<ConfigFile, _> =
            strict::object(serde_path_to_error::Deserializer::new(&mut json, &mut track));
        match parsed.and_then(|file| json.end().map(|()| file)) {
            Ok(file) => Ok(ConfigFile { origin: Some(origin.to_owned()), ..file }),
            Err(error) => Err(located(&error, json_path(&track.path()), origin)),
        }
    }

    /// Base of relative paths: the file's directory, or the current one if it has none.
    pub fn directory(&self) -> PathBuf {
        let origin = self.origin.as_deref().filter(|origin| !is_descriptor(origin));
        origin.and_then(Path::parent).unwrap_or(Path::new("")).to_owned()
    }

    /// Reads the file `path`, or a pipe if the path is that of a descriptor such as `/dev/stdin`.
    ///
    /// # Errors
    /// As for [`ConfigFile::parse`]; `path` isn't a regular text file of at most [`ConfigFile::MAX_LEN`]
    /// bytes.
    pub fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
        ConfigFile::parse(&read_text(path)?, path)
    }
}

/// Converts serde's error. Invalid JSON is reported with the parser's message and the position only, because
/// the path would be that of the last valid value.
fn located(error: &serde_json::Error, field: String, origin: &Path) -> ConfigError {
    let file = origin.to_owned();
    let at = Position { line: error.line(), column: error.column() };
    let (text, suffix) = (error.to_string(), format!(" at line {} column {}", at.line, at.column));
    let message = text.strip_suffix(&suffix).unwrap_or(&text).to_owned();
    if error.is_data() {
        ConfigError::Field { file, at: Some(at), field, message }
    } else {
        ConfigError::Syntax { file, at, message }
    }
}

/// Formats `boot.kernel`, `devices[1].path`, or `boot["a b"]` for an unknown name with special characters.
pub(crate) fn json_path(path: &serde_path_to_error::Path) -> String {
    let plain = |name: &str| {
        let strange = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-';
        (1..=48).contains(&name.len()) && !name.contains(strange)
    };
    let mut text = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => text += &format!("[{index}]"),
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                match (plain(name), text.is_empty()) {
                    (true, true) => text += name,
                    (true, false) => text += &format!(".{name}"),
                    (false, _) => text += &format!("[{}]", quote(name)),
                }
            }
            Segment::Unknown => {}
        }
    }
    text
}
