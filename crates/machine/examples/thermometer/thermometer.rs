//! A custom legacy device.

use std::io;

use vmm_devices::schemars::JsonSchema;
use vmm_devices::serde::Deserialize;
use vmm_devices::vmm_acpi::io_device;
use vmm_devices::vmm_config::Port;
use vmm_devices::{AcpiParts, BuiltDevice, BusDevice, IrqLine, LegacyKind, Outcome, Place, Presence, Wiring};

/// Port 0 reads as the temperature. Writing a threshold to port 1 raises an interrupt if the temperature has reached it.
#[derive(Debug)]
pub(crate) struct Thermometer {
    degrees: u8,
    alarm: IrqLine,
}

/// Its fields in the config.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "vmm_devices::serde", deny_unknown_fields)]
#[schemars(crate = "vmm_devices::schemars")]
pub(crate) struct Config {
    /// Its first port.
    #[serde(default = "customary_port")]
    port: Port,
    /// The temperature, in degrees Celsius.
    degrees: u8,
}

fn customary_port() -> Port {
    Port::from(0x90)
}

impl LegacyKind for Thermometer {
    const NAME: &'static str = "thermometer";
    const PRESENCE: Presence = Presence::Listed("thermometer");
    type Config = Config;

    fn place(config: &Config) -> Place {
        Place::ports_from(config.port, 2).with_gsi(5)
    }

    fn describe(place: &Place, acpi: &mut AcpiParts) -> Result<(), vmm_devices::vmm_acpi::Error> {
        acpi.devices.push(io_device("THRM", "TEMP0001", 0, [place.ports.clone()], place.gsi)?);
        Ok(())
    }

    fn build(config: &Config, wiring: &mut Wiring) -> io::Result<BuiltDevice> {
        let device = Self { degrees: config.degrees, alarm: wiring.interrupt()? };
        // A threshold is compared when it is written, and not kept.
        Ok(BuiltDevice::new(device).without_state())
    }
}

impl BusDevice for Thermometer {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let (0, [value]) = (offset, data) {
            *value = self.degrees;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Outcome {
        if let (1, [threshold]) = (offset, data)
            && self.degrees >= *threshold
        {
            // Can't be full: the counter would have to reach 2^64 - 1.
            let _ = self.alarm.trigger();
        }
        Outcome::Done
    }
}
