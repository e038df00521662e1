//! Merging of file, flags and defaults.

use std::{ffi::OsStr, path::Path};

use vmm_config::{
    Boot, Config, ConfigError, ConfigFile, Device, Flag, FlatBoot, FlatMode, LinuxBoot, Overrides, Protocol,
    Sandbox, SeccompAction, Serial, Value,
};

/// The config in `dir/vm.json` with the given flags.
fn merge(text: &str, flags: &[(Flag, &str)]) -> Result<Config, ConfigError> {
    let mut overrides = Overrides::default();
    flags.iter().try_for_each(|(flag, value)| overrides.set(*flag, OsStr::new(value)))?;
    ConfigFile::parse(text, Path::new("dir/vm.json"))?.merge(overrides)
}

/// The boot section of a config that must boot Linux.
fn linux(config: Config) -> LinuxBoot {
    let Boot::Linux(boot) = config.boot else { panic!("{:?}", config.boot) };
    boot
}

/// The boot section of a config that must boot a flat image.
fn flat(config: Config) -> FlatBoot {
    let Boot::Flat(boot) = config.boot else { panic!("{:?}", config.boot) };
    boot
}

fn refusal(text: &str, flags: &[(Flag, &str)]) -> String {
    merge(text, flags).unwrap_err().to_string()
}

#[test]
fn merge_kernel_alone_takes_every_default() {
    let config = merge(r#"{"boot": {"kernel": "vmlinuz"}}"#, &[]).unwrap();
    assert_eq!(config.memory.size.bytes(), 256 << 20);
    assert_eq!(config.cpus.count.get(), 1);
    assert_eq!(config.serial, Serial::Stdio);
    assert!(config.irqchip);
    assert_eq!(config.devices, []);
    assert_eq!(config.expect, None);
    let boot = linux(config);
    assert_eq!(boot.initrd, None);
    assert_eq!(boot.cmdline.as_str(), "console=ttyS0 reboot=k panic=-1");
    assert_eq!(boot.protocol, Protocol::Auto);
}

#[test]
fn merge_relative_path_of_the_file_starts_at_its_directory() {
    let text = r#"{"boot": {"kernel": "vmlinuz", "initrd": "../initrd"}, "serial": {"file": "log"}}"#;
    let config = merge(text, &[]).unwrap();
    assert_eq!(config.serial.to_string(), "file:dir/log");
    let boot = linux(config);
    assert_eq!(boot.kernel.as_path(), Path::new("dir/vmlinuz"));
    assert_eq!(boot.initrd.unwrap().as_path(), Path::new("dir/../initrd"));
}

#[test]
fn merge_absolute_path_of_the_file_stays() {
    let config = merge(r#"{"boot": {"kernel": "/boot/vmlinuz"}}"#, &[]).unwrap();
    assert_eq!(linux(config).kernel.as_path(), Path::new("/boot/vmlinuz"));
}

#[test]
fn merge_every_flag_replaces_its_field() {
    let text = r#"{
        "boot": {"kernel": "a", "initrd": "b", "cmdline": "c", "protocol": "pvh"},
        "memory": {"size": "1G"}, "cpus": {"count": 2}, "serial": "pty"
    }"#;
    let flags = [
        (Flag::Kernel, "k"),
        (Flag::Initrd, "i"),
        (Flag::Cmdline, ""),
        (Flag::Protocol, "linux32"),
        (Flag::Memory, "64M"),
        (Flag::Cpus, "3"),
        (Flag::Serial, "socket:s"),
    ];

    let config = merge(text, &flags).unwrap();

    assert_eq!(config.memory.size.bytes(), 64 << 20);
    assert_eq!(config.cpus.count.get(), 3);
    assert_eq!(config.serial.to_string(), "socket:s");
    let boot = linux(config);
    assert_eq!(boot.kernel.as_path(), Path::new("k"));
    assert_eq!(boot.initrd.unwrap().as_path(), Path::new("i"));
    assert_eq!(boot.cmdline.as_str(), "");
    assert_eq!(boot.protocol, Protocol::Linux32);
}

#[test]
fn merge_control_is_a_path_of_the_file_or_of_the_flag() {
    let text = r#"{"boot": {"kernel": "k"}, "control": "c.sock"}"#;
    let control = |config: Config| config.control.map(|path| path.to_string());
    assert_eq!(control(merge(text, &[]).unwrap()), Some("dir/c.sock".to_owned()));
    assert_eq!(control(merge(text, &[(Flag::Control, "d.sock")]).unwrap()), Some("d.sock".to_owned()));
    assert_eq!(control(merge(r#"{"boot": {"kernel": "k"}}"#, &[]).unwrap()), None);
}

#[test]
fn merge_sandbox_and_user_flags_replace_their_fields() {
    let text = r#"{"boot": {"kernel": "k"}, "sandbox": "required", "user": {"uid": 1, "gid": 2}}"#;
    let of_the_file = merge(text, &[]).unwrap();
    assert_eq!(of_the_file.sandbox, Sandbox::Required);
    assert_eq!(ids(&of_the_file), [Some(1), Some(2)]);
    let config = merge(text, &[(Flag::Sandbox, "log"), (Flag::Uid, "3")]).unwrap();
    assert_eq!(config.sandbox, Sandbox::Seccomp(SeccompAction::Log));
    assert_eq!(ids(&config), [Some(3), Some(2)]);
    assert_eq!(ids(&merge(text, &[(Flag::Gid, "4")]).unwrap()), [Some(1), Some(4)]);
}

#[test]
fn merge_without_a_sandbox_field_has_one_and_no_user() {
    let config = merge(r#"{"boot": {"kernel": "k"}}"#, &[]).unwrap();
    assert_eq!(config.sandbox, Sandbox::On);
    assert_eq!(ids(&config), [None, None]);
}

/// The monitor would stay root.
#[test]
fn merge_user_without_a_sandbox_is_refused_where_it_was_asked_for_last() {
    let user = r#"{"boot": {"kernel": "k"}, "user": {"gid": 1}}"#;
    let off = r#"{"boot": {"kernel": "k"}, "sandbox": "off"}"#;
    let both = r#"{"boot": {"kernel": "k"}, "sandbox": "off", "user": {"uid": 1}}"#;
    let expected = r#"dir/vm.json: user.uid: not possible with "sandbox": "off", remove one of them"#;
    assert_eq!(refusal(both, &[]), expected);
    assert!(merge(both, &[(Flag::Sandbox, "on")]).is_ok());
    let expected = "--sandbox: not possible with user.gid of dir/vm.json, remove one of them";
    assert_eq!(refusal(user, &[(Flag::Sandbox, "off")]), expected);
    let expected = r#"--uid: not possible with "sandbox": "off" of dir/vm.json, remove one of them"#;
    assert_eq!(refusal(off, &[(Flag::Uid, "1")]), expected);
    let expected = "--gid: not possible with --sandbox off, remove one of them";
    assert_eq!(refusal(user, &[(Flag::Sandbox, "off"), (Flag::Gid, "1")]), expected);
}

fn ids(config: &Config) -> [Option<u32>; 2] {
    [config.user.uid, config.user.gid].map(|id| id.map(|id| id.get()))
}

#[test]
fn merge_every_flat_flag_replaces_its_field() {
    let text = r#"{"boot": {"flat": {"image": "a", "load_address": 1, "mode": "real", "entry": 2, "stack": 3}}, "irqchip": true}"#;
    let flags = [
        (Flag::Flat, "b"),
        (Flag::LoadAddress, "0x1000"),
        (Flag::Mode, "long"),
        (Flag::Entry, "0x1010"),
        (Flag::Stack, "0x7000"),
        (Flag::Irqchip, "false"),
    ];

    let config = merge(text, &flags).unwrap();

    assert!(!config.irqchip);
    let boot = flat(config);
    assert_eq!(boot.image.as_path(), Path::new("b"));
    assert_eq!(boot.load_address, Some(0x1000.into()));
    assert_eq!(boot.mode, Some(FlatMode::Long));
    assert_eq!(boot.entry, Some(0x1010.into()));
    assert_eq!(boot.stack, Some(0x7000.into()));
}

#[test]
fn merge_mode_flag_without_flat_flag_is_for_the_image_of_the_file() {
    let boot = flat(merge(r#"{"boot": {"flat": {"image": "a"}}}"#, &[(Flag::Mode, "long")]).unwrap());
    assert_eq!((boot.image.as_path(), boot.mode), (Path::new("dir/a"), Some(FlatMode::Long)));
}

#[test]
fn merge_flat_flags_without_a_flat_image_are_refused() {
    let text = r#"{"boot": {"kernel": "k"}}"#;
    let problem = "needs a flat image, add one with --flat";
    assert_eq!(refusal(text, &[(Flag::Mode, "real")]), format!("--mode: {problem}"));
    assert_eq!(refusal(text, &[(Flag::LoadAddress, "0")]), format!("--load-address: {problem}"));
    assert_eq!(refusal(text, &[(Flag::Entry, "0")]), format!("--entry: {problem}"));
    assert_eq!(refusal(text, &[(Flag::Stack, "0")]), format!("--stack: {problem}"));
}

#[test]
fn merge_device_flags_add_to_the_devices_of_the_file() {
    let text = r#"{"boot": {"flat": {"image": "a"}}, "devices": [{"type": "debug-exit"}]}"#;
    let flags = [(Flag::PseudoSerial, "0xf1"), (Flag::DebugConsole, "0x402"), (Flag::DebugExit, "0x501")];
    let expected = [
        Device::DebugExit { port: 0xf4.into() },
        Device::PseudoSerial { port: 0xf1.into() },
        Device::DebugConsole { port: 0x402.into() },
        Device::DebugExit { port: 0x501.into() },
    ];
    assert_eq!(merge(text, &flags).unwrap().devices, expected);
}

#[test]
fn merge_device_flag_at_a_taken_port_names_both() {
    let text = r#"{"boot": {"flat": {"image": "a"}}, "devices": [{"type": "rng"}, {"type": "debug-exit"}]}"#;
    let of_the_file = "--pseudo-serial: 0xf4 is also the port of devices[1], choose another for one of them";
    let of_a_flag =
        "--pseudo-serial: 0xe9 is also the port of --debug-console, choose another for one of them";
    assert_eq!(refusal(text, &[(Flag::PseudoSerial, "0xf4")]), of_the_file);
    assert_eq!(refusal(text, &[(Flag::DebugConsole, "0xe9"), (Flag::PseudoSerial, "0xe9")]), of_a_flag);
}

#[test]
fn merge_expect_flags_replace_rax_and_add_memory() {
    let text =
        r#"{"boot": {"flat": {"image": "a"}}, "expect": {"rax": 1, "memory": [{"address": 0, "u8": 1}]}}"#;
    let flags = [(Flag::Expect, "0x400=42"), (Flag::Expect, "rax=2"), (Flag::Expect, "0x408:u16=3")];

    let expect = merge(text, &flags).unwrap().expect.unwrap();

    assert_eq!(expect.rax, Some(2.into()));
    let memory: Vec<_> =
        expect.memory.iter().map(|expected| (expected.address.get(), expected.value)).collect();
    assert_eq!(memory, [(0, Value::U8(1)), (0x400, Value::U64(42)), (0x408, Value::U16(3))]);
}

#[test]
fn merge_expect_flag_of_memory_keeps_rax_of_the_file() {
    let text = r#"{"boot": {"flat": {"image": "a"}}, "expect": {"rax": 1}}"#;
    let expect = merge(text, &[(Flag::Expect, "0=2")]).unwrap().expect.unwrap();
    assert_eq!((expect.rax, expect.memory.len()), (Some(1.into()), 1));
}

#[test]
fn merge_expect_flag_of_a_guest_that_hlt_does_not_end_is_refused() {
    let (flat, expect) = (r#"{"boot": {"flat": {"image": "a"}}}"#, (Flag::Expect, "rax=1"));
    let by_flag = "--expect: a hlt never ends this guest, because of --irqchip; remove it";
    let by_count = "--expect: a hlt never ends this guest, because more than one processor needs interrupt controllers; \
                    ask for one";
    assert_eq!(refusal(flat, &[expect, (Flag::Irqchip, "true")]), by_flag);
    assert_eq!(refusal(flat, &[expect, (Flag::Cpus, "2")]), by_count);
}

#[test]
fn merge_irqchip_flag_false_with_two_processors_names_both_flags() {
    let text = r#"{"boot": {"flat": {"image": "a"}}}"#;
    let expected = "--cpus: 2 is too many with --irqchip=false, as no processor could start another; \
                    set it to 1 or remove that flag";
    assert_eq!(refusal(text, &[(Flag::Cpus, "2"), (Flag::Irqchip, "false")]), expected);
}

#[test]
fn merge_without_file_needs_only_the_kernel() {
    let mut overrides = Overrides::default();
    overrides.set(Flag::Kernel, OsStr::new("vmlinuz")).unwrap();
    let config = ConfigFile::default().merge(overrides).unwrap();
    assert_eq!(linux(config).kernel.as_path(), Path::new("vmlinuz"));
}

#[test]
fn merge_file_without_kernel_names_fields_and_flags() {
    let expected = "dir/vm.json: boot.kernel: missing, add the path of a kernel here or with --kernel, \
                    or a flat image with boot.flat or --flat";
    assert_eq!(refusal("{}", &[]), expected);
}

#[test]
fn merge_nothing_at_all_names_all_flags() {
    let error = ConfigFile::default().merge(Overrides::default()).unwrap_err();
    let expected = "--kernel: missing, add the path of a kernel, or a flat image with --flat, \
                    or a config file that names one (boot.kernel or boot.flat) with --config";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn merge_flat_alone_leaves_the_rest_to_the_image() {
    let boot = flat(merge(r#"{"boot": {"flat": {"image": "hello.bin"}}}"#, &[]).unwrap());
    assert_eq!(boot.image.as_path(), Path::new("dir/hello.bin"));
    assert_eq!((boot.load_address, boot.mode, boot.entry, boot.stack), (None, None, None, None));
    assert_eq!((boot.tables, boot.page_tables), (true, None));
    assert_eq!(boot.cmdline, None);
    assert_eq!(boot.modules, []);
}

#[test]
fn merge_flat_without_tables_keeps_its_own() {
    let text = r#"{"boot": {"flat": {"image": "k.bin", "tables": false, "page_tables": "0x2000"}}}"#;
    let boot = flat(merge(text, &[]).unwrap());
    assert_eq!((boot.tables, boot.page_tables), (false, Some(0x2000.into())));
}

#[test]
fn merge_memory_of_a_page_is_for_a_flat_image_only() {
    let flat = merge(r#"{"boot": {"flat": {"image": "hello.bin"}}}"#, &[(Flag::Memory, "4K")]).unwrap();
    assert_eq!(flat.memory.size.bytes(), 4096);
    let linux = r#"{"boot": {"kernel": "vmlinuz"}, "memory": {"size": "4K"}}"#;
    assert!(merge(linux, &[(Flag::Memory, "1M")]).is_ok());
    let expected =
        "--memory: 1020K is too small for a Linux kernel, at least 1M; only a flat image runs in less";
    assert_eq!(refusal(linux, &[(Flag::Memory, "1020K")]), expected);
    let expected = "dir/vm.json: memory.size: 4K is too small for a Linux kernel, at least 1M; only a flat image runs in less";
    assert_eq!(refusal(linux, &[]), expected);
}

#[test]
fn merge_flat_keeps_every_field() {
    let text = r#"{"boot": {
        "flat": {
            "image": "k.elf", "load_address": "0x1000", "mode": "paged", "entry": 4112, "stack": "0x7000",
            "modules": [{"path": "a", "cmdline": "first"}, {"path": "/b"}]
        },
        "cmdline": "verbose"
    }}"#;

    let boot = flat(merge(text, &[]).unwrap());

    assert_eq!(boot.load_address, Some(0x1000.into()));
    assert_eq!(boot.mode, Some(FlatMode::Paged));
    assert_eq!(boot.entry, Some(0x1010.into()));
    assert_eq!(boot.stack, Some(0x7000.into()));
    assert_eq!(boot.cmdline.unwrap().as_str(), "verbose");
    assert_eq!(boot.modules[0].path.as_path(), Path::new("dir/a"));
    assert_eq!(boot.modules[0].cmdline.as_str(), "first");
    assert_eq!(boot.modules[1].path.as_path(), Path::new("/b"));
    assert_eq!(boot.modules[1].cmdline.as_str(), "");
}

#[test]
fn merge_flat_flag_replaces_only_the_image() {
    let text = r#"{"boot": {"flat": {"image": "a.bin", "mode": "long"}}}"#;
    let boot = flat(merge(text, &[(Flag::Flat, "b.bin"), (Flag::Cmdline, "quiet")]).unwrap());
    assert_eq!(boot.image.as_path(), Path::new("b.bin"));
    assert_eq!(boot.mode, Some(FlatMode::Long));
    assert_eq!(boot.cmdline.unwrap().as_str(), "quiet");
}

#[test]
fn merge_flat_flag_needs_no_file() {
    let mut overrides = Overrides::default();
    overrides.set(Flag::Flat, OsStr::new("hello.bin")).unwrap();
    let boot = flat(ConfigFile::default().merge(overrides).unwrap());
    assert_eq!(boot.image.as_path(), Path::new("hello.bin"));
    assert_eq!(boot.mode, None);
}

#[test]
fn merge_flat_without_image_takes_the_flag() {
    let text = r#"{"boot": {"flat": {"mode": "long"}}}"#;
    let expected = "dir/vm.json: boot.flat.image: missing, add the path of an image here or with --flat";
    assert_eq!(refusal(text, &[]), expected);
    assert_eq!(flat(merge(text, &[(Flag::Flat, "a")]).unwrap()).image.as_path(), Path::new("a"));
}

#[test]
fn merge_flat_and_kernel_of_the_file_names_both() {
    let text = r#"{"boot": {"kernel": "k", "flat": {"image": "a"}}}"#;
    let expected = "dir/vm.json: boot.kernel: not possible with boot.flat, remove one of them";
    assert_eq!(refusal(text, &[]), expected);
}

#[test]
fn merge_flat_of_the_file_and_linux_flag_names_both() {
    let text = r#"{"boot": {"flat": {"image": "a"}}}"#;
    let kernel = "--kernel: not possible with boot.flat of dir/vm.json, remove one of them";
    let initrd = "--initrd: not possible with boot.flat of dir/vm.json, remove --initrd";
    let protocol = "--protocol: not possible with boot.flat of dir/vm.json, remove --protocol";
    assert_eq!(refusal(text, &[(Flag::Kernel, "k")]), kernel);
    assert_eq!(refusal(text, &[(Flag::Initrd, "i")]), initrd);
    assert_eq!(refusal(text, &[(Flag::Protocol, "auto")]), protocol);
}

#[test]
fn merge_flat_flag_and_linux_of_the_file_names_both() {
    let flag = [(Flag::Flat, "a")];
    let kernel = "--flat: not possible with boot.kernel of dir/vm.json, remove one of them";
    let initrd = "--flat: not possible with boot.initrd of dir/vm.json, remove boot.initrd";
    assert_eq!(refusal(r#"{"boot": {"kernel": "k", "initrd": "i"}}"#, &flag), kernel);
    assert_eq!(refusal(r#"{"boot": {"initrd": "i"}}"#, &flag), initrd);
}

#[test]
fn merge_flat_flag_and_linux_flag_names_both() {
    let kernel = "--kernel: not possible with --flat, remove one of them";
    let protocol = "--protocol: not possible with --flat, remove --protocol";
    assert_eq!(refusal("{}", &[(Flag::Flat, "a"), (Flag::Kernel, "k")]), kernel);
    assert_eq!(refusal("{}", &[(Flag::Flat, "a"), (Flag::Protocol, "pvh")]), protocol);
}

#[test]
fn merge_no_irqchip_with_a_flag_for_two_processors_names_the_flag() {
    let text = r#"{"boot": {"kernel": "k"}, "irqchip": false}"#;
    let expected = "--cpus: 2 is too many with \"irqchip\": false, as no processor could start another; \
                    set it to 1 or \"irqchip\" to true";
    assert_eq!(refusal(text, &[(Flag::Cpus, "2")]), expected);
}

#[test]
fn merge_no_irqchip_with_one_processor_by_flag_is_accepted() {
    let text = r#"{"boot": {"kernel": "k"}, "irqchip": false, "cpus": {"count": 2}}"#;
    assert!(!merge(text, &[(Flag::Cpus, "1")]).unwrap().irqchip);
}

/// Whether the machine of a flat image with these additions has interrupt controllers.
fn flat_irqchip(rest: &str, flags: &[(Flag, &str)]) -> bool {
    merge(&format!(r#"{{"boot": {{"flat": {{"image": "a"}}}}{rest}}}"#), flags).unwrap().irqchip
}

#[test]
fn merge_flat_image_has_no_irqchip_unless_asked_for() {
    assert!(!flat_irqchip("", &[]));
    assert!(!flat_irqchip(r#", "devices": [{"type": "debug-console"}]"#, &[]));
    assert!(flat_irqchip(r#", "irqchip": true"#, &[]));
    assert!(flat_irqchip("", &[(Flag::Irqchip, "true")]));
}

#[test]
fn merge_flat_image_on_two_processors_has_an_irqchip() {
    assert!(flat_irqchip(r#", "cpus": {"count": 2}"#, &[]));
    assert!(flat_irqchip("", &[(Flag::Cpus, "2")]));
    assert!(!flat_irqchip(r#", "cpus": {"count": 2}"#, &[(Flag::Cpus, "1")]));
}

#[test]
fn merge_flat_image_with_a_virtio_device_has_an_irqchip() {
    assert!(flat_irqchip(r#", "devices": [{"type": "debug-console"}, {"type": "rng"}]"#, &[]));
}

#[test]
fn merge_flat_flag_alone_has_no_irqchip() {
    let mut overrides = Overrides::default();
    overrides.set(Flag::Flat, OsStr::new("hello.bin")).unwrap();
    assert!(!ConfigFile::default().merge(overrides).unwrap().irqchip);
}

/// Threads, cores and sockets of a config.
fn grouped(config: &Config) -> [u16; 4] {
    let cpus = &config.cpus;
    [cpus.count, cpus.threads_per_core, cpus.cores_per_socket, cpus.sockets].map(|number| number.get())
}

#[test]
fn merge_topology_is_completed_to_the_count() {
    let text = r#"{"boot": {"kernel": "k"}, "cpus": {"count": 8, "threads_per_core": 2, "sockets": 2}}"#;
    assert_eq!(grouped(&merge(text, &[]).unwrap()), [8, 2, 2, 2]);
    assert_eq!(grouped(&merge(text, &[(Flag::Cpus, "12")]).unwrap()), [12, 2, 3, 2]);
}

#[test]
fn merge_topology_and_a_flag_that_does_not_factor_names_the_flag() {
    let text = r#"{"boot": {"kernel": "k"}, "cpus": {"count": 8, "threads_per_core": 2}}"#;
    let expected = "--cpus: 3 is not a multiple of 2 (threads_per_core 2); choose numbers whose product is 3";
    assert_eq!(refusal(text, &[(Flag::Cpus, "3")]), expected);
}

#[test]
fn merge_affinity_keeps_the_list_of_each_processor() {
    let text = r#"{"boot": {"kernel": "k"}, "cpus": {"count": 2, "affinity": [[0, 8191], [1]]}}"#;
    let lists: Vec<Vec<u16>> = merge(text, &[])
        .unwrap()
        .cpus
        .affinity
        .iter()
        .map(|list| list.iter().map(|cpu| cpu.get()).collect())
        .collect();
    assert_eq!(lists, [vec![0, 8191], vec![1]]);
}

#[test]
fn merge_memory_is_shared_only_if_the_file_says_so() {
    let shared = |memory: &str| {
        let text = format!(r#"{{"boot": {{"kernel": "k"}}, "memory": {memory}}}"#);
        merge(&text, &[(Flag::Memory, "1G")]).unwrap().memory.shared
    };
    assert_eq!(
        [shared("{}"), shared(r#"{"shared": false}"#), shared(r#"{"shared": true}"#)],
        [false, false, true]
    );
}

#[test]
fn merge_features_are_the_hosts_unless_the_file_says_otherwise() {
    let features = |cpus: &str| {
        let text = format!(r#"{{"boot": {{"kernel": "k"}}, "cpus": {cpus}}}"#);
        merge(&text, &[]).unwrap().cpus.features.to_string()
    };
    assert_eq!(features("{}"), "host");
    assert_eq!(features(r#"{"features": ["x86-64-v2", "+aes", "-popcnt"]}"#), "x86-64-v2 +aes -popcnt");
}

#[test]
fn merge_device_without_port_takes_its_default() {
    let text = r#"{"boot": {"flat": {"image": "a"}}, "devices": [{"type": "debug-console"}, {"type": "debug-exit"}]}"#;
    let expected = [Device::DebugConsole { port: 0xe9.into() }, Device::DebugExit { port: 0xf4.into() }];
    assert_eq!(merge(text, &[]).unwrap().devices, expected);
}

#[test]
fn merge_expect_keeps_every_value() {
    let text = r#"{"boot": {"flat": {"image": "a"}}, "irqchip": false, "expect": {"rax": "0x2a", "memory": [
        {"address": "0x400", "u8": 255}, {"address": "0x401", "u16": 65535},
        {"address": "0x403", "u32": 4294967295}, {"address": "0x407", "u64": "0xffffffffffffffff"}
    ]}}"#;

    let expect = merge(text, &[]).unwrap().expect.unwrap();

    assert_eq!(expect.rax, Some(42.into()));
    let values: Vec<_> =
        expect.memory.iter().map(|expected| (expected.address.get(), expected.value)).collect();
    assert_eq!(
        values,
        [
            (0x400, Value::U8(u8::MAX)),
            (0x401, Value::U16(u16::MAX)),
            (0x403, Value::U32(u32::MAX)),
            (0x407, Value::U64(u64::MAX)),
        ]
    );
}
