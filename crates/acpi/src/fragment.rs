//! AML fragments: the device objects in `\_SB`.

use std::fmt;
use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{Device, EISAName, IO, Interrupt, Memory32Fixed, Name, ResourceTemplate};

use crate::Error;

/// The AML of one device, and the name of the object that it defines in `\_SB`.
#[derive(Clone, PartialEq, Eq)]
pub struct Fragment {
    name: ObjectName,
    aml: Vec<u8>,
}

impl Fragment {
    /// Makes a fragment of the caller's AML, which must define an object called `name` and nothing else in
    /// `\_SB`. The bytes aren't checked.
    ///
    /// # Errors
    /// [`Error::Name`] if `name` isn't valid.
    pub fn from_aml(name: &str, aml: Vec<u8>) -> Result<Self, Error> {
        Ok(Self { name: ObjectName::new(name)?, aml })
    }

    /// The object's name, four characters.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The AML bytes.
    pub fn aml(&self) -> &[u8] {
        &self.aml
    }
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fragment({}, {} bytes)", self.name(), self.aml.len())
    }
}

/// I/O ports of a PC.
const PORT_COUNT: u64 = 0x1_0000;

/// Makes the fragment of a device with I/O ports, such as COM1: PNP0501 at 0x3f8 with interrupt 4.
///
/// - `name`: up to four characters, unique in `\_SB`.
/// - `hid`: the hardware id by which drivers find the device, such as "PNP0501" or "QEMU0001".
/// - `uid`: distinguishes devices with the same `hid`, and must not change from boot to boot.
/// - `ports`: ranges of 1 to 255 ports each, the last one at most 0xffff.
/// - `gsi`: a global system interrupt, exclusive, edge-triggered, active high.
///
/// # Errors
/// `name` or `hid` isn't valid, a range has no or more than 255 ports, or it runs past the last port.
pub fn io_device(
    name: &str,
    hid: &str,
    uid: u32,
    ports: impl IntoIterator<Item = Range<u64>>,
    gsi: Option<u32>,
) -> Result<Fragment, Error> {
    let name = ObjectName::new(name)?;
    let ports: Vec<IO> = ports.into_iter().map(|range| io(&name, &range)).collect::<Result<_, _>>()?;
    let interrupt = gsi.map(rising_edge);
    let ports = ports.iter().map(|io| io as &dyn Aml);
    let resources = ports.chain(interrupt.iter().map(|interrupt| interrupt as &dyn Aml)).collect();
    device(name, hid, uid, resources)
}

/// Makes the fragment of a device with memory-mapped registers, such as virtio-mmio: LNRO0005.
///
/// - `name`, `hid`, `uid`: as for [`io_device`].
/// - `registers`: guest-physical addresses below 4 GiB.
/// - `gsi`: a global system interrupt, exclusive, edge-triggered, active high.
///
/// # Errors
/// `name` or `hid` isn't valid, or `registers` is empty or not below 4 GiB.
pub fn mmio_device(
    name: &str,
    hid: &str,
    uid: u32,
    registers: Range<u64>,
    gsi: u32,
) -> Result<Fragment, Error> {
    let name = ObjectName::new(name)?;
    let registers = memory(&name, &registers)?;
    device(name, hid, uid, vec![&registers, &rising_edge(gsi)])
}

/// Makes the fragment of a device that reserves memory addresses which aren't in the memory map, such as PCI configuration spaces
/// (`_HID` PNP0C02, "motherboard resources").
///
/// # Errors
/// The name isn't an ACPI name, or the range is empty or not below 4 GiB.
pub fn motherboard(name: &str, range: Range<u64>) -> Result<Fragment, Error> {
    let name = ObjectName::new(name)?;
    let range = memory(&name, &range)?;
    device(name, "PNP0C02", 0, vec![&range])
}

fn device(name: ObjectName, hid: &str, uid: u32, resources: Vec<&dyn Aml>) -> Result<Fragment, Error> {
    let hid = HardwareId::new(&name, hid)?;
    let mut aml = Vec::new();
    let hid = Name::new("_HID".into(), hid.node());
    let uid = Name::new("_UID".into(), &uid);
    let resources = Name::new("_CRS".into(), &ResourceTemplate::new(resources));
    Device::new(name.as_str().into(), vec![&hid, &uid, &resources]).to_aml_bytes(&mut aml);
    Ok(Fragment { name, aml })
}

/// An I/O descriptor (ACPI 6.5 §6.4.2.5), whose length field has 8 bits.
fn io(device: &ObjectName, ports: &Range<u64>) -> Result<IO, Error> {
    let len =
        ports.end.checked_sub(ports.start).and_then(|len| u8::try_from(len).ok()).filter(|len| *len > 0);
    let start = u16::try_from(ports.start).ok().filter(|_| ports.end <= PORT_COUNT);
    let wrong = || Error::Ports { name: device.to_string(), ports: ports.clone() };
    let (start, len) = start.zip(len).ok_or_else(wrong)?;
    // The lowest and the highest base are equal: the device doesn't move, so it has no alignment.
    Ok(IO::new(start, start, 1, len))
}

fn memory(device: &ObjectName, registers: &Range<u64>) -> Result<Memory32Fixed, Error> {
    let wrong = || Error::Registers { name: device.to_string(), registers: registers.clone() };
    if registers.is_empty() || registers.end > 1 << 32 {
        return Err(wrong());
    }
    let base = u32::try_from(registers.start).map_err(|_| wrong())?;
    let len = u32::try_from(registers.end - registers.start).map_err(|_| wrong())?;
    Ok(Memory32Fixed::new(true, base, len))
}

/// An exclusive edge-triggered interrupt: a write to an irqfd raises one edge.
fn rising_edge(gsi: u32) -> Interrupt {
    let (consumer, edge_triggered, active_low, shared) = (true, true, false, false);
    Interrupt::new(consumer, edge_triggered, active_low, shared, gsi)
}

/// An object name: exactly four characters, starting with a letter (ACPI 6.5 §20.2.2). Names that start with
/// an underscore are reserved by the specification.
#[derive(Clone, PartialEq, Eq)]
struct ObjectName(String);

impl ObjectName {
    /// Pads shorter names with underscores, as the specification requires.
    fn new(name: &str) -> Result<Self, Error> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_uppercase());
        let goes_on_well = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        match starts_well && goes_on_well && name.len() <= 4 {
            true => Ok(Self(format!("{name:_<4}"))),
            false => Err(Error::Name { name: name.to_owned() }),
        }
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A hardware id in one of its two forms (ACPI 6.5 §6.1.5).
enum HardwareId {
    /// Three letters and four hexadecimal digits, compressed to 32 bits.
    Eisa(EISAName),
    /// Four letters or digits and four hexadecimal digits, as a string.
    Acpi(String),
}

impl HardwareId {
    fn new(device: &ObjectName, hid: &str) -> Result<Self, Error> {
        let is_hex = |c: char| matches!(c, '0'..='9' | 'A'..='F');
        let is_vendor = |c: char| c.is_ascii_uppercase() || (hid.len() == 8 && c.is_ascii_digit());
        match hid.len().checked_sub(4).and_then(|middle| hid.split_at_checked(middle)) {
            Some((vendor, product)) if vendor.chars().all(is_vendor) && product.chars().all(is_hex) => {
                match vendor.len() {
                    3 => return Ok(Self::Eisa(EISAName::new(hid))),
                    4 => return Ok(Self::Acpi(hid.to_owned())),
                    _ => {}
                }
            }
            _ => {}
        }
        Err(Error::HardwareId { name: device.to_string(), hid: hid.to_owned() })
    }

    fn node(&self) -> &dyn Aml {
        match self {
            Self::Eisa(node) => node,
            Self::Acpi(node) => node,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn com1_is_encoded_as_the_specification_says() {
        let com1 = io_device("COM1", "PNP0501", 0, [0x3f8..0x400], Some(4)).unwrap();
        let expected: Vec<u8> = [
            &[0x5b, 0x82, 0x31][..], // Device, 49 bytes
            b"COM1",
            &[0x08],
            b"_HID",
            &[0x0c, 0x41, 0xd0, 0x05, 0x01], // EISAID("PNP0501")
            &[0x08],
            b"_UID",
            &[0x00],
            &[0x08],
            b"_CRS",
            &[0x11, 0x16, 0x0a, 0x13], // Buffer of 19 bytes
            &[0x47, 0x01, 0xf8, 0x03, 0xf8, 0x03, 0x01, 0x08],
            &[0x89, 0x06, 0x00, 0x03, 0x01, 0x04, 0x00, 0x00, 0x00], // consumer, edge, active high, exclusive
            &[0x79, 0x00],
        ]
        .concat();
        assert_eq!(com1.aml(), expected);
    }

    #[test]
    fn mmio_device_has_a_string_for_its_id() {
        let virtio = mmio_device("VR00", "LNRO0005", 7, 0xc000_0000..0xc000_0200, 5).unwrap();
        let text = b"_HID\x0dLNRO0005\0";
        assert!(virtio.aml().windows(text.len()).any(|bytes| bytes == text));
    }

    #[test]
    fn short_name_is_filled_up() {
        assert_eq!(io_device("RTC", "PNP0B00", 0, [0x70..0x72], None).unwrap().name(), "RTC_");
    }

    fn assert_bad_name(name: &str) {
        let error = io_device(name, "PNP0501", 0, [], None).unwrap_err();
        assert_eq!(error, Error::Name { name: name.to_owned() });
    }

    #[test]
    fn name_of_no_characters_is_refused() {
        assert_bad_name("");
    }

    #[test]
    fn name_of_five_characters_is_refused() {
        assert_bad_name("COM10");
    }

    #[test]
    fn name_in_lower_case_is_refused() {
        assert_bad_name("com1");
    }

    #[test]
    fn name_that_starts_with_a_digit_is_refused() {
        assert_bad_name("1COM");
    }

    #[test]
    fn name_of_the_specification_is_refused() {
        assert_bad_name("_SB_");
    }

    #[test]
    fn name_of_two_bytes_a_character_is_refused() {
        assert_bad_name("ÄÖ");
    }

    fn assert_bad_id(hid: &str) {
        let error = io_device("COM1", hid, 0, [], None).unwrap_err();
        assert_eq!(error, Error::HardwareId { name: "COM1".to_owned(), hid: hid.to_owned() });
    }

    #[test]
    fn id_of_no_characters_is_refused() {
        assert_bad_id("");
    }

    #[test]
    fn id_of_nine_characters_is_refused() {
        assert_bad_id("LNRO00005");
    }

    #[test]
    fn eisa_id_with_a_digit_for_a_vendor_is_refused() {
        assert_bad_id("PN50501");
    }

    #[test]
    fn id_that_ends_in_letters_above_f_is_refused() {
        assert_bad_id("LNRO000G");
    }

    #[test]
    fn id_in_lower_case_is_refused() {
        assert_bad_id("pnp0501");
    }

    #[test]
    fn id_with_a_character_across_its_middle_is_refused() {
        // The ä occupies bytes 3 and 4, so the split four bytes from the end is inside it.
        assert_bad_id("PNPä050");
    }

    #[test]
    fn no_ports_in_a_range_are_refused() {
        let error = io_device("COM1", "PNP0501", 0, [0x3f8..0x3f8], None).unwrap_err();
        assert_eq!(error.to_string(), "device COM1: ports 0x3f8..0x3f8 must be 1 to 255, none above 0xffff");
    }

    #[test]
    fn ports_that_run_backwards_are_refused() {
        let ports = Range { start: 0x400, end: 0x3f8 };
        assert!(matches!(io_device("COM1", "PNP0501", 0, [ports], None), Err(Error::Ports { .. })));
    }

    #[test]
    fn ports_up_to_the_last_one_are_fine_and_none_beyond_it() {
        assert!(io_device("COM1", "PNP0501", 0, [0xfff8..0x1_0000], None).is_ok());
        let error = io_device("COM1", "PNP0501", 0, [0xfff8..0x1_0001], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "device COM1: ports 0xfff8..0x10001 must be 1 to 255, none above 0xffff"
        );
    }

    #[test]
    fn more_than_255_ports_in_a_range_are_refused() {
        assert!(matches!(io_device("COM1", "PNP0501", 0, [0..256], None), Err(Error::Ports { .. })));
    }

    #[test]
    fn registers_up_to_4_gib_are_accepted() {
        assert!(mmio_device("VR00", "LNRO0005", 0, 0xffff_fe00..0x1_0000_0000, 5).is_ok());
    }

    #[test]
    fn registers_across_4_gib_are_refused() {
        let error = mmio_device("VR00", "LNRO0005", 0, 0xffff_ff00..0x1_0000_0100, 5).unwrap_err();
        let text = "device VR00: registers 0xffffff00..0x100000100 must be at least 1 byte, below 4 GiB";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn registers_that_are_all_below_4_gib_are_refused() {
        let error = mmio_device("VR00", "LNRO0005", 0, 0..0x1_0000_0000, 5).unwrap_err();
        assert!(matches!(error, Error::Registers { .. }), "the length doesn't fit 32 bits");
    }
}
