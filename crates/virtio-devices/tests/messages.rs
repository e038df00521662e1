//! Errors about any kind's fields use JSON's terms, never those of serde or Rust.

use std::path::Path;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use vmm_virtio::{KindEntry, Setting};
use vmm_virtio_devices::KINDS;

/// Values that at least one field rejects, each of a different type or out of any range.
fn wrong_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!("\u{1b}"),
        json!([]),
        json!([1, 2]),
        json!([null]),
        json!({}),
        json!({"nobody": 1}),
    ]
}

/// The kind's required fields, so that another field can be the invalid one.
fn least(kind: &str) -> Map<String, Value> {
    let least = match kind {
        "net" => json!({"backend": "user"}),
        "block" | "pmem" | "vsock" => json!({"path": "none/none"}),
        _ => json!({}),
    };
    least.as_object().unwrap().clone()
}

/// The paths of all fields in a schema, outermost first: `["limits", "bytes_per_second"]`.
fn paths(schema: &Value) -> Vec<Vec<String>> {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let of = |(name, field): (&String, &Value)| {
        let inner = paths(field).into_iter().map(|inner| [vec![name.clone()], inner].concat());
        [vec![name.clone()]].into_iter().chain(inner).collect::<Vec<_>>()
    };
    properties.flat_map(of).collect()
}

fn refusal(kind: &KindEntry, fields: Value) -> Option<String> {
    let setting = Setting { directory: Path::new("/nowhere"), vcpus: 2, id: "id", plan_only: true };
    kind.open(fields, &setting).err().map(|error| error.to_string())
}

/// All messages of each kind for each of its fields with each invalid value.
fn refusals() -> Vec<String> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut refusals = Vec::new();
    for kind in KINDS {
        let schema = (kind.schema)(&mut settings.clone().into_generator());
        for path in paths(&schema.to_value()) {
            for wrong in wrong_values() {
                let (outermost, inner) = path.split_first().unwrap();
                let value = inner.iter().rfold(wrong, |value, name| json!({name.as_str(): value}));
                let mut fields = least(kind.name);
                fields.insert(outermost.clone(), value);
                refusals
                    .extend(refusal(kind, fields.into()).map(|message| format!("{}{message}", kind.name)));
            }
        }
    }
    refusals
}

/// Terms of serde and Rust.
const FOREIGN: [&str; 14] = [
    "invalid type",
    "invalid value",
    "invalid length",
    "unknown variant",
    "missing field",
    "untagged",
    "struct ",
    "enum ",
    "sequence",
    "a map",
    "unit",
    "u64",
    "integer `",
    "`, expected",
];

#[test]
fn field_with_a_wrong_value_is_refused_in_the_words_of_json() {
    let refusals = refusals();
    let foreign = refusals.iter().filter(|message| FOREIGN.iter().any(|word| message.contains(word)));
    assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&String>::new());
    // A kind without fields has no messages.
    assert!(refusals.len() > 200, "{}", refusals.len());
}

/// The message for a device of this kind.
fn said(kind: &str, fields: Value) -> String {
    let kind = KINDS.iter().find(|entry| entry.name == kind).unwrap();
    refusal(kind, fields).unwrap()
}

#[test]
fn field_with_a_value_of_another_type_says_what_may_stand_there() {
    let disk = |field: &str, value: Value| said("block", json!({"path": "a", field: value}));
    let limits = r#".limits: expected an object such as {"bytes_per_second": "10M"}, found "#;
    assert_eq!(disk("limits", json!(5)), format!("{limits}the number 5"));
    assert_eq!(disk("limits", json!([1, 2])), format!("{limits}a list"));
    assert_eq!(disk("limits", Value::Null), format!("{limits}null"));
    assert_eq!(disk("read_only", json!(1)), ".read_only: expected true or false, found the number 1");
    assert_eq!(disk("read_only", Value::Null), ".read_only: expected true or false, found null");
    assert_eq!(
        disk("serial", json!(7)),
        r#".serial: expected a serial such as "disk-1", found the number 7"#
    );
    let backing = r#".backing: expected a list of paths such as ["base.qcow2"], found the string "b""#;
    assert_eq!(disk("backing", json!("b")), backing);
    let path = r#".backing[1]: expected a path such as "dir/file", found the number 5"#;
    assert_eq!(disk("backing", json!(["b", 5])), path);
    let overlay = r#".overlay: expected "temp" or an object such as {"temp_in": "/var/tmp"}, found true"#;
    assert_eq!(disk("overlay", json!(true)), overlay);
}

#[test]
fn card_with_a_value_of_another_type_says_what_may_stand_there() {
    let card = |field: &str, value: Value| {
        let mut fields = json!({"backend": "user"});
        fields[field] = value;
        said("net", fields)
    };
    let backend = r#".backend: expected "user" or an object such as {"tap": "tap0"}, found a list"#;
    assert_eq!(card("backend", json!(["user"])), backend);
    let tap = r#".backend.tap: expected a TAP's name such as "tap0", found the number 0"#;
    assert_eq!(card("backend", json!({"tap": 0})), tap);
    let allow = r#".allow: expected "all" or a list of rules such as ["tcp:*:443"], found the string "none""#;
    assert_eq!(card("allow", json!("none")), allow);
    let rule = r#".allow[0]: expected a rule such as "tcp:*:443", found the number 443"#;
    assert_eq!(card("allow", json!([443])), rule);
    let forward =
        r#".forward: expected a list of forwarded ports such as ["8080:80"], found the string "8080:80""#;
    assert_eq!(card("forward", json!("8080:80")), forward);
    let port = r#".forward[0]: expected a forwarded port such as "8080:80", found the number 8080"#;
    assert_eq!(card("forward", json!([8080])), port);
    let dns = r#".dns: expected a server's address such as "192.0.2.1", found null"#;
    assert_eq!(card("dns", Value::Null), dns);
    let mac = r#".mac: expected an address such as "52:54:00:12:34:56", found the number 5"#;
    assert_eq!(card("mac", json!(5)), mac);
}

#[test]
fn field_that_is_missing_says_what_to_give() {
    assert_eq!(said("block", json!({})), r#": "path" is missing, add a path such as "dir/file""#);
    let backend = r#": "backend" is missing, add "user" or an object such as {"tap": "tap0"}"#;
    assert_eq!(said("net", json!({})), backend);
}

#[test]
fn field_that_is_unknown_names_the_nearest() {
    let disk = said("block", json!({"path": "a", "readonly": true}));
    assert_eq!(disk, r#".readonly: unknown field, did you mean "read_only"?"#);
    let inner = said("block", json!({"path": "a", "limits": {"byte_per_second": "1M"}}));
    assert_eq!(inner, r#".limits.byte_per_second: unknown field, did you mean "bytes_per_second"?"#);
    let balloon = said("balloon", json!({"free_page_report": true}));
    assert_eq!(balloon, r#".free_page_report: unknown field, did you mean "free_page_reporting"?"#);
    assert_eq!(
        said("rng", json!({"path": "a"})),
        r#".path: unknown field, expected one of "type", "id", "slot""#
    );
}
