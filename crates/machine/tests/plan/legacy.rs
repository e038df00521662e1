//! Custom legacy devices in the plan, and their errors.

use std::io;

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_acpi::io_device;
use vmm_bus::{BusDevice, Outcome};
use vmm_config::Port;
use vmm_devices::{
    AcpiParts, BuiltDevice, DebugConsole, I8042, LegacyEntry, LegacyKind, NoFields, Place, PowerManagement,
    Presence, Uart, Wiring,
};
use vmm_machine::{Blame, Error, Kinds, Plan};
use vmm_virtio::{DeviceError, Fault, Kind, Session, Setting, VirtioDevice};

use crate::{bzimage, try_plan};

/// A device with two ports and an interrupt.
struct Bell;

impl BusDevice for Bell {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, _offset: u64, _data: &[u8]) -> Outcome {
        Outcome::Done
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BellConfig {
    port: Port,
    #[serde(default = "customary_gsi")]
    gsi: u32,
}

fn customary_gsi() -> u32 {
    5
}

impl LegacyKind for Bell {
    const NAME: &'static str = "door bell";
    const PRESENCE: Presence = Presence::Listed("bell");
    type Config = BellConfig;

    fn place(config: &BellConfig) -> Place {
        Place::ports_from(config.port, 2).with_gsi(config.gsi)
    }

    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.devices.push(io_device("BELL", "BELL0001", 0, [place.ports.clone()], place.gsi)?);
        Ok(())
    }

    fn build(_config: &BellConfig, _wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        Ok(BuiltDevice::new(Self))
    }
}

/// A device that every machine has, at these ports.
struct Fixed<const PORT: u64, const COUNT: u64>;

impl<const PORT: u64, const COUNT: u64> LegacyKind for Fixed<PORT, COUNT> {
    const NAME: &'static str = "fixture";
    const PRESENCE: Presence = Presence::Always;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(PORT..PORT + COUNT)
    }

    fn build(_config: &NoFields, _wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        Ok(BuiltDevice::new(Bell))
    }
}

/// A virtio device that does nothing.
struct Idle;

impl VirtioDevice for Idle {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![64]
    }

    fn process(&mut self, _queue: usize, _session: &mut Session) -> Result<(), Fault> {
        Ok(())
    }
}

impl Kind for Idle {
    const NAME: &'static str = "idle";
    const ID: u32 = 42;
    type Config = NoFields;

    fn open(_config: NoFields, _setting: &Setting<'_>) -> Result<Self, DeviceError> {
        Ok(Self)
    }
}

const KINDS: Kinds<'static> = Kinds {
    legacy: &[vmm_devices::KINDS, &[LegacyEntry::of::<Bell>()]],
    virtio: &[&[vmm_virtio::KindEntry::of::<Idle>()]],
};

/// Plans a Linux machine with these kinds and devices; `rest` is appended to the config.
fn machine(kinds: &Kinds<'_>, devices: &str, rest: &str) -> Result<Plan, Error> {
    let json = format!(r#"{{"boot": {{"kernel": "kernel"}}, "devices": [{devices}]{rest}}}"#);
    try_plan(&bzimage(), &json, kinds)
}

fn refusal(devices: &str, rest: &str) -> String {
    let error = machine(&KINDS, devices, rest).unwrap_err();
    assert_eq!(error.blame(), Blame::Config);
    error.to_string()
}

/// The error of a machine with this table of legacy devices.
fn refusal_of(legacy: &[LegacyEntry]) -> String {
    let error = machine(&Kinds { legacy: &[legacy], virtio: &[] }, "", "").unwrap_err();
    assert_eq!(error.blame(), Blame::Monitor);
    error.to_string()
}

fn dsdt_has(plan: &Plan, name: &str) -> bool {
    let dsdt =
        plan.tables.acpi.iter().flat_map(|tables| tables.iter()).find(|table| table.name == "DSDT").unwrap();
    dsdt.bytes.windows(name.len()).any(|bytes| bytes == name.as_bytes())
}

const BELL: &str = r#"{"type": "bell", "port": "0x90"}"#;

#[test]
fn custom_device_is_in_the_plan_with_its_id_and_in_acpi() {
    let two = r#"{"type": "bell", "port": "0x90"}, {"type": "debug-exit"}"#;
    let plan = machine(&KINDS, two, "").unwrap();
    let shown = plan.to_string();
    assert!(shown.contains("  ports 0x090..0x092  door bell \"bell0\", gsi 5\n"), "{shown}");
    assert!(shown.contains("  ports 0x0f4..0x0f8  debug exit\n"), "{shown}");
    assert!(dsdt_has(&plan, "BELL0001"));
}

#[test]
fn custom_device_that_is_not_listed_is_not_there() {
    let plan = machine(&KINDS, "", "").unwrap();
    assert!(!plan.to_string().contains("bell") && !dsdt_has(&plan, "BELL"));
}

#[test]
fn custom_device_without_interrupt_controllers_has_no_interrupt() {
    let shown = machine(&KINDS, BELL, r#", "irqchip": false"#).unwrap().to_string();
    assert!(shown.contains("  ports 0x090..0x092  door bell \"bell0\"\n"), "{shown}");
}

#[test]
fn custom_device_that_every_machine_has_needs_no_config() {
    let kinds = Kinds { legacy: &[vmm_devices::KINDS, &[LegacyEntry::of::<Fixed<0x300, 1>>()]], virtio: &[] };
    let shown = machine(&kinds, "", "").unwrap().to_string();
    assert!(shown.contains("  ports 0x300..0x301  fixture\n"), "{shown}");
}

#[test]
fn slot_of_a_legacy_device_is_an_unknown_field() {
    let bell = r#"{"type": "bell", "port": "0x90", "slot": 3}"#;
    let said = refusal(bell, "");
    assert!(said.starts_with("devices[0].slot: unknown field, expected one of "), "{said}");
    assert!(!said.contains("\"slot\""), "{said}");
}

#[test]
fn custom_device_with_an_unknown_field_names_it() {
    let expected = "devices[0].prot: unknown field, did you mean \"port\"?";
    assert_eq!(refusal(r#"{"type": "bell", "prot": "0x90"}"#, ""), expected);
}

#[test]
fn custom_device_that_lacks_a_field_says_what_belongs_there() {
    let expected = "devices[0]: \"port\" is missing, add a port such as \"0xe9\"";
    assert_eq!(refusal(r#"{"type": "bell"}"#, ""), expected);
}

/// As for the types that vmm-config defines, the port may come first.
#[test]
fn custom_device_may_have_its_port_before_its_type() {
    let shown = machine(&KINDS, r#"{"port": 144, "type": "bell"}"#, "").unwrap().to_string();
    assert!(shown.contains("  ports 0x090..0x092  door bell"), "{shown}");
}

#[test]
fn custom_device_is_among_the_names_that_there_are() {
    let expected = "devices[0].type: unknown device \"bel\", did you mean \"bell\"?";
    assert_eq!(refusal(r#"{"type": "bel"}"#, ""), expected);
}

#[test]
fn port_of_another_device_names_it_with_its_id() {
    let expected =
        "devices[1].port: 0x91 belongs to the door bell \"front\" (ports 0x90 to 0x91); choose another";
    let front =
        r#"{"type": "bell", "id": "front", "port": "0x90"}, {"type": "debug-console", "port": "0x91"}"#;
    assert_eq!(refusal(front, ""), expected);
}

#[test]
fn interrupt_of_another_device_is_refused() {
    let second = r#", {"type": "bell", "port": "0x92"}"#;
    let expected = "devices[1]: interrupt 5 belongs to the door bell \"bell0\"; remove one of them";
    assert_eq!(refusal(&format!("{BELL}{second}"), ""), expected);
    let com1 = r#"{"type": "bell", "port": "0x90", "gsi": 4}"#;
    let expected = "devices[0]: interrupt 4 belongs to the uart com1; remove one of them";
    assert_eq!(refusal(com1, ""), expected);
}

/// Interrupt 5 would be the ninth virtio device's.
#[test]
fn interrupt_of_a_device_is_left_out_for_virtio() {
    let nine = [r#"{"type": "idle"}"#; 9].join(", ");
    let mmio = r#", "transport": "mmio""#;
    let shown = machine(&KINDS, &format!("{BELL}, {nine}"), mmio).unwrap().to_string();
    assert!(shown.contains("virtio idle \"idle8\", gsi 6,"), "{shown}");
    let sixteen = [r#"{"type": "idle"}"#; 16].join(", ");
    let expected = "devices: 16 virtio devices, but interrupts for only 15; remove some";
    assert_eq!(refusal(&format!("{BELL}, {sixteen}"), mmio), expected);
}

/// A kernel that finds them on the command line reads no ACPI tables, so the SCI's line is free for one of them.
#[test]
fn interrupt_of_a_device_is_left_out_for_virtio_on_the_command_line() {
    let nine = [r#"{"type": "idle"}"#; 9].join(", ");
    let cmdline = r#", "announce_virtio": "cmdline""#;
    let shown = machine(&KINDS, &format!("{BELL}, {nine}"), cmdline).unwrap().to_string();
    assert!(shown.contains("virtio idle \"idle0\", gsi 6,"), "{shown}");
    assert!(shown.contains("virtio idle \"idle7\", gsi 9,"), "{shown}");
    assert!(shown.contains("virtio idle \"idle8\", gsi 16,"), "{shown}");
}

#[test]
fn objects_of_one_name_in_acpi_are_refused() {
    let two = r#"{"type": "bell", "port": "0x90"}, {"type": "bell", "port": "0x92", "gsi": 6}"#;
    assert_eq!(refusal(two, ""), "ACPI tables: two devices are called \"BELL\"");
}

/// A device whose ACPI object has an invalid name.
struct Misnamed;

impl LegacyKind for Misnamed {
    const NAME: &'static str = "misnomer";
    const PRESENCE: Presence = Presence::WithAcpi;
    type Config = NoFields;

    fn place(_config: &NoFields) -> Place {
        Place::ports(0x300..0x301)
    }

    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_acpi::Error> {
        acpi.devices.push(io_device("LONGER", "LONG0001", 0, [place.ports.clone()], None)?);
        Ok(())
    }

    fn build(_config: &NoFields, _wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        Ok(BuiltDevice::new(Bell))
    }
}

#[test]
fn table_with_a_device_that_acpi_cannot_have_is_refused() {
    let refused = refusal_of(&[PC.as_slice(), &[LegacyEntry::of::<Misnamed>()]].concat());
    assert!(refused.starts_with("legacy device misnomer: device name \"LONGER\": must be"), "{refused}");
}

const PC: [LegacyEntry; 3] =
    [LegacyEntry::of::<Uart>(), LegacyEntry::of::<I8042>(), LegacyEntry::of::<PowerManagement>()];

#[test]
fn table_whose_devices_share_a_port_is_refused() {
    let expected =
        "legacy device fixture: 0x3ff belongs to the uart com1 (ports 0x3f8 to 0x3ff); choose another";
    assert_eq!(refusal_of(&[PC.as_slice(), &[LegacyEntry::of::<Fixed<0x3ff, 2>>()]].concat()), expected);
}

#[test]
fn table_with_a_device_at_a_port_of_kvms_is_refused() {
    let expected = "legacy device fixture: 0x40 belongs to the timer (ports 0x40 to 0x43); choose another, or set \"irqchip\" to false";
    assert_eq!(refusal_of(&[PC.as_slice(), &[LegacyEntry::of::<Fixed<0x40, 1>>()]].concat()), expected);
}

#[test]
fn table_with_a_device_past_the_last_port_is_refused() {
    let expected =
        "legacy device fixture: 2 ports from 0xffff on run past the last one, 0xffff; choose a lower one";
    assert_eq!(refusal_of(&[PC.as_slice(), &[LegacyEntry::of::<Fixed<0xffff, 2>>()]].concat()), expected);
}

#[test]
fn table_without_power_management_or_reset_has_no_acpi() {
    let expected = "no legacy device of the table has power management, or none can reset the machine";
    assert_eq!(refusal_of(&[LegacyEntry::of::<Uart>(), LegacyEntry::of::<I8042>()]), expected);
    assert_eq!(refusal_of(&[LegacyEntry::of::<Uart>(), LegacyEntry::of::<PowerManagement>()]), expected);
}

#[test]
fn device_that_another_table_lacks_is_of_no_kind_there() {
    let kinds = Kinds { legacy: &[&PC, &[LegacyEntry::of::<DebugConsole>()]], virtio: &[] };
    let error = machine(&kinds, r#"{"type": "debug-exit"}"#, "").unwrap_err();
    let expected = "devices[0].type: unknown device \"debug-exit\", expected \"debug-console\"";
    assert_eq!(error.to_string(), expected);
}
