//! A custom monitor with a custom legacy device: `cargo run -p vmm-machine --example thermometer -- CONFIG`, where the config
//! lists `{"type": "thermometer", "degrees": 21}` in its `devices`.

mod thermometer;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use vmm_config::ConfigFile;
use vmm_devices::LegacyEntry;
use vmm_machine::{Kinds, Start, Supervisor, Timeouts};

use thermometer::Thermometer;

/// A PC's legacy devices, and this one.
const KINDS: Kinds<'static> =
    Kinds { legacy: &[vmm_devices::KINDS, &[LegacyEntry::of::<Thermometer>()]], virtio: &[] };

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: thermometer CONFIG")?;
    let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default())?;
    let config = Arc::new(ConfigFile::read(Path::new(&path))?.merge(Default::default())?);
    let run = supervisor.run(Start::new(config, KINDS)?)?;
    println!("{}", run.ending);
    Ok(())
}
