//! Virtio devices in the plan, and their errors.

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_machine::{Blame, Error, Kinds};
use vmm_virtio::{Claim, DeviceError, Fault, Kind, KindEntry, Session, Setting, VirtioDevice};

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
        let claim = |value: &str| Claim::new("address", "house number", value);
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

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, DeviceError> {
        match config.size {
            0 => Ok(Self { address: config.address.then_some("10 a") }),
            13 => Err(DeviceError::host("", "no such luck")),
            size => Err(DeviceError::config("size", format!("{size} is too much for {}", setting.id))),
        }
    }
}

const KINDS: &[KindEntry] = &[KindEntry::of::<Idle>()];

/// Plans a machine with these devices; `rest` is appended to the config.
fn machine(devices: &str, rest: &str) -> Result<String, Error> {
    let json = format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{devices}]{rest}}}"#);
    try_plan(&bzimage(), &json, &Kinds { virtio: &[KINDS], ..Kinds::default() }).map(|plan| plan.to_string())
}

fn refusal(devices: &str, rest: &str) -> (String, Blame) {
    let error = machine(devices, rest).unwrap_err();
    (error.to_string(), error.blame())
}

const TWO: &str = r#"{"type": "idle"}, {"type": "debug-exit"}, {"type": "idle", "id": "second"}"#;

#[test]
fn plan_with_virtio_devices_is_as_recorded() {
    assert_golden("virtio.txt", &machine(TWO, MMIO).unwrap());
}

#[test]
fn plan_with_virtio_devices_on_pci_is_as_recorded() {
    assert_golden("virtio-pci.txt", &machine(TWO, "").unwrap());
    assert_golden("virtio-pci.txt", &machine(TWO, r#", "transport": "pci""#).unwrap());
}

#[test]
fn plan_with_virtio_devices_on_the_command_line_is_as_recorded() {
    assert_golden("virtio-cmdline.txt", &machine(TWO, CMDLINE).unwrap());
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
    let expected = "devices[0].sise: unknown field, did you mean \"size\"?";
    assert_eq!(refusal(r#"{"type": "idle", "sise": 1}"#, ""), (expected.to_owned(), Blame::Config));
}

/// At any position in the object.
#[test]
fn device_of_virtio_with_a_port_is_refused() {
    let expected = "devices[0].port: unknown field, a virtio device has no port";
    assert_eq!(refusal(r#"{"type": "idle", "port": 1}"#, ""), (expected.to_owned(), Blame::Config));
    assert_eq!(refusal(r#"{"port": 1, "type": "idle"}"#, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn device_with_a_field_of_another_type_names_it() {
    let expected = "devices[0].size: expected a whole number from 0 to 4294967295, found the string \"1\"";
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
        "devices[3].address: house number 10 a is already used by devices[2].address; change one of them";
    assert_eq!(refusal(devices, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn device_without_interrupt_controllers_is_refused() {
    let expected = "devices[0]: a virtio device needs interrupts; remove it, or \"irqchip\": false";
    assert_eq!(refusal(r#"{"type": "idle"}"#, r#", "irqchip": false"#), (expected.to_owned(), Blame::Config));
}

/// One more than there are interrupts.
#[test]
fn more_devices_than_interrupts_are_refused_with_the_limit() {
    let devices = [r#"{"type": "idle"}"#; 17].join(", ");
    let expected = "devices: 17 virtio devices, but interrupts for only 16; remove some";
    assert_eq!(refusal(&devices, MMIO), (expected.to_owned(), Blame::Config));
}

#[test]
fn more_devices_than_slots_are_refused_with_the_limit() {
    let devices = [r#"{"type": "idle"}"#; 32].join(", ");
    let expected = "devices: 32 virtio devices, but the PCI bus has slots for only 31; remove some";
    assert_eq!(refusal(&devices, ""), (expected.to_owned(), Blame::Config));
}

#[test]
fn devices_without_a_slot_have_the_first_free_ones() {
    let devices =
        r#"{"type": "idle"}, {"type": "idle", "slot": 1}, {"type": "idle", "slot": 31}, {"type": "idle"}"#;
    let plan = machine(devices, "").unwrap();
    for (id, slot) in [("idle0", 2), ("idle1", 1), ("idle2", 31), ("idle3", 3)] {
        assert!(plan.contains(&format!("\"{id}\", slot {slot}, ")), "{plan}");
    }
}

#[test]
fn as_many_devices_as_slots_are_planned() {
    let devices = [r#"{"type": "idle"}"#; 31].join(", ");
    let plan = machine(&devices, "").unwrap();
    assert!(plan.contains("\"idle30\", slot 31, "), "{plan}");
}

#[test]
fn slot_without_pci_is_refused() {
    let expected = "devices[1].slot: with \"transport\": \"mmio\" there are no slots; remove it";
    let devices = r#"{"type": "idle"}, {"type": "idle", "slot": 1}"#;
    assert_eq!(refusal(devices, MMIO), (expected.to_owned(), Blame::Config));
}

#[test]
fn kernel_that_does_not_look_for_pci_is_refused_pci_devices() {
    let json = |cmdline: &str, rest: &str| {
        format!(
            r#"{{"boot": {{"kernel": "kernel", "cmdline": "{cmdline}"}}, "devices": [{{"type": "idle"}}]{rest}}}"#
        )
    };
    let kinds = Kinds { virtio: &[KINDS], ..Kinds::default() };
    let plan = |cmdline, rest| try_plan(&bzimage(), &json(cmdline, rest), &kinds);
    for cmdline in ["quiet pci=off", "pci=nomsi,off x"] {
        let error = plan(cmdline, "").unwrap_err();
        let word = cmdline.split(' ').find(|word| word.starts_with("pci=")).unwrap();
        let expected = format!(
            "boot.cmdline: with \"{word}\" the kernel finds no PCI device, and the virtio devices are there; remove it, or set \
             \"transport\": \"mmio\""
        );
        assert_eq!((error.to_string(), error.blame()), (expected, Blame::Config));
    }
    for (cmdline, rest) in [("pci=off", MMIO), ("pci=nomsi", ""), ("quiet -- pci=off", ""), ("xpci=off", "")]
    {
        assert!(plan(cmdline, rest).is_ok(), "{cmdline}");
    }
}

#[test]
fn legacy_device_at_the_ports_of_pci_is_refused() {
    let at = |port: &str| format!(r#"{{"type": "debug-exit", "port": "{port}"}}, {{"type": "idle"}}"#);
    let expected =
        "devices[0].port: 0xcf5 belongs to the PCI configuration (ports 0xcf8 to 0xcff); choose another";
    assert_eq!(refusal(&at("0xcf5"), ""), (expected.to_owned(), Blame::Config));
    assert!(machine(&at("0xcf5"), MMIO).is_ok() && machine(&at("0xcf4"), "").is_ok());
}

const MMIO: &str = r#", "transport": "mmio""#;
const CMDLINE: &str = r#", "announce_virtio": "cmdline""#;

/// Plans a machine with `count` devices on the command line.
fn on_the_command_line(count: usize, rest: &str) -> Result<String, Error> {
    machine(&vec![r#"{"type": "idle"}"#; count].join(", "), &format!("{CMDLINE}{rest}"))
}

/// 5 to 15 are the 8259s' lines; the MP table adds those from 16 on.
#[test]
fn devices_on_the_command_line_have_the_interrupts_of_a_pc_first() {
    let plan = on_the_command_line(17, "").unwrap();
    let words = plan.split(['"', ' ']).filter(|word| word.starts_with("virtio_mmio.device="));
    let irqs: Vec<&str> = words.map(|word| word.rsplit(':').next().unwrap()).collect();
    let expected = "5 6 7 10 11 12 14 15 9 16 17 18 19 20 21 22 23";
    assert_eq!(irqs.join(" "), expected);
    assert!(plan.contains("\"idle8\", gsi 9, ") && plan.contains("\"idle16\", gsi 23, "), "{plan}");
}

#[test]
fn more_devices_on_the_command_line_than_interrupts_are_refused_with_the_limit() {
    let error = on_the_command_line(18, "").unwrap_err();
    let expected = "devices: 18 virtio devices, but interrupts for only 17; remove some";
    assert_eq!((error.to_string(), error.blame()), (expected.to_owned(), Blame::Config));
}

/// The tables of 1,200 processors leave no room for an MP table, without which Linux has the interrupts of the 8259s only.
#[test]
fn tenth_device_on_the_command_line_without_an_mp_table_is_refused() {
    const CPUS: &str = r#", "cpus": {"count": 1200}"#;
    assert!(!on_the_command_line(9, CPUS).unwrap().contains("mp table"));
    let error = on_the_command_line(10, CPUS).unwrap_err();
    let expected = "devices: 10 virtio devices on the command line, but with 1200 processors there is no room for an MP \
                    table, and without one there are interrupts for only 9; reduce either number";
    assert_eq!((error.to_string(), error.blame()), (expected.to_owned(), Blame::Config));
}

#[test]
fn as_many_devices_as_interrupts_are_planned() {
    let devices = [r#"{"type": "idle"}"#; 16].join(", ");
    assert!(machine(&devices, MMIO).unwrap().contains("\"idle15\", gsi 15, "));
}
