//! A custom legacy device in a monitor that uses the library: the device of vmm-machine's example, which is in no table of the
//! workspace.

#[path = "../../../../crates/machine/examples/thermometer/thermometer.rs"]
mod thermometer;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use driver::{DEADLINE, guests};
use harness::trials;
use libtest_mimic::Trial;
use vmm_bus::SystemEvent;
use vmm_config::ConfigFile;
use vmm_devices::{DebugExit, LegacyEntry};
use vmm_machine::{Ending, Kinds, RunError, Start, Supervisor, Timeouts};

use thermometer::Thermometer;

const KINDS: Kinds<'static> =
    Kinds { legacy: &[vmm_devices::KINDS, &[LegacyEntry::of::<Thermometer>()]], virtio: &[] };

pub(crate) fn tests() -> Vec<Trial> {
    trials![
        debug_exit_tells_what_a_device_of_ones_own_shows_at_its_interrupt,
        serial_line_that_no_device_of_the_tables_has_is_an_error,
    ]
}

/// The guest reads 21 and writes it to its debug-exit device, which is exit code 43.
fn debug_exit_tells_what_a_device_of_ones_own_shows_at_its_interrupt() {
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": {:?}, "load_address": "0x1000"}}}}, "memory": {{"size": "1M"}}, "serial": "none",
            "irqchip": true, "devices": [{{"type": "debug-exit"}}, {{"type": "thermometer", "degrees": 21}}]}}"#,
        guests::path("thermometer")
    );
    let ending = run(&config, KINDS).unwrap();
    assert!(matches!(ending, Ending::Guest(SystemEvent::Exit(43))), "{ending}");
}

/// The config's `serial` wouldn't have any effect.
fn serial_line_that_no_device_of_the_tables_has_is_an_error() {
    const KINDS: Kinds<'static> = Kinds { legacy: &[&[LegacyEntry::of::<DebugExit>()]], virtio: &[] };
    let config = format!(
        r#"{{"boot": {{"flat": {{"image": {:?}, "load_address": "0x1000"}}}}, "memory": {{"size": "1M"}},
            "devices": [{{"type": "debug-exit"}}]}}"#,
        guests::path("thermometer")
    );
    let error = run(&config, KINDS).unwrap_err();
    assert_eq!(error.to_string(), "no legacy device of the table has a serial line");
}

fn run(config: &str, kinds: Kinds<'static>) -> Result<Ending, RunError> {
    let started = Instant::now();
    let timeouts = Timeouts { run: Some(started + DEADLINE), ..Timeouts::default() };
    let mut supervisor = Supervisor::new(started, timeouts).unwrap();
    let file = ConfigFile::parse(config, Path::new("vm.json")).unwrap();
    let config = Arc::new(file.merge(Default::default()).unwrap());
    let start = Start::new(config, kinds).unwrap();
    supervisor.run(start).map(|run| run.ending)
}
