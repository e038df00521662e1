//! The JSON schema of a config file.

use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    command::{Request, Response},
    event::EventLine,
    file::ConfigFile,
};

/// The JSON schema of a config file, draft 2020-12: for editors, and printed by `vmm-bin schema`.
///
/// `boot.kernel` isn't required, because a flag may set it.
pub fn schema() -> Value {
    generator().into_root_schema_for::<ConfigFile>().to_value()
}

/// [`schema`] including the kinds of devices that a machine knows: for each the value of `type` and the schema of its
/// fields. Kinds that it includes already are unchanged.
pub fn schema_with<'a>(
    kinds: impl IntoIterator<Item = (&'a str, fn(&mut SchemaGenerator) -> Schema)>,
) -> Value {
    let mut schema = schema();
    let variants = kinds.into_iter().map(|(name, fields)| {
        let mut variant = fields(&mut generator()).to_value();
        let own = json!({
            "type": {"type": "string", "const": name, "description": "The kind of device."},
            "id": {"type": "string", "description": "The device's name; default: its type and a number.",
                   "pattern": "^[A-Za-z0-9._-]{1,32}$"},
            "slot": {"type": "integer", "minimum": 1, "maximum": 31,
                     "description": "Its device number on the PCI bus; default: the first free one."},
        });
        for (field, value) in own.as_object().into_iter().flatten() {
            variant["properties"][field] = value.clone();
        }
        match &mut variant["required"] {
            Value::Array(required) => required.push("type".into()),
            none => *none = json!(["type"]),
        }
        variant
    });
    let variants: Vec<Value> = variants.collect();
    if let Value::Array(devices) = &mut schema["properties"]["devices"]["items"]["oneOf"] {
        let of = |variant: &Value| variant["properties"]["type"]["const"].clone();
        let known: Vec<Value> = devices.iter().map(of).collect();
        devices.extend(variants.into_iter().filter(|variant| !known.contains(&of(variant))));
    }
    schema
}

/// The JSON schema of the lines of a control socket: `request` is sent, the others are received.
pub fn control_schema() -> Value {
    let lines = [
        ("request", generator().into_root_schema_for::<Request>()),
        ("response", generator().into_root_schema_for::<Response>()),
        ("event", generator().into_root_schema_for::<EventLine>()),
    ];
    let lines = lines.map(|(name, schema)| {
        let mut schema = schema.to_value();
        if let Value::Object(fields) = &mut schema {
            fields.remove("$schema");
        }
        (name.to_owned(), schema)
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vmm control socket",
        "$defs": Value::Object(lines.into_iter().collect()),
        "anyOf": [{"$ref": "#/$defs/request"}, {"$ref": "#/$defs/response"}, {"$ref": "#/$defs/event"}],
    })
}

fn generator() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    // Inlined, because each value's schema is short and most are used once.
    settings.inline_subschemas = true;
    settings.into_generator()
}
