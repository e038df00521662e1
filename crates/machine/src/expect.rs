//! Compares a guest that has halted with what its config expects of it.

use std::fmt;

use vmm_config::{Expect, Value};
use vmm_kvm::VcpuReport;
use vmm_memory::Memory;
use vmm_memory::vm_memory::{Bytes, GuestAddress};

use crate::platform;

/// Something that isn't as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What it is, as in the config.
    pub what: String,
    /// What is there.
    pub found: u64,
    /// What was expected.
    pub expected: u64,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, found, expected } = self;
        write!(f, "{what} is {found:#x} ({found}), expected {expected:#x} ({expected})")
    }
}

/// All that isn't as expected. Memory that isn't there was refused by the plan.
pub(crate) fn mismatches(expect: &Expect, report: &VcpuReport, memory: &Memory) -> Vec<Mismatch> {
    let in_memory = expect.memory.iter().map(|expected| {
        let gpa = expected.address.get();
        let (len, value) = (len(expected.value), word(expected.value));
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

/// Bytes of a value in memory.
pub(crate) fn len(value: Value) -> usize {
    match value {
        Value::U8(_) => 1,
        Value::U16(_) => 2,
        Value::U32(_) => 4,
        Value::U64(_) => 8,
    }
}

fn word(value: Value) -> u64 {
    match value {
        Value::U8(value) => value.into(),
        Value::U16(value) => value.into(),
        Value::U32(value) => value.into(),
        Value::U64(value) => value,
    }
}
