//! Errors in the config file and their positions, as the program reports them. crates/config has a test for each rule.

use crate::bench::{BAD_CONFIG, Bench, DONE, complaint, finish};

fn assert_bad(config: &str, message: &str) {
    assert_eq!(Bench::new().run_config(config), complaint(BAD_CONFIG, message));
}

#[test]
fn config_malformed_is_refused_at_its_place() {
    assert_bad(r#"{"boot": {"kernel": "kernel"},}"#, "vm.json:1:31: trailing comma");
}

#[test]
fn config_with_a_value_of_another_type_is_refused() {
    let message = r#"vm.json:1:21: boot.kernel: expected a path such as "dir/file", found the number 5"#;
    assert_bad(r#"{"boot": {"kernel": 5}}"#, message);
}

#[test]
fn config_with_a_field_twice_is_refused() {
    assert_bad(
        r#"{"boot": {"kernel": "a", "kernel": "b"}}"#,
        "vm.json:1:33: boot.kernel: given twice, keep one",
    );
}

#[test]
fn config_with_an_unknown_field_is_refused_with_the_nearest() {
    let message = r#"vm.json:1:18: boot.kernal: unknown field, did you mean "kernel"?"#;
    assert_bad(r#"{"boot": {"kernal": "kernel"}}"#, message);
}

#[test]
fn config_with_a_nul_in_the_command_line_is_refused() {
    let message = "vm.json:1:50: boot.cmdline: byte 1 is a NUL, use printable ASCII only";
    assert_bad(r#"{"boot": {"kernel": "kernel", "cmdline": "a\u0000"}}"#, message);
}

#[test]
fn config_with_memory_as_a_number_is_refused() {
    let message = r#"vm.json:1:53: memory.size: expected a size such as "512M", found the number 512"#;
    assert_bad(r#"{"boot": {"kernel": "kernel"}, "memory": {"size": 512}}"#, message);
}

#[test]
fn config_missing_is_told() {
    let ran = Bench::new().run(&["--config", "none.json"]);
    assert_eq!(ran, complaint(BAD_CONFIG, "none.json: no such file"));
}

#[test]
fn config_directory_is_refused() {
    let bench = Bench::new();
    bench.dir("vm.json");
    let message = "vm.json: is a directory, specify the path of a JSON file";
    assert_eq!(bench.run(&["--config", "vm.json"]), complaint(BAD_CONFIG, message));
}

#[test]
fn config_fifo_is_refused_without_waiting_for_a_writer() {
    let bench = Bench::new();
    bench.fifo("vm.json");
    let message = "vm.json: is a pipe, specify the path of a JSON file";
    assert_eq!(bench.run(&["--config", "vm.json"]), complaint(BAD_CONFIG, message));
}

/// The shell's `<`, `|` and `<(..)`.
#[test]
fn config_from_a_descriptor_has_its_paths_from_the_current_directory() {
    let bench = Bench::new();
    bench.file(
        "vm.json",
        r#"{"boot": {"kernel": "kernel"}, "devices": [{"type": "block", "path": "none.img"}]}"#,
    );
    let run = |script: &str| finish(bench.launch(&["--check", "--config"]).wrapped(["bash", "-c", script]));
    let missing = |place: &str| {
        let message =
            format!("{place} devices[0].path: none.img doesn't exist, create it or correct the path");
        complaint(BAD_CONFIG, &message)
    };
    assert_eq!(run(r#""$0" "$@" /dev/stdin <vm.json"#), missing("/dev/stdin:1:79:"));
    // A pipe can't be read again to find the position.
    assert_eq!(run(r#"cat vm.json | "$0" "$@" /dev/stdin"#), missing("/dev/stdin:"));
    assert_eq!(run(r#""$0" "$@" <(cat vm.json) | cat; exit ${PIPESTATUS[0]}"#).code, Some(BAD_CONFIG));
    assert_eq!(run(r#""$0" "$@" /proc/self/fd/5 5<vm.json"#), missing("/proc/self/fd/5:1:79:"));
}

#[test]
fn config_by_a_pipe_that_is_wrong_is_refused_at_its_place() {
    let bench = Bench::new();
    let script = r#"echo '{"boot": 5}' | "$0" "$@" /dev/stdin"#;
    let ran = finish(bench.launch(&["--check", "--config"]).wrapped(["bash", "-c", script]));
    let message =
        r#"/dev/stdin:1:10: boot: expected an object such as {"kernel": "vmlinuz"}, found the number 5"#;
    assert_eq!(ran, complaint(BAD_CONFIG, message));
}

#[test]
fn config_paths_are_relative_to_it() {
    let bench = Bench::new();
    bench.dir("vms");
    bench.dir("vms/files");
    std::fs::copy(bench.path("kernel"), bench.path("vms/files/k")).unwrap();
    bench.file("vms/vm.json", r#"{"boot": {"kernel": "files/k"}}"#);
    assert_eq!(bench.run(&["--check", "--config", "vms/vm.json"]).code, Some(DONE));
}

#[test]
fn config_path_that_is_missing_is_named_from_the_current_directory() {
    let bench = Bench::new();
    bench.dir("vms");
    bench.file("vms/vm.json", r#"{"boot": {"kernel": "k"}}"#);
    let message = "kernel image vms/k: can't be opened: No such file or directory (os error 2)";
    assert_eq!(bench.run(&["--check", "--config", "vms/vm.json"]), complaint(BAD_CONFIG, message));
}

#[test]
fn flag_paths_are_relative_to_the_current_directory_also_with_a_config() {
    let bench = Bench::new();
    bench.dir("vms");
    bench.file("vms/vm.json", r#"{"boot": {"kernel": "none"}}"#);
    let ran = bench.run(&["--check", "--config", "vms/vm.json", "--kernel", "kernel"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
}

#[test]
fn config_with_an_unknown_cpu_feature_is_refused_at_its_place() {
    let message = r#"vm.json:2:43: cpus.features[1]: unknown CPU feature "avx3", did you mean "avx"?"#;
    assert_bad(
        "{\"boot\": {\"kernel\": \"kernel\"},\n \"cpus\": {\"features\": [\"x86-64-v2\", \"+avx3\"]}}",
        message,
    );
}

#[test]
fn config_with_cpu_features_that_exclude_each_other_is_refused_at_its_place() {
    let message = "vm.json:2:30: cpus.features[0]: +avx2 needs avx, which the list removes; keep one of them";
    assert_bad(
        "{\"boot\": {\"kernel\": \"kernel\"},\n \"cpus\": {\"features\": [\"+avx2\", \"-avx\"]}}",
        message,
    );
}

#[test]
fn config_with_cpu_features_shows_them_in_the_plan() {
    let bench = Bench::new();
    bench.file(
        "vm.json",
        r#"{"boot": {"kernel": "kernel"}, "cpus": {"features": ["x86-64-v3", "+sse4.2", "-lzcnt"]}}"#,
    );
    let ran = bench.run(&["--config", "vm.json", "--check"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    assert!(ran.stdout.contains("cpu features: x86-64-v3 +sse4_2 -abm\n"), "{}", ran.stdout);
}
