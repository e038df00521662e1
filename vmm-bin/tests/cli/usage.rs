//! Help, version, schema, and usage errors.

use crate::bench::{Bench, DONE, USAGE, complaint};

#[test]
fn help_names_flags_examples_keys_and_exit_codes() {
    let ran = Bench::new().run(&["--help"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let parts = [
        "Usage: vmm-bin",
        "--config <FILE>",
        "Examples:",
        "vmm-bin --config vm.json --memory 1G",
        "Ctrl-A x quits",
    ];
    assert_eq!(parts.map(|part| ran.stdout.contains(part)), [true; 5], "{}", ran.stdout);
    assert!(ran.stdout.contains("Exit codes: 0 the guest ended itself"), "{}", ran.stdout);
}

#[test]
fn help_groups_the_flags() {
    let help = Bench::new().run(&["--help"]).stdout;
    let headings: Vec<&str> =
        help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    let expected = [
        "Commands:",
        "Arguments:",
        "Options:",
        "Boot:",
        "Flat image:",
        "Machine:",
        "Run:",
        "Sandbox:",
        "Diagnostics:",
        "Examples:",
    ];
    assert_eq!(headings, expected, "{help}");
}

#[test]
fn version_is_one_line() {
    let ran = Bench::new().run(&["--version"]);
    let version = format!("vmm-bin {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((ran.code, ran.stdout, ran.stderr.as_str()), (Some(DONE), version, ""));
}

#[test]
fn schema_is_json_of_the_config() {
    let ran = Bench::new().run(&["schema"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    let schema: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["properties"]["boot"].is_object(), "{schema:#}");
}

#[test]
fn unknown_flag_is_a_usage_error() {
    let ran = Bench::new().run(&["--bogus"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(USAGE), ""));
    assert!(ran.stderr.starts_with("error: unexpected argument '--bogus' found\n"), "{}", ran.stderr);
}

#[test]
fn flag_without_its_value_is_a_usage_error() {
    let ran = Bench::new().run(&["--kernel"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(USAGE), ""));
    let message = "error: a value is required for '--kernel <FILE>' but none was supplied\n";
    assert!(ran.stderr.starts_with(message), "{}", ran.stderr);
}

#[test]
fn no_kernel_at_all_is_a_usage_error() {
    let message = "--kernel: missing, add the path of a kernel, or a flat image with --flat, or a config file that names one (boot.kernel or boot.flat) with --config";
    assert_eq!(Bench::new().run(&[]), complaint(USAGE, message));
}

#[test]
fn log_file_is_not_made_by_who_only_looks() {
    let bench = Bench::new();
    let ran = bench.run(&["--log-file", "log", "--check", "--kernel", "kernel"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(!bench.path("log").exists());
}

#[test]
fn log_file_that_cannot_be_is_a_usage_error() {
    let message = "--log-file none/log: the directory none doesn't exist: create it, or name another file";
    let ran = Bench::new().run(&["--log-file", "none/log", "--check", "--kernel", "kernel"]);
    assert_eq!(ran, complaint(USAGE, message));
}
