//! Positions of fields in a config file.

use std::{collections::BTreeMap, path::Path};

use serde_json::value::RawValue;

use crate::{
    error::{ConfigError, Position},
    text::quote,
    text_file::read_text,
    value_error::ValueError,
};

impl ConfigError {
    /// An error with the value of a field of the file `origin`, in which its position is looked up.
    pub(crate) fn value(origin: Option<&Path>, field: &str, problem: &ValueError) -> ConfigError {
        let error = ConfigError::field(origin, field, problem);
        match (error, origin) {
            (ConfigError::Field { file, field, message, .. }, Some(origin)) => {
                ConfigError::Field { at: ConfigText::read(origin).locate(&field), file, field, message }
            }
            (error, _) => error,
        }
    }
}

/// The text of a config file, in which errors are located. Read at once: a confined process can't read it later.
#[derive(Debug, Clone, Default)]
pub struct ConfigText(Option<String>);

impl ConfigText {
    /// Reads `file`. Nothing is located in a text that can't be read.
    pub fn read(file: &Path) -> ConfigText {
        // A pipe can't be read twice.
        let is_file = std::fs::metadata(file).is_ok_and(|found| found.is_file());
        ConfigText(is_file.then(|| read_text(file).ok()).flatten())
    }

    /// Position of the value of `field`, a JSON path such as `devices[0].limits`: the last byte of a string, number
    /// or name, or the opening bracket of a list or object. If the field doesn't exist, that of the innermost
    /// enclosing value.
    ///
    /// For errors of virtio device kinds, which receive their fields without the text.
    pub fn locate(&self, field: &str) -> Option<Position> {
        let text = self.0.as_ref()?;
        let value = innermost(serde_json::from_str(text).ok()?, field);
        let len = if value.starts_with(['{', '[']) { 1 } else { value.len() };
        // `value` is a slice of `text`.
        let before = text.get(..value.as_ptr().addr() - text.as_ptr().addr() + len)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Some(Position { line: before.matches('\n').count() + 1, column: before.len() - line_start })
    }
}

/// The value at `path` within `value`, or the innermost one that exists.
fn innermost<'t>(value: &'t RawValue, path: &str) -> &'t str {
    let next = match path.strip_prefix('[').and_then(|path| path.split_once(']')) {
        Some((index, rest)) if !index.starts_with('"') => element(value, index).map(|value| (value, rest)),
        _ => member(value, path.strip_prefix('.').unwrap_or(path)),
    };
    match next {
        Some((value, rest)) if !path.is_empty() => innermost(value, rest),
        _ => value.get(),
    }
}

fn element<'t>(list: &'t RawValue, index: &str) -> Option<&'t RawValue> {
    let elements: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    elements.get(index.parse::<usize>().ok()?).copied()
}

/// The member with which `path` starts, and the rest of the path. Of duplicate names the last counts, as it
/// does for the device.
fn member<'t, 'p>(object: &'t RawValue, path: &'p str) -> Option<(&'t RawValue, &'p str)> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(object.get()).ok()?;
    let rest_after = |name: &str| {
        // The quoted notation of names with special characters.
        let rest = path.strip_prefix(name).or_else(|| path.strip_prefix(&format!("[{}]", quote(name))))?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some(rest)
    };
    let starts = members.iter().filter_map(|(name, value)| Some((*value, rest_after(name)?)));
    // A name may contain a full stop or bracket itself.
    starts.min_by_key(|(_, rest)| rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
  "boot": {"kernel": "vmlinuz"},
  "devices": [
    {"type": "rng"},
    {"type": "block", "format": "qcow",
     "limits": {"bytes_per_second": 5}, "backing": ["a", "b"]}
  ]
}"#;

    fn found_in(text: &str, field: &str) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        ConfigText::read(file.path()).locate(field).map(|at| at.to_string())
    }

    fn found(field: &str) -> String {
        found_in(TEXT, field).unwrap()
    }

    #[test]
    fn field_is_found_at_the_end_of_its_value() {
        assert_eq!(found("devices[1].format"), "5:38");
        assert_eq!(found("devices[1].limits.bytes_per_second"), "6:37");
        assert_eq!(found("devices[1].backing[0]"), "6:55");
    }

    #[test]
    fn field_of_several_values_is_found_at_its_bracket() {
        assert_eq!(found("devices"), "3:14");
        assert_eq!(found("devices[1]"), "5:5");
        assert_eq!(found("devices[1].backing"), "6:52");
    }

    #[test]
    fn field_that_is_missing_is_found_at_the_value_around_it() {
        assert_eq!(found("devices[1].path"), "5:5");
        assert_eq!(found("devices[1].format.name"), "5:38");
        assert_eq!(found("devices[7]"), "3:14");
        assert_eq!(found("devices[x]"), "3:14");
        assert_eq!(found("devices.kernel"), "3:14");
        assert_eq!(found(""), "1:1");
    }

    #[test]
    fn value_on_lines_of_its_own_is_found_where_it_starts() {
        let text = "{\r\n\t\"devices\":\r\n\t[\r\n\t\t{\r\n\t\t}\r\n\t]\r\n}";
        assert_eq!(found_in(text, "devices[0].path").unwrap(), "4:3");
    }

    /// As in the parser's errors.
    #[test]
    fn column_counts_bytes() {
        assert_eq!(found_in("{\"ä\": \"ö\",\n\"ß\": \"€\", \"a\": 10}", "a").unwrap(), "2:20");
    }

    #[test]
    fn name_given_twice_is_found_where_it_counts() {
        assert_eq!(found_in("{\"a\": 1,\n\"a\": 2,\n\"b\": 3}", "a").unwrap(), "2:6");
    }

    #[test]
    fn name_with_signs_of_a_path_is_found() {
        let text = "{\"a\": {\"b\": 1},\n\"a.b\": 2,\n\"a\\u005b0]\": 3,\n\"\": 4}";
        assert_eq!(found_in(text, "a.b").unwrap(), "2:8");
        assert_eq!(found_in(text, "a[0]").unwrap(), "3:14");
        assert_eq!(found_in(text, ".").unwrap(), "4:5");
        assert_eq!(found_in(text, r#"["a[0]"]"#).unwrap(), "3:14");
        assert_eq!(found_in("{\"a\": {\"\\u001b]\": 5}}", r#"a["\u{1b}]"]"#).unwrap(), "1:19");
    }

    #[test]
    fn text_that_is_no_config_has_no_position() {
        assert_eq!(found_in("{\"devices\": [", "devices[0].format"), None);
        assert_eq!(ConfigText::read(Path::new("/nowhere/vm.json")).locate("devices[0]"), None);
    }
}
