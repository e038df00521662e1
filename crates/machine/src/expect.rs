//! Compares the state of a halted guest with the config's `expect`.

use std::fmt;

use vmm_config::{Expect, Value};
use vmm_kvm::VcpuReport;
use vmm_memory::Memory;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use crate::platform;

/// A value that differs from the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The register, or the width and address in memory.
    pub what: String,
    /// The guest's value.
    pub found: u64,
    /// The config's value.
    pub expected: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, expected } = self;
        write!(f, "{what} is {found:#x} ({found}), expected {expected:#x} ({expected})")
    }
}

/// All values that differ. The plan has checked that the memory exists.
pub(crate) fn mismatches(expect: &Expect, report: &VcpuReport, memory: &Memory) -> Vec<Mismatch> {
    let in_memory = expect.memory.iter().map(|expected| {
        let gpa = expected.address.get();
        let (len, value) = (len(expected.value), as_u64(expected.value));
        let mut bytes = [0; 8];
        let read = memory.read_slice(&mut bytes[..len], GuestAddress(gpa));
        debug_assert!(read.is_ok(), "the plan checked {gpa:#x}");
        (format!("the u{} at {gpa:#x}", 8 * len), u64::from_le_bytes(bytes), value)
    });
    platform::expected_registers(expect, report)
        .into_iter()
        .chain(in_memory)
        .filter(|(_, found, expected)| found != expected)
        .map(|(what, found, expected)| Mismatch { what, found, expected })
        .collect()
}

/// The length of a value in memory, in bytes.
pub(crate) fn len(value: Value) -> usize {
    match value {
        Value::U8(_) => 1,
        Value::U16(_) => 2,
        Value::U32(_) => 4,
        Value::U64(_) => 8,
    }
}

fn as_u64(value: Value) -> u64 {
    match value {
        Value::U8(value) => value.into(),
        Value::U16(value) => value.into(),
        Value::U32(value) => value.into(),
        Value::U64(value) => value,
    }
}
