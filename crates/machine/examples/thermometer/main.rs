//! A custom monitor with a custom legacy device and a custom virtio device: `cargo run -p vmm-machine --example thermometer --
//! CONFIG`, where the config lists `{"type": "thermometer", "degrees": 21}` or `{"type": "dice", "face": 6}` in its `devices`.

mod dice;
mod thermometer;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use vmm_config::ConfigFile;
use vmm_devices::LegacyEntry;
use vmm_machine::{Kinds, Start, Supervisor, Timeouts};
use vmm_virtio::KindEntry;

use dice::Dice;
use thermometer::Thermometer;

/// The workspace's devices, and these two.
const KINDS: Kinds<'static> = Kinds {
    legacy: &[vmm_devices::KINDS, &[LegacyEntry::of::<Thermometer>()]],
    virtio: &[vmm_virtio_devices::KINDS, &[KindEntry::of::<Dice>()]],
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: thermometer CONFIG")?;
    let mut supervisor = Supervisor::new(Instant::now(), Timeouts::default())?;
    let config = Arc::new(ConfigFile::read(Path::new(&path))?.merge(Default::default())?);
    let run = supervisor.run(Start::new(config, KINDS)?)?;
    println!("{}", run.ending);
    Ok(())
}
