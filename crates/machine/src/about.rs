//! What a snapshot says of its origin.

use std::path::PathBuf;

use serde_json::{Map, Value};
use vmm_config::Config;
use vmm_snapshot::SnapshotId;

/// What a snapshot's manifest says besides the machine's state.
#[derive(Clone, Debug)]
pub struct About {
    /// Name of the program.
    pub program: String,
    /// Version of the program.
    pub version: String,
    /// The config, as [`Config`] serializes it.
    pub config: Map<String, Value>,
    /// Where relative paths in the config start: an absolute path.
    pub directory: PathBuf,
    /// The snapshot from which the machine was restored.
    pub parent: Option<SnapshotId>,
}

impl About {
    /// A machine of this library with this config, whose relative paths start at `directory`.
    pub fn new(config: &Config, directory: PathBuf) -> Self {
        let config = match serde_json::to_value(config) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        Self {
            program: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config,
            directory,
            parent: None,
        }
    }
}
