//! The manual, docs/devices.md, and the device kinds agree.

use std::collections::BTreeSet;
use std::path::Path;

use schemars::generate::SchemaSettings;
use serde_json::Value;
use vmm_virtio::Setting;
use vmm_virtio_devices::KINDS;

fn manual() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/devices.md");
    std::fs::read_to_string(path).unwrap()
}

/// The names of the fields in a schema: `block.path`, `block.limits.bytes_per_second`.
fn collect(schema: &Value, at: &str, fields: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{at}.{name}");
        if field["type"] == "object" {
            collect(field, &path, fields);
        }
        fields.insert(path);
    }
}

fn fields() -> BTreeSet<String> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    let mut fields = BTreeSet::new();
    for kind in KINDS {
        fields.insert(kind.name.to_owned());
        let schema = (kind.schema)(&mut settings.clone().into_generator());
        collect(&schema.to_value(), kind.name, &mut fields);
    }
    fields
}

#[test]
fn manual_has_a_heading_for_every_kind_and_field_and_for_nothing_else() {
    let manual = manual();
    let named: BTreeSet<String> = manual
        .lines()
        .filter(|line| line.starts_with("##"))
        .filter_map(|line| line.split('`').nth(1).map(str::to_owned))
        .collect();
    assert_eq!(named, fields());
}

#[test]
fn manual_every_example_is_a_config_of_devices_that_there_are() {
    let manual = manual();
    let examples: Vec<&str> =
        manual.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() > KINDS.len());
    for example in examples {
        let file = vmm_config::ConfigFile::parse(example, "vm.json".as_ref()).unwrap();
        for device in file.devices {
            let vmm_config::Device::Virtio(section) = device else { continue };
            let fields = fields();
            let unknown = section.fields.keys().map(|name| format!("{}.{name}", section.kind));
            assert_eq!(
                unknown.filter(|name| !fields.contains(name)).collect::<Vec<_>>(),
                Vec::<String>::new()
            );
        }
    }
}

/// The files of all disks and memories in examples, long enough for either.
fn directory_with_images(names: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::TempDir::new().unwrap();
    for name in names {
        std::fs::File::create(directory.path().join(name)).unwrap().set_len(2 << 20).unwrap();
    }
    directory
}

/// Why the first of these devices can't be opened, if so.
fn refusal(config: &str, directory: &Path) -> Option<String> {
    let file = vmm_config::ConfigFile::parse(config, "vm.json".as_ref()).unwrap();
    let mut open = Vec::new();
    for device in file.devices {
        let vmm_config::Device::Virtio(section) = device else { continue };
        // A TAP and a passt can't be created here; a forwarded port may be in use.
        if section.kind == "net"
            && (section.fields["backend"] != "user" || section.fields.contains_key("forward"))
        {
            continue;
        }
        let kind = KINDS.iter().find(|kind| kind.name == section.kind).unwrap();
        match kind.open(section.fields.into(), &Setting { directory, vcpus: 2, id: "id", plan_only: false }) {
            // All at once, as in a machine: each has its lock.
            Ok(device) => open.push(device),
            Err(error) => return Some(format!("{}{error}", section.kind)),
        }
    }
    None
}

#[test]
fn shipped_config_of_devices_has_each_kind_and_opens() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../resources/configs/devices.json");
    let config = std::fs::read_to_string(path).unwrap();
    let directory = directory_with_images(&["base.img", "data.img", "tools.img"]);
    assert_eq!(refusal(&config, directory.path()), None);
    assert!(KINDS.iter().all(|kind| config.contains(&format!("{:?}", kind.name))));
}

#[test]
fn manual_every_example_opens_where_its_files_are() {
    let manual = manual();
    // No qcow2 image is created here.
    let examples = manual.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let examples: Vec<&str> = examples.filter(|example| !example.contains("qcow2")).collect();
    let directory = directory_with_images(&["disk.img", "base.img", "tools.img"]);
    let refused = examples.iter().filter_map(|example| refusal(example, directory.path()));
    assert_eq!(refused.collect::<Vec<_>>(), Vec::<String>::new());
    assert!(examples.len() >= KINDS.len());
}
