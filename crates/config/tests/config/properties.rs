//! Properties of all configs and texts.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use proptest::{collection::vec, option, prelude::*};
use vmm_config::{
    Address, AnnounceVirtio, BootSection, ByteSize, CommandLine, ConfigFile, CpuCount, CpuFeatures,
    CpusSection, Device, Expect, ExpectedMemory, FilePath, FlatFormat, FlatMode, FlatSection, HostCpu,
    HostCpus, MemorySection, MemorySize, Module, OnReboot, Overrides, Port, Protocol, Sandbox, SeccompAction,
    Serial, Slot, Timeout, Transport, UnixId, User, Value, VirtioSection, Word,
};

use crate::parse;

fn path() -> impl Strategy<Value = FilePath> {
    // Anything except a NUL or an empty path; shorter than the host's limit for names.
    "[^\0]{1,20}".prop_map(|text| FilePath::try_from(OsStr::new(&text)).unwrap())
}

fn cmdline() -> impl Strategy<Value = CommandLine> {
    "[ -~]{0,40}".prop_map(|text| text.parse().unwrap())
}

fn memory_size() -> impl Strategy<Value = MemorySize> {
    (256..=1_u64 << 40).prop_map(|pages| MemorySize::try_from(ByteSize::from_bytes(pages << 12)).unwrap())
}

fn cpu_count() -> impl Strategy<Value = CpuCount> {
    (1..=4096_u64).prop_map(|count| CpuCount::try_from(count).unwrap())
}

fn affinity() -> impl Strategy<Value = Vec<HostCpus>> {
    let cpus = vec((0..=8191_u64).prop_map(|number| HostCpu::try_from(number).unwrap()), 1..3);
    vec(cpus.prop_map(|cpus| HostCpus::try_from(cpus).unwrap()), 0..4)
}

fn features() -> impl Strategy<Value = CpuFeatures> {
    let json = |words: Vec<String>| serde_json::from_value(serde_json::json!(words)).unwrap();
    vec("[+-]?[a-z0-9][a-z0-9_.-]{0,12}", 1..4).prop_map(json)
}

fn cpus() -> impl Strategy<Value = CpusSection> {
    let count = || option::of(cpu_count());
    (count(), count(), count(), count(), option::of(affinity()), option::of(features())).prop_map(
        |(count, threads_per_core, cores_per_socket, sockets, affinity, features)| CpusSection {
            count,
            threads_per_core,
            cores_per_socket,
            sockets,
            affinity,
            features,
        },
    )
}

fn serial() -> impl Strategy<Value = Serial> {
    prop_oneof![
        Just(Serial::Stdio),
        Just(Serial::Pty),
        Just(Serial::None),
        path().prop_map(Serial::File),
        path().prop_map(Serial::Socket),
    ]
}

fn address() -> impl Strategy<Value = Address> {
    any::<u64>().prop_map(Address::from)
}

fn module() -> impl Strategy<Value = Module> {
    (path(), cmdline()).prop_map(|(path, cmdline)| Module { path, cmdline })
}

fn flat() -> impl Strategy<Value = FlatSection> {
    let mode = option::of(prop::sample::select(FlatMode::ALL.to_vec()));
    let address = || option::of(address());
    let format = option::of(prop::sample::select(vec![FlatFormat::Auto, FlatFormat::Raw]));
    let tables = (option::of(any::<bool>()), address());
    (option::of(path()), format, address(), mode, address(), address(), tables, vec(module(), 0..3)).prop_map(
        |(image, format, load_address, mode, entry, stack, (tables, page_tables), modules)| FlatSection {
            image,
            format,
            load_address,
            mode,
            entry,
            stack,
            tables,
            page_tables,
            modules,
        },
    )
}

fn boot() -> impl Strategy<Value = BootSection> {
    let protocol = option::of(prop::sample::select(Protocol::ALL.to_vec()));
    (option::of(path()), option::of(path()), option::of(cmdline()), protocol, option::of(flat())).prop_map(
        |(kernel, initrd, cmdline, protocol, flat)| BootSection { kernel, initrd, cmdline, protocol, flat },
    )
}

fn device() -> impl Strategy<Value = Device> {
    let port = || any::<u16>().prop_map(Port::from);
    prop_oneof![
        port().prop_map(|port| Device::DebugConsole { port }),
        port().prop_map(|port| Device::DebugExit { port }),
        port().prop_map(|port| Device::PseudoSerial { port }),
        ("[a-z]{1,8}", option::of("[a-zA-Z0-9._-]{1,32}"), option::of(1u64..32), "[a-z_]{1,8}", any::<u32>())
            .prop_map(virtio),
    ]
}

/// A virtio device with one field, which isn't common to all devices.
fn virtio((kind, id, slot, field, value): (String, Option<String>, Option<u64>, String, u32)) -> Device {
    let slot = slot.and_then(Slot::new);
    let fields = serde_json::Map::from_iter([(format!("x{field}"), value.into())]);
    let (kind, id) = (format!("v{kind}"), id.map(|id| id.parse().unwrap()));
    Device::Virtio(VirtioSection { kind, id, slot, fields, directory: PathBuf::new() })
}

fn expected_memory() -> impl Strategy<Value = ExpectedMemory> {
    let value = prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<u16>().prop_map(Value::U16),
        any::<u32>().prop_map(Value::U32),
        any::<u64>().prop_map(Value::U64),
    ];
    (address(), value).prop_map(|(address, value)| ExpectedMemory { address, value })
}

fn expect() -> impl Strategy<Value = Expect> {
    let rax = any::<u64>().prop_map(Word::from);
    prop_oneof![
        (rax.clone(), vec(expected_memory(), 0..3))
            .prop_map(|(rax, memory)| Expect { rax: Some(rax), memory }),
        vec(expected_memory(), 1..3).prop_map(|memory| Expect { rax: None, memory }),
    ]
}

fn sandbox() -> impl Strategy<Value = (Option<Sandbox>, User)> {
    let log = Sandbox::Seccomp(SeccompAction::Log);
    let sandbox = prop::sample::select(vec![Sandbox::On, Sandbox::Required, Sandbox::Off, log]);
    let id = || option::of((0..u64::from(u32::MAX)).prop_map(|id| UnixId::try_from(id).unwrap()));
    (option::of(sandbox), (id(), id()).prop_map(|(uid, gid)| User { uid, gid }))
}

/// Any config that could be in `vm.json`.
fn config_file() -> impl Strategy<Value = ConfigFile> {
    let on_reboot = option::of(prop::sample::select(OnReboot::ALL.to_vec()));
    let announce = option::of(prop::sample::select(AnnounceVirtio::ALL.to_vec()));
    let transport = option::of(prop::sample::select(Transport::ALL.to_vec()));
    let additions = (
        option::of(any::<bool>()),
        (on_reboot, option::of(path())),
        (announce, transport),
        sandbox(),
        vec(device(), 0..4),
        option::of(expect()),
    );
    let memory = (option::of(memory_size()), option::of(any::<bool>()));
    (boot(), memory, cpus(), option::of(serial()), additions).prop_map(
        |(
            boot,
            (size, shared),
            cpus,
            serial,
            (irqchip, (on_reboot, control), (announce_virtio, transport), (sandbox, user), devices, expect),
        )| {
            ConfigFile {
                boot,
                memory: MemorySection { size, shared },
                cpus,
                serial,
                irqchip,
                on_reboot,
                control,
                announce_virtio,
                transport,
                sandbox,
                user,
                devices,
                expect,
                origin: Some("vm.json".into()),
            }
        },
    )
}

/// `file` without conflicts: a flat image or, if `linux`, Linux with enough memory; page tables of either the
/// image or the monitor; unique ports; an expectation or several processors only with the matching `irqchip`.
fn agreeing(file: ConfigFile, linux: bool) -> ConfigFile {
    let boot = match linux {
        true => BootSection { flat: None, ..file.boot },
        false => {
            let flat = file.boot.flat.map(|flat| FlatSection {
                page_tables: flat.page_tables.filter(|_| flat.tables == Some(false)),
                ..flat
            });
            BootSection { cmdline: file.boot.cmdline, flat, ..BootSection::default() }
        }
    };
    let least = if linux { MemorySize::LINUX_MIN } else { MemorySize::MIN };
    let size = file.memory.size.map(|size| size.max(least));
    let has_virtio = file.devices.iter().any(|device| matches!(device, Device::Virtio(_)));
    let (mut devices, irqchip) = (file.devices, file.irqchip.unwrap_or(linux || has_virtio));
    devices.sort_by_key(Device::port);
    // Devices without a port don't conflict here; they have ids.
    devices.dedup_by(|a, b| a.port().is_some() && a.port() == b.port());
    let (mut ids, mut slots) = (BTreeSet::new(), BTreeSet::new());
    devices.retain(|device| match device {
        Device::Virtio(section) => {
            section.id.as_ref().is_none_or(|id| ids.insert(id.clone()))
                && section.slot.is_none_or(|slot| slots.insert(slot))
        }
        _ => true,
    });
    let is_cmdline = file.announce_virtio == Some(AnnounceVirtio::Cmdline);
    ConfigFile {
        boot,
        memory: MemorySection { size, ..file.memory },
        cpus: agreeing_cpus(file.cpus, irqchip),
        expect: file.expect.filter(|_| !irqchip),
        devices,
        transport: file.transport.filter(|_| !is_cmdline),
        sandbox: file.sandbox.filter(|sandbox| *sandbox != Sandbox::Off || file.user.is_empty()),
        ..file
    }
}

/// Numbers whose product is the count, and an affinity list per processor.
fn agreeing_cpus(cpus: CpusSection, irqchip: bool) -> CpusSection {
    let number = |asked: Option<CpuCount>, most| asked.map_or(1, |number| u64::from(number.get()).min(most));
    let most = if irqchip { 16 } else { 1 };
    let [threads, cores, sockets] =
        [cpus.threads_per_core, cpus.cores_per_socket, cpus.sockets].map(|asked| number(asked, most));
    let product = threads * cores * sockets;
    let kept = |asked: Option<CpuCount>, number| asked.map(|_| CpuCount::try_from(number).unwrap());
    let list = cpus.affinity.and_then(|lists| lists.first().cloned());
    CpusSection {
        count: (product > 1).then(|| CpuCount::try_from(product).unwrap()),
        threads_per_core: kept(cpus.threads_per_core, threads),
        cores_per_socket: kept(cpus.cores_per_socket, cores),
        sockets: kept(cpus.sockets, sockets),
        affinity: list.map(|list| vec![list; product as usize]),
        features: cpus.features,
    }
}

/// Any JSON in which our names are frequent.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let name = prop::sample::select(vec![
        "boot", "kernel", "flat", "modules", "path", "memory", "size", "cpus", "count", "serial", "file",
        "irqchip", "devices", "sandbox", "seccomp", "user", "uid", "type", "port", "expect", "address", "u8",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Into::into),
            vec((name.clone(), inner), 0..4)
                .prop_map(|members| members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

/// Properties of every error: it starts with the file, is a single line that can't control a terminal, and is
/// bounded.
fn check_message(result: Result<ConfigFile, String>) -> Result<(), TestCaseError> {
    let message = result.err().unwrap_or("vm.json:".to_owned());
    prop_assert!(message.starts_with("vm.json:"), "{message}");
    prop_assert!(!message.contains(char::is_control), "{message:?}");
    prop_assert!(message.len() < 1000, "{} bytes", message.len());
    Ok(())
}

proptest! {
    #[test]
    fn config_file_printed_reads_back(file in config_file()) {
        let text = serde_json::to_string_pretty(&file).unwrap();
        prop_assert_eq!(parse(&text), Ok(file));
    }

    #[test]
    fn config_printed_reads_back(file in config_file(), image in path(), linux in any::<bool>()) {
        let file = ConfigFile { origin: Some("some/dir/vm.json".into()), ..agreeing(file, linux) };
        let (kernel, flat) = (linux.then(|| image.clone()), (!linux).then_some(image));
        let mut config = file.merge(Overrides { kernel, flat, ..Overrides::default() }).unwrap();
        let text = serde_json::to_string(&config).unwrap();
        // The meaning of a kind's fields is unknown here, so their paths aren't resolved.
        for device in &mut config.devices {
            if let Device::Virtio(section) = device {
                section.directory = PathBuf::new();
            }
        }

        let again = ConfigFile::parse(&text, Path::new("vm.json")).unwrap().merge(Overrides::default()).unwrap();

        prop_assert_eq!(again, config);
    }

    #[test]
    fn size_printed_reads_back(bytes in any::<u64>(), shift in 0..64_u32) {
        let size = ByteSize::from_bytes(bytes << shift);
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn size_any_text_is_read_or_refused(text in "[-+0-9KMGTiB. ]{0,24}|.{0,24}") {
        let message = text.parse::<MemorySize>().map_or_else(|error| error.to_string(), |size| size.to_string());
        prop_assert!(!message.is_empty());
    }

    #[test]
    fn number_printed_reads_back(number in any::<u64>(), port in any::<u16>()) {
        prop_assert_eq!(Address::from(number).to_string().parse(), Ok(Address::from(number)));
        prop_assert_eq!(Word::from(number).to_string().parse(), Ok(Word::from(number)));
        prop_assert_eq!(Port::from(port).to_string().parse(), Ok(Port::from(port)));
    }

    #[test]
    fn number_any_text_is_read_or_refused(text in "[-+0-9a-fxX_. ]{0,24}|.{0,24}") {
        let message = text.parse::<Port>().map_or_else(|error| error.to_string(), |port| port.to_string());
        prop_assert!(!message.is_empty());
    }

    #[test]
    fn timeout_any_text_is_refused_or_reads_back(text in "[-+0-9hms. ]{0,8}|.{0,24}") {
        let timeout = text.parse::<Timeout>().unwrap_or(Timeout::MIN);
        prop_assert_eq!(timeout.to_string().parse(), Ok(timeout));
    }

    #[test]
    fn merge_any_config_is_taken_or_refused_in_words(file in config_file()) {
        check_message(file.merge(Overrides::default()).map(|_| ConfigFile::default()).map_err(|error| error.to_string()))?;
    }

    #[test]
    fn parse_any_text_is_read_or_refused_in_words(text in any::<String>()) {
        check_message(parse(&text))?;
    }

    #[test]
    fn parse_any_json_is_read_or_refused_in_words(json in json()) {
        check_message(parse(&json.to_string()))?;
    }

    #[test]
    fn parse_good_config_with_a_wrong_character_is_read_or_refused_in_words(
        file in config_file(), at in any::<prop::sample::Index>(), wrong in any::<char>(),
    ) {
        let mut text: Vec<char> = serde_json::to_string(&file).unwrap().chars().collect();
        let at = at.index(text.len());
        text[at] = wrong;
        check_message(parse(&String::from_iter(text)))?;
    }

    #[test]
    fn parse_good_config_cut_short_is_refused_in_words(file in config_file(), at in any::<prop::sample::Index>()) {
        let text: Vec<char> = serde_json::to_string(&file).unwrap().chars().collect();
        let cut = String::from_iter(&text[..at.index(text.len())]);
        let result = parse(&cut);
        prop_assert!(result.is_err());
        check_message(result)?;
    }
}
