//! Memory benchmark: a monitor's private memory while its guest, which has used its devices, is idle.

use std::fs;
use std::time::{Duration, Instant};

use super::super::spec::{Machine, MemorySample, MemorySpec};
use super::guest::Guest;
use super::smaps::private_kib;
use crate::failure::Failure;

/// The guest prints this after it has used every device, followed by their number.
const DEVICES_LINE: &str = "DEVICES ";

/// Runs all rounds: in each, every machine in turn.
pub(super) fn all(spec: &MemorySpec) -> Result<Vec<MemorySample>, Failure> {
    super::warm::warm(&spec.warm)?;
    let mut samples = Vec::new();
    for round in 0..spec.rounds {
        for (index, machine) in spec.machines.iter().enumerate() {
            let result = once(spec, machine);
            let words = result.as_ref().map_or_else(String::clone, |kib| format!("{kib} KiB"));
            println!("round {} of {}: {}: {words}", round + 1, spec.rounds, machine.name);
            let (private_kib, error) = (result.as_ref().ok().copied(), result.err());
            samples.push(MemorySample { round, machine: index, private_kib, error });
        }
    }
    Ok(samples)
}

fn once(spec: &MemorySpec, machine: &Machine) -> Result<u64, String> {
    let mut guest = Guest::start(&machine.argv)?;
    let deadline = Instant::now() + Duration::from_secs(spec.timeout_s);
    match guest.line(DEVICES_LINE, deadline) {
        Ok(count) if count == machine.devices.to_string() => {
            let smaps = fs::read_to_string(format!("/proc/{}/smaps", guest.pid()));
            smaps.map(|smaps| private_kib(&smaps, spec.mem_mib)).map_err(|error| error.to_string())
        }
        Ok(count) => Err(guest.end_with(&format!("the guest has {count} devices, not {}:", machine.devices))),
        Err(problem) => Err(guest.end_with(problem)),
    }
}
