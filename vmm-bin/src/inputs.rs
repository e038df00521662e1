//! Which files a config names that a machine is made of.

use std::path::PathBuf;

use serde_json::Value;
use vmm_config::ConfigFile;

/// The fields, of the config and of devices, whose text is the path of a file that a machine reads or has as a disk, or a
/// list of such.
const FIELDS: [&str; 5] = ["kernel", "initrd", "image", "path", "backing"];

/// The files that `file` names, whether it is correct or not: what is wrong is known when they are opened, and to complain of it
/// mustn't damage one.
pub(crate) fn named_by(file: &ConfigFile) -> Vec<PathBuf> {
    let directory = file.directory();
    let mut named = Vec::new();
    if let Ok(config) = serde_json::to_value(file) {
        collect(&config, &mut named);
    }
    named.into_iter().map(|path| directory.join(path)).collect()
}

fn collect(value: &Value, named: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            if FIELDS.contains(&name.as_str()) {
                let texts = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                named.extend(texts.iter().filter_map(|text| text.as_str().map(str::to_owned)));
            }
            collect(value, named);
        }),
        Value::Array(values) => values.iter().for_each(|value| collect(value, named)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_of_a_config_are_its_files_but_no_outputs() {
        let config = r#"{
            "boot": {"kernel": "k", "initrd": "/i", "flat": {"image": "f", "modules": [{"path": "m", "cmdline": "x"}]}},
            "serial": {"file": "out"},
            "devices": [{"type": "block", "id": "d", "path": "disk", "backing": ["b", "../c"], "overlay": "temp"},
                        {"type": "console", "target": {"file": "out"}}]
        }"#;
        let file = ConfigFile::parse(config, "vm/vm.json".as_ref()).unwrap();
        let mut named = named_by(&file);
        named.sort();
        let expected = ["/i", "vm/../c", "vm/b", "vm/disk", "vm/f", "vm/k", "vm/m"];
        assert_eq!(named, expected.map(PathBuf::from));
    }

    /// As its paths are read.
    #[test]
    fn inputs_of_a_config_from_a_descriptor_are_in_the_current_directory() {
        let file = ConfigFile::parse(r#"{"boot": {"kernel": "k"}}"#, "/dev/stdin".as_ref()).unwrap();
        assert_eq!(named_by(&file), [PathBuf::from("k")]);
    }
}
