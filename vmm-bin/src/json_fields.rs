//! Fields of a JSON object that are set on the command line.

use serde_json::{Map, Value};

/// Sets `field`, such as `limits.ops`, to a value: JSON, or else text.
pub(crate) fn set_field(fields: &mut Map<String, Value>, field: &str, value: &str) -> Result<(), String> {
    match field.split_once('.') {
        None => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            fields.insert(field.to_owned(), value);
            Ok(())
        }
        Some((outer, inner)) => {
            let object = fields.entry(outer).or_insert_with(|| Value::Object(Map::new()));
            let object = object.as_object_mut().ok_or(format!("{outer} is both a value and an object"))?;
            set_field(object, inner, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_json_or_text_and_may_be_of_an_object() {
        let mut changes = Map::new();
        for (field, value) in
            [("size", "64M"), ("limits.ops", "100"), ("limits.burst", "\"7\""), ("flag", "true")]
        {
            set_field(&mut changes, field, value).unwrap();
        }
        let expected = json!({"size": "64M", "limits": {"ops": 100, "burst": "7"}, "flag": true});
        assert_eq!(Value::Object(changes.clone()), expected);
        assert_eq!(set_field(&mut changes, "size.x", "1").unwrap_err(), "size is both a value and an object");
    }
}
