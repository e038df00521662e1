//! The JSON schema of a config file.

use schemars::generate::SchemaSettings;

use crate::file::ConfigFile;

/// The JSON schema of a config file, draft 2020-12: for editors, and printed by `vmm-bin schema`.
///
/// `boot.kernel` is not required in it, since a flag may give it.
pub fn schema() -> serde_json::Value {
    let mut settings = SchemaSettings::draft2020_12();
    // Each kind of value is short and most are used once: written in place, a reader needn't look them up.
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<ConfigFile>().to_value()
}
