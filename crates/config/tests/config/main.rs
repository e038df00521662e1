//! The crate's public interface, and the files that must agree with it: shipped configs, documentation and
//! bad-config fixtures.

mod bad_configs;
mod documented;
mod hostile;
mod merged;
mod messages;
mod properties;
mod read;

use std::path::{Path, PathBuf};

use vmm_config::ConfigFile;

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Parses the text as the file `vm.json`.
fn parse(text: &str) -> Result<ConfigFile, String> {
    ConfigFile::parse(text, Path::new("vm.json")).map_err(|error| error.to_string())
}

/// The message for an invalid config.
fn refusal(text: &str) -> String {
    parse(text).expect_err("a bad config")
}
