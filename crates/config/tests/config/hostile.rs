//! Malformed and hostile files: an error of bounded length, never a panic.

use crate::{parse, refusal};

#[test]
fn parse_a_mebibyte_of_brackets_is_refused() {
    let expected = r#"vm.json:1:1: expected an object such as {"boot": {"kernel": "vmlinuz"}}, found a list"#;
    assert_eq!(refusal(&"[".repeat(1 << 20)), expected);
}

#[test]
fn parse_a_mebibyte_of_objects_is_refused() {
    let found = refusal(&r#"{"boot":"#.repeat(1 << 17));
    assert_eq!(
        found,
        r#"vm.json:1:15: boot.boot: unknown field, expected one of "kernel", "initrd", "cmdline", "protocol", "flat""#
    );
}

#[test]
fn parse_deep_list_in_a_field_is_refused() {
    let text = format!("{{\"serial\": {}", "[".repeat(1 << 20));
    assert!(refusal(&text).contains("serial: expected one of"));
}

#[test]
fn parse_number_of_a_mebibyte_is_refused_in_short() {
    let text = format!("{{\"cpus\": {{\"count\": {}}}}}", "9".repeat(1 << 20));
    assert!(refusal(&text).len() < 200);
}

#[test]
fn parse_name_of_a_mebibyte_is_refused_in_short() {
    let text = format!("{{\"{}\": 1}}", "é".repeat(1 << 19));
    // The start of the name, and all names that there are.
    let expected = format!(
        r#"vm.json:1:1048579: ["{}"... (1048576 bytes)]: unknown field, expected one of "boot", "memory", "cpus", "serial", "irqchip", "on_reboot", "control", "announce_virtio", "transport", "sandbox", "user", "devices", "expect""#,
        "é".repeat(48)
    );
    assert_eq!(refusal(&text), expected);
}

#[test]
fn parse_string_of_a_mebibyte_is_refused_in_short() {
    let text = format!("{{\"memory\": {{\"size\": \"1{}\"}}}}", "\u{1f980}".repeat(1 << 18));
    assert!(refusal(&text).len() < 700);
}

#[test]
fn parse_size_of_a_mebibyte_of_digits_is_refused_in_short() {
    let text = format!("{{\"memory\": {{\"size\": \"{}\"}}}}", "9".repeat(1 << 20));
    assert!(refusal(&text).contains("is too large, at most 4096T"));
}

#[test]
fn parse_lone_surrogate_is_refused() {
    assert!(refusal(r#"{"boot": {"kernel": "\ud800"}}"#).starts_with("vm.json:1:"));
}

#[test]
fn parse_raw_nul_is_refused() {
    assert_eq!(refusal("\0"), "vm.json:1:1: expected value");
}

#[test]
fn parse_escaped_nul_in_a_name_is_shown_escaped() {
    let found = refusal(r#"{"boot": {"\u0000": 1}}"#);
    assert!(found.starts_with(r#"vm.json:1:18: boot["\0"]: unknown field, expected one of"#), "{found}");
}

#[test]
fn parse_longest_command_line_is_left_to_the_kernel() {
    let text = format!("{{\"boot\": {{\"cmdline\": \"{}\"}}}}", "a".repeat(1 << 20));
    assert!(parse(&text).is_ok());
}
