//! What holds for every config and every text.

use std::{ffi::OsStr, path::Path};

use proptest::{option, prelude::*};
use vmm_config::{
    BootSection, ByteSize, CommandLine, ConfigFile, CpuCount, CpusSection, FilePath, MemorySection,
    MemorySize, Overrides, Protocol, Serial,
};

use crate::parse;

fn path() -> impl Strategy<Value = FilePath> {
    // Anything but NUL and the empty path; shorter than a name of the host may be.
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

fn serial() -> impl Strategy<Value = Serial> {
    prop_oneof![
        Just(Serial::Stdio),
        Just(Serial::Pty),
        Just(Serial::None),
        path().prop_map(Serial::File),
        path().prop_map(Serial::Socket),
    ]
}

fn boot() -> impl Strategy<Value = BootSection> {
    let protocol = option::of(prop::sample::select(Protocol::ALL.to_vec()));
    (option::of(path()), option::of(path()), option::of(cmdline()), protocol)
        .prop_map(|(kernel, initrd, cmdline, protocol)| BootSection { kernel, initrd, cmdline, protocol })
}

/// Any config that could stand in `vm.json`.
fn config_file() -> impl Strategy<Value = ConfigFile> {
    (boot(), option::of(memory_size()), option::of(cpu_count()), option::of(serial())).prop_map(
        |(boot, size, count, serial)| ConfigFile {
            boot,
            memory: MemorySection { size },
            cpus: CpusSection { count },
            serial,
            origin: Some("vm.json".into()),
        },
    )
}

/// Any JSON, with our names in it more often than chance would have it.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let name = prop::sample::select(vec![
        "boot", "kernel", "memory", "size", "cpus", "count", "serial", "file", "x",
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
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((name.clone(), inner), 0..4)
                .prop_map(|members| members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

/// What every refusal has: the file first, one line that can't drive a terminal, bounded.
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
    fn config_printed_reads_back(file in config_file(), kernel in path()) {
        let file = ConfigFile { origin: Some("some/dir/vm.json".into()), ..file };
        let with_kernel = Overrides { kernel: Some(kernel), ..Overrides::default() };
        let config = file.merge(with_kernel).unwrap();
        let text = serde_json::to_string(&config).unwrap();

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
