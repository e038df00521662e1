//! Targets of virtio consoles.

use crate::bench::{BAD_CONFIG, Bench, DONE, complaint};

/// Runs `--check` with these members of the config besides `boot`.
fn check(members: &str) -> crate::bench::RunResult {
    Bench::new().run_config(&format!(r#"{{"boot": {{"kernel": "kernel"}}, {members}}}"#))
}

fn assert_bad(members: &str, message: &str) {
    assert_eq!(check(members), complaint(BAD_CONFIG, message));
}

#[test]
fn console_on_stdio_beside_the_serial_one_is_refused_with_the_remedy() {
    let message = "vm.json:1:80: devices[0].target: standard input and output are already used by serial; choose another target, or set \
                   \"serial\": \"none\"";
    assert_bad(r#""devices": [{"type": "console", "target": "stdio"}]"#, message);
}

#[test]
fn consoles_both_on_stdio_are_refused() {
    let message = "vm.json:1:155: devices[2].target: standard input and output are already used by devices[1]; choose another target";
    let devices = r#""devices": [{"type": "rng"}, {"type": "console", "target": "stdio"}, {"type": "console", "target": "stdio"}]"#;
    assert_bad(&format!(r#""serial": "none", {devices}"#), message);
}

#[test]
fn console_on_stdio_without_a_serial_one_is_planned() {
    let ran = check(r#""serial": "none", "devices": [{"type": "console", "target": "stdio"}]"#);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(DONE), ""));
    assert!(ran.stdout.contains("queues of 64, 64, to stdio\n"), "{}", ran.stdout);
}

#[test]
fn console_without_a_target_goes_to_a_pty() {
    let ran = check(r#""devices": [{"type": "console"}]"#);
    assert!(ran.stdout.contains("to pty\n"), "{}", ran.stdout);
}

#[test]
fn console_with_an_unknown_target_is_refused_with_the_nearest() {
    let message = r#"vm.json:1:78: devices[0].target: unknown serial output "pyt", did you mean "pty"?"#;
    assert_bad(r#""devices": [{"type": "console", "target": "pyt"}]"#, message);
}

#[test]
fn console_to_a_file_without_a_path_shows_the_form() {
    let message = r#"vm.json:1:79: devices[0].target: "file" needs a path, write {"file": PATH}"#;
    assert_bad(r#""devices": [{"type": "console", "target": "file"}]"#, message);
}

#[test]
fn console_with_an_unknown_field_is_refused() {
    let message = "vm.json:1:78: devices[0].targat: unknown field, did you mean \"target\"?";
    assert_bad(r#""devices": [{"type": "console", "targat": "pty"}]"#, message);
}
