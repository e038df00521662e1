//! The messages that users see first. The others are in `tests/fixtures/bad-configs`.

use crate::refusal;

#[test]
fn field_misspelt_names_the_nearest() {
    let text = "{\n  \"boot\": {\n    \"kernal\": \"vmlinuz\"\n  }\n}\n";
    assert_eq!(refusal(text), "vm.json:3:12: boot.kernal: unknown field, did you mean \"kernel\"?");
}

#[test]
fn field_unlike_any_lists_all() {
    let expected = r#"vm.json:1:16: boot.disk: unknown field, expected one of "kernel", "initrd", "cmdline", "protocol", "flat""#;
    assert_eq!(refusal(r#"{"boot": {"disk": "a.img"}}"#), expected);
}

#[test]
fn field_given_twice_points_at_the_second() {
    let text = r#"{"boot": {"kernel": "a", "kernel": "b"}}"#;
    assert_eq!(refusal(text), "vm.json:1:33: boot.kernel: given twice, keep one");
}

#[test]
fn field_given_twice_under_an_escape_is_noticed() {
    let text = r#"{"boot": {"kernel": "a", "k\u0065rnel": "b"}}"#;
    assert_eq!(refusal(text), "vm.json:1:38: boot.kernel: given twice, keep one");
}

#[test]
fn section_given_twice_points_at_the_second() {
    assert_eq!(refusal(r#"{"boot": {}, "boot": {}}"#), "vm.json:1:19: boot: given twice, keep one");
}

#[test]
fn size_as_number_shows_how_to_write_it() {
    let expected = r#"vm.json:1:23: memory.size: expected a size such as "512M", found the number 512"#;
    assert_eq!(refusal(r#"{"memory": {"size": 512}}"#), expected);
}

#[test]
fn size_zero_names_the_least() {
    let expected = r#"vm.json:1:23: memory.size: "0" is too small, at least 4K"#;
    assert_eq!(refusal(r#"{"memory": {"size": "0"}}"#), expected);
}

#[test]
fn count_zero_names_the_least() {
    assert_eq!(refusal(r#"{"cpus": {"count": 0}}"#), "vm.json:1:20: cpus.count: 0 is too small, at least 1");
}

#[test]
fn document_truncated_keeps_the_parsers_words() {
    assert_eq!(refusal(r#"{"boot": {"#), "vm.json:1:10: EOF while parsing an object");
}

#[test]
fn document_followed_by_more_keeps_the_parsers_words() {
    assert_eq!(refusal("{}\n{}"), "vm.json:2:1: trailing characters");
}
