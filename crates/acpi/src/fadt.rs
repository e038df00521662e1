//! The FADT: fixed hardware and power management registers (ACPI 6.5 §5.2.9).

use acpi_tables::Aml;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

use crate::Description;
use crate::description::Legacy;
use crate::table::{OEM_ID, OEM_REVISION, OEM_TABLE_ID};

/// Hypervisor Vendor Identity, "a 64-bit identifier of hypervisor vendor".
const HYPERVISOR_VENDOR: [u8; 8] = *b"VMM\0\0\0\0\0";

/// Length of PM1a_STS and PM1a_EN, two bytes each.
const PM1_EVENT_LEN: u8 = 4;
/// Length of PM1a_CNT in bytes.
const PM1_CONTROL_LEN: u8 = 2;
/// Length of PM_TMR in bytes.
const PM_TIMER_LEN: u8 = 4;

/// "A value > 100 indicates the system does not support a C2 state", in microseconds.
const NO_C2: u16 = 101;
/// "A value > 1000 indicates the system does not support a C3 state", in microseconds.
const NO_C3: u16 = 1001;

/// Bits of IAPC_BOOT_ARCH (ACPI 6.5 §5.2.9.3).
mod boot_arch {
    pub(super) const LEGACY_DEVICES: u16 = 1 << 0;
    pub(super) const I8042: u16 = 1 << 1;
    pub(super) const VGA_NOT_PRESENT: u16 = 1 << 2;
    pub(super) const CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;
}

/// Length of the FADT in bytes.
pub(crate) fn len() -> usize {
    FADT::len()
}

/// Renders the FADT, which points to the FACS and the DSDT at these addresses.
pub(crate) fn render(description: &Description<'_>, facs: u32, dsdt: u32) -> Vec<u8> {
    let power = &description.power;
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        // The flag means that there is no fixed-hardware sleep button. Without PWR_BUTTON there is a power
        // button.
        .flag(Flags::SlpButton)
        // The flag means that RTC wake-up isn't in the PM1 event registers.
        .flag(Flags::FixRtc)
        .flag(Flags::ResetRegSup);
    // Addresses are set twice: the 32-bit fields are for kernels that only know ACPI 1.0.
    fadt.firmware_ctrl = facs.into();
    fadt.x_firmware_ctrl = u64::from(facs).into();
    fadt.dsdt = dsdt.into();
    fadt.x_dsdt = u64::from(dsdt).into();
    fadt.sci_int = u16::from(power.sci).into();
    fadt.pm1a_evt_blk = u32::from(power.pm1_event_port).into();
    fadt.pm1_evt_len = PM1_EVENT_LEN;
    fadt.x_pm1a_evt_blk = ports(power.pm1_event_port, PM1_EVENT_LEN, AccessSize::WordAccess);
    fadt.pm1a_cnt_blk = u32::from(power.pm1_control_port).into();
    fadt.pm1_cnt_len = PM1_CONTROL_LEN;
    fadt.x_pm1a_cnt_blk = ports(power.pm1_control_port, PM1_CONTROL_LEN, AccessSize::WordAccess);
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = description.legacy.rtc.map_or(0, |rtc| rtc.century);
    fadt.iapc_boot_arch = boot_arch(&description.legacy).into();
    fadt.reset_reg = ports(power.reset.port, 1, AccessSize::ByteAccess);
    fadt.reset_value = power.reset.value;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(HYPERVISOR_VENDOR).into();
    if let Some(port) = power.pm_timer_port {
        fadt.pm_tmr_blk = u32::from(port).into();
        fadt.pm_tmr_len = PM_TIMER_LEN;
        fadt.x_pm_tmr_blk = ports(port, PM_TIMER_LEN, AccessSize::DwordAccess);
    }
    let mut bytes = Vec::with_capacity(len());
    fadt.finalize().to_aml_bytes(&mut bytes);
    bytes
}

fn ports(port: u16, len: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, len * 8, 0, access, u64::from(port))
}

fn boot_arch(legacy: &Legacy) -> u16 {
    let mut flags = boot_arch::VGA_NOT_PRESENT;
    if legacy.isa_devices {
        flags |= boot_arch::LEGACY_DEVICES;
    }
    if legacy.i8042 {
        flags |= boot_arch::I8042;
    }
    if legacy.rtc.is_none() {
        flags |= boot_arch::CMOS_RTC_NOT_PRESENT;
    }
    flags
}
