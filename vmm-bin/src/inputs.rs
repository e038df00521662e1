//! The input files that a config names.

use std::path::PathBuf;

use serde_json::Value;
use vmm_config::ConfigFile;

/// Fields of the config and of devices that contain the path, or a list of paths, of a file that the machine reads or uses as a disk.
const FIELDS: [&str; 5] = ["kernel", "initrd", "image", "path", "backing"];

/// The input files that `file` names, whether or not its values are correct. Errors are found when the files are opened, and
/// reporting one must not overwrite any of these files.
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

    /// This is how the paths are resolved when the files are opened.
    #[test]
    fn inputs_of_a_config_from_a_descriptor_are_in_the_current_directory() {
        let file = ConfigFile::parse(r#"{"boot": {"kernel": "k"}}"#, "/dev/stdin".as_ref()).unwrap();
        assert_eq!(named_by(&file), [PathBuf::from("k")]);
    }
}
