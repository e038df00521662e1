//! Flags: their values, and their precedence over the config.

use crate::bench::{BAD_CONFIG, Bench, DONE, USAGE, complaint};

/// Asserts that `value` of `flag` is a usage error.
fn assert_usage(flag: &str, value: &str, problem: &str) {
    let ran = Bench::new().run(&["--check", "--kernel", "kernel", flag, value]);
    assert_eq!(ran, complaint(USAGE, &format!("{flag}: {problem}")));
}

#[test]
fn memory_of_0_is_too_small() {
    assert_usage("--memory", "0", r#""0" is too small, at least 4K"#);
}

#[test]
fn memory_of_1_byte_is_too_small() {
    assert_usage("--memory", "1", r#""1" is too small, at least 4K"#);
}

#[test]
fn memory_in_an_unknown_unit_is_refused_with_those_that_exist() {
    let problem =
        r#""12Q" has the unknown unit "Q", use K, M, G, T (or KiB, MiB, GiB, TiB) or none for bytes"#;
    assert_usage("--memory", "12Q", problem);
}

#[test]
fn memory_below_zero_is_refused() {
    assert_usage("--memory", "-1", r#""-1" is negative, write a number above 0"#);
}

#[test]
fn memory_beyond_every_machine_is_refused() {
    assert_usage("--memory", "4097T", r#""4097T" is too large, at most 4096T"#);
}

#[test]
fn cpus_0_is_too_small() {
    assert_usage("--cpus", "0", "0 is too small, at least 1");
}

#[test]
fn cpus_above_every_kvm_are_refused() {
    assert_usage("--cpus", "4097", r#""4097" is too large, at most 4096"#);
}

#[test]
fn protocol_unknown_is_refused_with_those_that_exist() {
    let problem = r#"unknown protocol "foo", expected one of "auto", "linux64", "linux32", "pvh""#;
    assert_usage("--protocol", "foo", problem);
}

#[test]
fn protocol_that_the_kernel_lacks_is_refused_with_those_it_has() {
    let ran = Bench::new().run(&["--check", "--kernel", "kernel", "--protocol", "pvh"]);
    assert_eq!(ran, complaint(BAD_CONFIG, "boot protocol pvh: this kernel offers only linux64"));
}

#[test]
fn serial_unknown_is_refused_with_those_that_exist() {
    let problem =
        r#"unknown serial output "bar", expected one of "stdio", "pty", "none", file:PATH or socket:PATH"#;
    assert_usage("--serial", "bar", problem);
}

#[test]
fn check_prints_the_plan_and_starts_nothing() {
    let bench = Bench::new();
    let ran = bench.run(&["--check", "--kernel", "kernel", "--serial", "socket:console.sock"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let lines = [
        "vcpus: 1\n",
        "cpu features: host\n",
        "memory: 256 MiB\n",
        "entry: linux64 at 0x200000\n",
        "  0x000100000..0x010000000 RAM\n",
    ];
    assert_eq!(lines.map(|line| ran.stdout.contains(line)), [true; 5], "{}", ran.stdout);
    assert_eq!(bench.names(), ["kernel"], "no socket");
}

#[test]
fn flags_override_the_config() {
    let bench = Bench::new();
    let config = r#"{"boot": {"kernel": "none", "cmdline": "of the config"}, "memory": {"size": "64M"}, "cpus": {"count": 2}}"#;
    bench.file("vm.json", config);
    let flags = [
        "--kernel",
        "kernel",
        "--cmdline",
        "of the flag",
        "--memory",
        "1G",
        "--cpus",
        "1",
        "--serial",
        "none",
    ];
    let ran = bench.run(&[&["--check", "--config", "vm.json"][..], &flags].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let lines = ["vcpus: 1\n", "memory: 1024 MiB\n", "command line: \"of the flag\"\n", "serial: none\n"];
    assert_eq!(lines.map(|line| ran.stdout.contains(line)), [true; 4], "{}", ran.stdout);
}

/// A value that starts with a hyphen isn't taken for an unknown flag.
#[test]
fn time_below_zero_is_refused_with_an_example() {
    let refused = |flag: &str| {
        let ran = Bench::new().run(&["--check", "--kernel", "kernel", flag, "-1s"]);
        let message = format!(
            "error: invalid value '-1s' for '{flag} <TIME>': \"-1s\" is not a positive time, write one such as \"30s\"\n"
        );
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(USAGE), ""));
        assert!(ran.stderr.starts_with(&message), "{}", ran.stderr);
    };
    refused("--timeout");
    refused("--shutdown-timeout");
}

#[test]
fn number_of_steps_that_is_none_is_refused_with_an_example() {
    let ran = Bench::new().run(&["--check", "--kernel", "kernel", "--step", "-1"]);
    let message = "error: invalid value '-1' for '--step <N>': \"-1\" is not a number of instructions, write one such as 100\n";
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(USAGE), ""));
    assert!(ran.stderr.starts_with(message), "{}", ran.stderr);
}

#[test]
fn expectation_with_a_hyphen_is_refused_in_its_own_words() {
    assert_usage("--expect", "-5", r#"expected rax=42, 0x400=42 or 0x400:u8=42, found "-5""#);
}
