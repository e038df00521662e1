//! The schema, the documentation and the shipped configs agree.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use vmm_config::{ConfigFile, Overrides, schema};

use crate::{parse, repository};

/// The paths of all fields in a schema: `boot`, `boot.kernel`, `serial.file`, `devices[].type` ...
fn schema_fields(schema: &Value, at: &str, fields: &mut BTreeSet<String>) {
    schema.get("items").into_iter().for_each(|element| schema_fields(element, &format!("{at}[]"), fields));
    for variant in schema["oneOf"].as_array().into_iter().flatten() {
        schema_fields(variant, at, fields);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        schema_fields(field, &path, fields);
        fields.insert(path);
    }
}

/// The paths of all fields in a config.
fn config_fields(config: &Value, at: &str, fields: &mut BTreeSet<String>) {
    for element in config.as_array().into_iter().flatten() {
        config_fields(element, &format!("{at}[]"), fields);
    }
    for (name, value) in config.as_object().into_iter().flatten() {
        let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        config_fields(value, &path, fields);
        fields.insert(path);
    }
}

/// All values under a key in a schema, at any depth.
fn every<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a Value>) {
    found.extend(value.get(key));
    value.as_object().into_iter().flatten().for_each(|(_, inner)| every(key, inner, found));
    value.as_array().into_iter().flatten().for_each(|inner| every(key, inner, found));
}

fn known_fields() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    schema_fields(&schema(), "", &mut fields);
    fields
}

fn manual() -> String {
    fs::read_to_string(repository("docs/config.md")).unwrap()
}

/// The ```json blocks of the documentation.
fn examples(manual: &str) -> Vec<&str> {
    manual.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn schema_fields_are_the_ones_we_know() {
    let expected = [
        "announce_virtio",
        "boot",
        "boot.cmdline",
        "boot.flat",
        "boot.flat.entry",
        "boot.flat.format",
        "boot.flat.image",
        "boot.flat.load_address",
        "boot.flat.mode",
        "boot.flat.modules",
        "boot.flat.modules[].cmdline",
        "boot.flat.modules[].path",
        "boot.flat.page_tables",
        "boot.flat.stack",
        "boot.flat.tables",
        "boot.initrd",
        "boot.kernel",
        "boot.protocol",
        "control",
        "cpus",
        "cpus.affinity",
        "cpus.cores_per_socket",
        "cpus.count",
        "cpus.features",
        "cpus.sockets",
        "cpus.threads_per_core",
        "devices",
        "devices[].port",
        "devices[].type",
        "expect",
        "expect.memory",
        "expect.memory[].address",
        "expect.memory[].u16",
        "expect.memory[].u32",
        "expect.memory[].u64",
        "expect.memory[].u8",
        "expect.rax",
        "irqchip",
        "memory",
        "memory.shared",
        "memory.size",
        "on_reboot",
        "sandbox",
        "sandbox.seccomp",
        "serial",
        "serial.file",
        "serial.socket",
        "transport",
        "user",
        "user.gid",
        "user.uid",
    ];
    assert_eq!(Vec::from_iter(known_fields()), expected);
}

#[test]
fn schema_is_closed_and_of_its_draft() {
    let schema = schema();
    let (mut objects, mut closed) = (Vec::new(), Vec::new());
    every("properties", &schema, &mut objects);
    every("additionalProperties", &schema, &mut closed);
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(closed.len(), objects.len());
    assert!(closed.iter().all(|value| **value == Value::Bool(false)));
}

#[test]
fn schema_describes_every_field() {
    let schema = schema();
    let mut objects = Vec::new();
    every("properties", &schema, &mut objects);
    let bare = |field: &&Value| field["description"].as_str().is_none_or(str::is_empty);
    let fields = objects.iter().flat_map(|object| object.as_object().unwrap().values());
    assert_eq!(fields.filter(bare).collect::<Vec<_>>(), Vec::<&Value>::new());
}

#[test]
fn schema_defaults_are_what_an_empty_config_gets() {
    let schema = schema();
    let defaults = &schema["properties"];
    let config = parse(r#"{"boot": {"kernel": "k"}}"#).unwrap().merge(Overrides::default()).unwrap();
    let config = serde_json::to_value(config).unwrap();
    assert_eq!(config["boot"]["cmdline"], defaults["boot"]["properties"]["cmdline"]["default"]);
    assert_eq!(config["boot"]["protocol"], defaults["boot"]["properties"]["protocol"]["default"]);
    assert_eq!(config["memory"]["size"], defaults["memory"]["properties"]["size"]["default"]);
    assert_eq!(config["cpus"]["count"], defaults["cpus"]["properties"]["count"]["default"]);
    assert_eq!(config["serial"], defaults["serial"]["default"]);
    assert_eq!(config["on_reboot"], defaults["on_reboot"]["default"]);
    assert_eq!(config["announce_virtio"], defaults["announce_virtio"]["default"]);
    assert_eq!(config["sandbox"], defaults["sandbox"]["default"]);
}

#[test]
fn schema_defaults_are_what_a_bare_device_and_module_get() {
    let schema = schema();
    let devices = &schema["properties"]["devices"]["items"]["oneOf"];
    let flat = &schema["properties"]["boot"]["properties"]["flat"]["properties"];
    let text = r#"{
        "boot": {"flat": {"image": "i", "modules": [{"path": "m"}]}},
        "devices": [{"type": "debug-console"}, {"type": "debug-exit"}]
    }"#;
    let config = serde_json::to_value(parse(text).unwrap().merge(Overrides::default()).unwrap()).unwrap();
    assert_eq!(config["devices"][0]["port"], devices[0]["properties"]["port"]["default"]);
    assert_eq!(config["devices"][1]["port"], devices[1]["properties"]["port"]["default"]);
    assert_eq!(config["boot"]["flat"]["tables"], flat["tables"]["default"]);
    let module = &flat["modules"]["items"]["properties"];
    assert_eq!(config["boot"]["flat"]["modules"][0]["cmdline"], module["cmdline"]["default"]);
}

#[test]
fn manual_has_a_heading_for_every_field() {
    let manual = manual();
    let headings: BTreeSet<&str> = manual.lines().filter(|line| line.starts_with('#')).collect();
    let undescribed =
        |field: &String| !headings.iter().any(|heading| heading.ends_with(&format!(" `{field}`")));
    assert_eq!(known_fields().into_iter().filter(undescribed).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn manual_headings_name_only_fields_that_exist() {
    let manual = manual();
    let named = manual.lines().filter(|line| line.starts_with('#')).filter_map(|line| line.split('`').nth(1));
    let known = known_fields();
    assert_eq!(named.filter(|field| !known.contains(*field)).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn manual_shows_every_default() {
    let (manual, schema) = (manual(), schema());
    let mut defaults = Vec::new();
    every("default", &schema, &mut defaults);
    let unshown = |default: &&&Value| !manual.contains(&format!("`{default}`"));
    assert_eq!(defaults.len(), 15);
    assert_eq!(defaults.iter().filter(unshown).collect::<Vec<_>>(), Vec::<&&Value>::new());
}

#[test]
fn manual_every_example_is_a_good_config() {
    let manual = manual();
    let examples = examples(&manual);
    let refused: Vec<String> = examples.iter().filter_map(|text| parse(text).err()).collect();
    assert_eq!(refused, Vec::<String>::new());
    assert!(examples.len() >= known_fields().len(), "only {} examples", examples.len());
}

#[test]
fn manual_every_example_agrees_with_itself() {
    let manual = manual();
    // Most examples show one field, without a kernel.
    let incomplete = |error: &String| error.contains("boot.kernel: missing");
    let merged =
        |text: &str| parse(text).unwrap().merge(Overrides::default()).map_err(|error| error.to_string());
    let refused = examples(&manual).into_iter().filter_map(|text| merged(text).err());
    assert_eq!(refused.filter(|error| !incomplete(error)).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn shipped_minimal_says_only_the_kernel() {
    let text = fs::read_to_string(repository("resources/configs/minimal.json")).unwrap();
    let mut fields = BTreeSet::new();
    config_fields(&serde_json::from_str(&text).unwrap(), "", &mut fields);
    assert_eq!(Vec::from_iter(fields), ["boot", "boot.kernel"]);
    assert!(parse(&text).unwrap().merge(Overrides::default()).is_ok());
}

#[test]
fn shipped_busybox_shows_every_field_for_linux() {
    let text = fs::read_to_string(repository("resources/configs/busybox.json")).unwrap();
    let mut fields = BTreeSet::from(["serial.file".to_owned(), "serial.socket".to_owned()]);
    config_fields(&serde_json::from_str(&text).unwrap(), "", &mut fields);
    // The topology and affinity fields would have to change together with the count.
    let processors = ["cpus.threads_per_core", "cpus.cores_per_socket", "cpus.sockets", "cpus.affinity"];
    let bare_metal = |field: &String| {
        let others = [
            "boot.flat",
            "irqchip",
            "on_reboot",
            "control",
            "announce_virtio",
            "transport",
            "sandbox",
            "user",
            "devices",
            "expect",
        ];
        others.iter().chain(&processors).any(|name| field.starts_with(name))
    };
    assert_eq!(fields, known_fields().into_iter().filter(|field| !bare_metal(field)).collect());
    assert!(parse(&text).unwrap().merge(Overrides::default()).is_ok());
}

/// All shipped configs, in any directory, by path.
fn shipped() -> Vec<PathBuf> {
    let files = |directory: &str| {
        let entries = fs::read_dir(repository(directory)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).collect()
    };
    let mut paths: Vec<PathBuf> = files("resources/configs");
    paths.extend::<Vec<PathBuf>>(files("resources/configs/guests"));
    paths
}

#[test]
fn shipped_configs_are_all_good() {
    let paths = shipped();
    let merged = |path: &PathBuf| ConfigFile::read(path).and_then(|file| file.merge(Overrides::default()));
    let refused = paths.iter().filter_map(|path| merged(path).err()).map(|error| error.to_string());
    assert_eq!(refused.collect::<Vec<_>>(), Vec::<String>::new());
    assert!(paths.len() >= 2);
}
