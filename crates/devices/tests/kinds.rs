//! The table of kinds: each kind can be planned and built, and none conflicts with another.

use std::sync::Arc;

use serde_json::{Value, json};
use vmm_bus::{BusDevice, Outcome, Output};
use vmm_devices::vmm_snapshot::{
    FORMAT, Manifest, MemoryLayout, SavedHost, Section, SnapshotId, StateFile, StateWriter, Timestamp,
};
use vmm_devices::{
    AcpiParts, BuiltDevice, DeviceState, KINDS, LegacyEntry, PlannedDevice, SavedDevice, Wiring,
};

/// Plans a kind. One that a config lists is placed at a free port.
fn planned(kind: &LegacyEntry) -> PlannedDevice {
    let fields = if kind.listed_as().is_some() { json!({"port": "0x1000"}) } else { json!({}) };
    kind.plan(&fields).unwrap()
}

/// Builds the kind with this name, in a machine that prints to `output`.
fn build(name: &str, output: &Arc<Output>) -> (BuiltDevice, Wiring) {
    let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
    let mut wiring = Wiring::new(Arc::clone(output));
    (planned(kind).build(&mut wiring).unwrap(), wiring)
}

fn output() -> Arc<Output> {
    Arc::new(Output::new().unwrap())
}

#[test]
fn kinds_have_unique_names_and_types() {
    let mut names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KINDS.len());
    let types: Vec<&str> = KINDS.iter().filter_map(LegacyEntry::listed_as).collect();
    assert_eq!(types, ["debug-console", "debug-exit", "pseudo-serial"]);
}

/// The plan rejects conflicts.
#[test]
fn kinds_that_are_not_listed_do_not_share_ports_or_interrupts() {
    let places = KINDS.iter().filter(|kind| kind.listed_as().is_none()).map(|kind| planned(kind).place);
    let mut places: Vec<_> = places.map(|place| (place.ports, place.gsi)).collect();
    places.sort_by_key(|(ports, _)| ports.start);
    let expected = [
        (0x60..0x65, None),
        (0x70..0x72, None),
        (0x3f8..0x400, Some(4)),
        (0x505..0x506, None),
        (0x600..0x606, Some(9)),
    ];
    assert_eq!(places, expected);
}

#[test]
fn kinds_describe_in_acpi_what_a_machine_needs() {
    let mut acpi = AcpiParts::default();
    KINDS.iter().for_each(|kind| planned(kind).describe(&mut acpi).unwrap());
    let names: Vec<&str> = acpi.devices.iter().map(vmm_acpi::Fragment::name).collect();
    assert_eq!(names, ["COM1", "RTC0", "PEVT"]);
    assert_eq!(acpi.power.map(|power| (power.pm1_event_port, power.sci)), Some((0x600, 9)));
    assert_eq!(acpi.reset.map(|reset| (reset.port, reset.value)), Some((0x64, 0xfe)));
    assert!(acpi.rtc.is_some());
}

/// The device accepts the value that an operating system writes to the reset register.
#[test]
fn reset_that_acpi_names_resets() {
    let (built, _) = build("i8042 reset", &output());
    assert_eq!(built.device.write(4, &[0xfe]), Outcome::End(vmm_bus::SystemEvent::Reset));
}

#[test]
fn kinds_are_built_and_only_some_have_an_interrupt() {
    let output = output();
    let has_interrupt = |kind: &&LegacyEntry| build(kind.name, &output).1.into_interrupt().is_some();
    let names: Vec<&str> = KINDS.iter().filter(has_interrupt).map(|kind| kind.name).collect();
    assert_eq!(names, ["uart com1", "power management"]);
}

/// Each kind says what a snapshot contains of it.
#[test]
fn kinds_have_a_state_or_none_to_save() {
    let output = output();
    let state = |kind: &LegacyEntry| match build(kind.name, &output).0.state {
        DeviceState::Unknown => "unknown",
        DeviceState::None => "none",
        DeviceState::Saved(device) => device.kind(),
    };
    let states: Vec<_> = KINDS.iter().map(state).collect();
    assert_eq!(states, ["dev.uart", "none", "dev.rtc", "dev.power", "none", "none", "none", "none"]);
}

/// The machine's devices that have a state, built anew.
fn stateful(output: &Arc<Output>) -> Vec<(Arc<dyn BusDevice>, Arc<dyn SavedDevice>)> {
    let built = KINDS.iter().map(|kind| build(kind.name, output).0);
    let state = |built: BuiltDevice| match built.state {
        DeviceState::Saved(state) => Some((built.device, state)),
        DeviceState::None | DeviceState::Unknown => None,
    };
    built.filter_map(state).collect()
}

fn manifest(sections: Vec<Section>) -> Manifest {
    Manifest {
        format: FORMAT,
        program: "test".to_owned(),
        version: "0".to_owned(),
        created: Timestamp::now(),
        id: SnapshotId::random().unwrap(),
        parent: None,
        host: SavedHost {
            vendor: "GenuineIntel".to_owned(),
            family: 6,
            model: 85,
            stepping: 7,
            kernel: "Linux".to_owned(),
            tsc_khz: 2_000_000,
        },
        memory: MemoryLayout::of([0..0x1000]).unwrap(),
        disks: Vec::new(),
        config: serde_json::Map::new(),
        sections,
    }
}

#[test]
fn kinds_saved_to_a_state_file_are_loaded_from_it() {
    let (output, mut writer) = (output(), StateWriter::new());
    let saved = stateful(&output);
    let [(uart, _), (rtc, _), (power, _)] = &saved[..] else { panic!("{} devices", saved.len()) };
    // The scratch register; a byte of memory; the power button's event.
    _ = [uart.write(7, &[0x5a]), rtc.write(0, &[0x40]), rtc.write(1, &[0x33]), power.write(2, &[0, 1])];
    output.push(b"login: ");
    output.save_to(&mut writer, 0);
    saved.iter().for_each(|(_, state)| state.save_to(&mut writer, 0));
    let sections = writer.sections();
    let mut file = StateFile::parse(writer.finish(&manifest(sections)).unwrap()).unwrap();

    let output = self::output();
    let loaded = stateful(&output);
    output.load_from(&mut file, 0).unwrap();
    loaded.iter().for_each(|(_, state)| state.load_from(&mut file, 0).unwrap());
    let [(uart, state), (rtc, _), (power, _)] = &loaded[..] else { panic!("{} devices", loaded.len()) };
    assert_eq!((read(&**uart, 7), read(&**rtc, 1), read(&**power, 3)), (0x5a, 0x33, 1));
    assert_eq!(output.queued(), 7);
    assert_eq!(state.load_from(&mut file, 1).unwrap_err().to_string(), "section dev.uart/1 is missing");
    file.finish().unwrap();
}

#[test]
fn kinds_without_state_read_the_same_after_any_write() {
    let output = output();
    let stateless = KINDS.iter().map(|kind| build(kind.name, &output).0);
    for device in stateless.filter(|built| matches!(built.state, DeviceState::None)) {
        let read = || (0..5).map(|offset| read(&*device.device, offset)).collect::<Vec<_>>();
        let before = read();
        (0..5).for_each(|offset| _ = device.device.write(offset, &[0xa5]));
        assert_eq!(read(), before);
    }
}

fn read(device: &dyn BusDevice, offset: u64) -> u8 {
    let mut data = [0x77];
    device.read(offset, &mut data);
    data[0]
}

#[test]
fn kinds_that_print_do_so_into_one_queue() {
    let output = output();
    let print = |name: &str, byte: &[u8]| build(name, &output).0.device.write(0, byte);
    assert_eq!(print("uart com1", b"1"), Outcome::Done);
    assert_eq!(print("debug console", b"2"), Outcome::Done);
    assert_eq!(print("pseudo serial port", b"3"), Outcome::Done);
    let mut bytes = [0; 8];
    assert_eq!(output.take(&mut bytes).len, 3);
    assert_eq!(&bytes[..3], b"123");
}

#[test]
fn uart_offers_its_serial_line() {
    let (built, _) = build("uart com1", &output());
    let serial = built.serial.unwrap();
    // The guest enables the received data interrupt.
    assert_eq!(built.device.write(1, &[1]), Outcome::Done);
    assert_eq!(serial.send(b"x"), 1);
    let mut byte = [0];
    built.device.read(0, &mut byte);
    assert_eq!(&byte, b"x");
}

#[test]
fn power_management_offers_its_power_button() {
    let (built, wiring) = build("power management", &output());
    let button = built.power_button.unwrap();
    assert!(!button.press(), "it isn't enabled yet");
    // The guest enables the button's event, bit 8 of the register at 2.
    assert_eq!(built.device.write(2, &[0, 1]), Outcome::Done);
    assert!(button.press());
    assert!(wiring.into_interrupt().unwrap().event().read().is_ok());
}

#[test]
fn interrupt_of_a_device_is_one_line_however_often_it_is_requested() {
    let mut wiring = Wiring::new(output());
    wiring.interrupt().unwrap().trigger().unwrap();
    wiring.interrupt().unwrap().trigger().unwrap();
    assert_eq!(wiring.into_interrupt().unwrap().event().read().unwrap(), 2);
}

fn refusal(fields: &Value) -> String {
    let kind = KINDS.iter().find(|kind| kind.name == "debug exit").unwrap();
    kind.plan(fields).unwrap_err().to_string()
}

#[test]
fn fields_unknown_to_a_kind_are_refused() {
    assert_eq!(refusal(&json!({"prot": 1})), "prot: unknown field, did you mean \"port\"?");
    assert_eq!(
        refusal(&json!({"port": "e9"})),
        "port: \"e9\" lacks the 0x of a hexadecimal number, write \"0xe9\""
    );
}

/// The config's own types for these kinds result in the same fields as the table's.
#[test]
fn kinds_known_to_the_config_accept_its_fields() {
    let text = r#"{"devices": [{"type": "debug-console"}, {"type": "debug-exit"}, {"type": "pseudo-serial", "port": 241}]}"#;
    let file = vmm_config::ConfigFile::parse(text, "vm.json".as_ref()).unwrap();
    let place = |device: &vmm_config::Device| {
        let (name, fields) = device.kind_and_fields();
        let kind = KINDS.iter().find(|kind| kind.listed_as() == Some(&name)).unwrap();
        kind.plan(&fields).unwrap().place.ports
    };
    let places: Vec<_> = file.devices.iter().map(place).collect();
    assert_eq!(places, [0xe9..0xea, 0xf4..0xf8, 0xf1..0xf2]);
}

/// Types known to the config are described by its own schema, with their defaults, and only once.
#[test]
fn schema_has_each_type_once() {
    let listed = KINDS.iter().filter_map(|kind| Some((kind.listed_as()?, kind.schema)));
    assert_eq!(vmm_config::schema_with(listed), vmm_config::schema());
    let own = KINDS.iter().find_map(|kind| kind.listed_as().map(|_| ("bell", kind.schema)));
    let schema = vmm_config::schema_with(own);
    let devices = schema["properties"]["devices"]["items"]["oneOf"].as_array().unwrap();
    let types: Vec<&Value> = devices.iter().map(|device| &device["properties"]["type"]["const"]).collect();
    assert_eq!(types, ["debug-console", "debug-exit", "pseudo-serial", "bell"]);
}
