//! Virtio devices in the plan, and what can be wrong with them.

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_machine::{Blame, Error};
use vmm_virtio::{Claim, Entry, Fault, Kind, OpenError, Session, Setting, VirtioDevice};

use crate::{assert_golden, bzimage, try_plan};

/// A device with two queues that does nothing.
struct Idle {
    address: Option<&'static str>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    size: u32,
    #[serde(default)]
    address: bool,
}

impl VirtioDevice for Idle {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![256, 64]
    }

    fn claims(&self) -> Vec<Claim> {
        let claim = |value: &str| Claim { field: "address", what: "house number", value: value.to_owned() };
        self.address.map(claim).into_iter().collect()
    }

    fn process(&mut self, _queue: usize, _session: &mut Session) -> Result<(), Fault> {
        Ok(())
    }
}

impl Kind for Idle {
    const NAME: &'static str = "idle";
    const ID: u32 = 42;
    type Config = Config;

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, OpenError> {
        match config.size {
            0 => Ok(Self { address: config.address.then_some("10 a") }),
            13 => Err(OpenError::host("", "no such luck")),
            size => Err(OpenError::config("size", format!("{size} is too much for {}", setting.id))),
        }
    }
}

const KINDS: &[Entry] = &[Entry::of::<Idle>()];

/// A machine with these devices and what else the config says.
fn machine(devices: &str, rest: &str) -> Result<String, Error> {
    let json = format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{devices}]{rest}}}"#);
    try_plan(&bzimage(), &json, KINDS).map(|plan| plan.to_string())
}

fn refusal(devices: &str, rest: &str) -> (String, Blame) {
    let error = machine(devices, rest).unwrap_err();
    (error.to_string(), error.blame())
}

const TWO: &str = r#"{"type": "idle"}, {"type": "debug-exit"}, {"type": "idle", "id": "second"}"#;

#[test]
fn plan_with_virtio_devices_is_as_recorded() {
    assert_golden("virtio.txt", &machine(TWO, "").unwrap());
}

#[test]
fn plan_with_virtio_devices_on_the_command_line_is_as_recorded() {
    assert_golden("virtio-cmdline.txt", &machine(TWO, r#", "announce_virtio": "cmdline""#).unwrap());
}

#[test]
fn device_of_no_kind_names_the_nearest() {
    let expected = "devices[1].type: unknown device \"idel\", did you mean \"idle\"?";
    assert_eq!(
        refusal(r#"{"type": "debug-exit"}, {"type": "idel"}"#, ""),
        (expected.to_owned(), Blame::Config)
    );
}

#[test]
fn device_of_no_kind_far_from_all_lists_them() {
    let expected = "devices[0].type: unknown device \"floppy\", expected one of \"idle\", \"debug-console\", \"debug-exit\", \
                    \"pseudo-serial\"";
    assert_eq!(refusal(r#"{"type": "floppy"}"#, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn device_with_an_unknown_field_names_it() {
    let expected = "devices[0].sise: unknown field `sise`, expected `size` or `address`";
    assert_eq!(refusal(r#"{"type": "idle", "sise": 1}"#, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn device_with_a_field_of_another_type_names_it() {
    let expected = "devices[0].size: invalid type: string \"1\", expected u32";
    assert_eq!(refusal(r#"{"type": "idle", "size": "1"}"#, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn device_that_refuses_its_config_says_why() {
    let expected = "devices[0].size: 7 is too much for idle0";
    assert_eq!(refusal(r#"{"type": "idle", "size": 7}"#, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn device_that_the_host_cannot_give_blames_the_host() {
    let expected = "devices[0]: no such luck";
    assert_eq!(refusal(r#"{"type": "idle", "size": 13}"#, ""), (expected.to_owned(), Blame::Host));
}

#[test]
fn device_that_claims_what_another_has_names_both_places() {
    let devices = r#"{"type": "idle"}, {"type": "debug-exit"}, {"type": "idle", "id": "a", "address": true},
                     {"type": "idle", "id": "b", "address": true}"#;
    let expected =
        "devices[3].address: house number 10 a is that of devices[2] already; give one of them another";
    assert_eq!(refusal(devices, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn device_without_interrupt_controllers_is_refused() {
    let expected = "devices[0]: a virtio device needs interrupts; remove it, or \"irqchip\": false";
    assert_eq!(refusal(r#"{"type": "idle"}"#, r#", "irqchip": false"#), (expected.to_owned(), Blame::Config));
}

/// One more than there are interrupts for.
#[test]
fn more_devices_than_interrupts_are_refused_with_the_limit() {
    let devices = [r#"{"type": "idle"}"#; 17].join(", ");
    let expected = "devices: 17 virtio devices, but there are interrupts for 16; remove some";
    assert_eq!(refusal(&devices, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn as_many_devices_as_interrupts_are_planned() {
    let devices = [r#"{"type": "idle"}"#; 16].join(", ");
    assert!(machine(&devices, "").unwrap().contains("\"idle15\", gsi 15, "));
}
