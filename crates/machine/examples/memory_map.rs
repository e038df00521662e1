//! Draws the memory map of a config's machine: `cargo run -p vmm-machine --example memory_map -- CONFIG > map.svg`.

use std::path::Path;

use vmm_config::ConfigFile;
use vmm_machine::{Inputs, Kinds, Plan};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: memory_map CONFIG")?;
    let config = ConfigFile::read(Path::new(&path))?.merge(Default::default())?;
    let plan = Plan::new(&config, &mut Inputs::look(&config, &Kinds::default())?)?;
    print!("{}", plan.memory_map_svg());
    Ok(())
}
