//! Config files: arbitrary text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vmm_config::{ConfigFile, Overrides};

fuzz_target!(|text: &str| {
    let parsed = ConfigFile::parse(text, Path::new("vm.json"));
    let merged = parsed.and_then(|file| file.merge(Overrides::default()));
    if let Err(error) = merged {
        // The length of the message must stay in proportion to that of the input.
        let message = error.to_string();
        assert!(!message.is_empty());
        assert!(message.len() < 4096 + 8 * text.len(), "{} bytes of message", message.len());
    }
});
