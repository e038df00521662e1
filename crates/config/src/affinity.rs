//! CPU affinity of the virtual processors.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    strict::{self, ShallowValue},
    value_error::ValueError,
};

/// Number of a host CPU, 0 to 8191. Whether it exists is checked when the machine is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HostCpu(u16);

impl HostCpu {
    /// The maximum of any Linux build for x86-64 (arch/x86/Kconfig, NR_CPUS_RANGE_END).
    pub const MAX: HostCpu = HostCpu(8191);

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for HostCpu {
    type Error = ValueError;

    fn try_from(number: u64) -> Result<HostCpu, ValueError> {
        let fits = u16::try_from(number).ok().map(HostCpu).filter(|cpu| *cpu <= HostCpu::MAX);
        fits.ok_or_else(|| ValueError::TooLarge { value: number.to_string(), most: HostCpu::MAX.to_string() })
    }
}

impl fmt::Display for HostCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for HostCpu {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HostCpu, D::Error> {
        strict::value(deserializer, |found| match found {
            ShallowValue::Unsigned(number) => HostCpu::try_from(number),
            other => Err(other.instead_of("the number of a host CPU, from 0 to 8191")),
        })
    }
}

impl JsonSchema for HostCpu {
    fn schema_name() -> Cow<'static, str> {
        "HostCpu".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Number of a host CPU.",
            "type": "integer",
            "minimum": 0,
            "maximum": HostCpu::MAX.get(),
        })
    }
}

/// The host CPUs on which a virtual processor may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct HostCpus(Vec<HostCpu>);

impl HostCpus {
    /// The CPUs in the order of the config.
    pub fn iter(&self) -> impl Iterator<Item = HostCpu> + '_ {
        self.0.iter().copied()
    }
}

impl TryFrom<Vec<HostCpu>> for HostCpus {
    type Error = ValueError;

    fn try_from(cpus: Vec<HostCpu>) -> Result<HostCpus, ValueError> {
        if cpus.is_empty() { Err(ValueError::NoHostCpu) } else { Ok(HostCpus(cpus)) }
    }
}

impl<'de> Deserialize<'de> for HostCpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HostCpus, D::Error> {
        let cpus: Vec<HostCpu> = strict::list(deserializer, "a list of host CPUs such as [0, 1]")?;
        HostCpus::try_from(cpus).map_err(serde::de::Error::custom)
    }
}

/// Reads the lists of all processors.
pub(crate) fn lists<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<HostCpus>>, D::Error> {
    strict::list(deserializer, "a list with a list of host CPUs for each processor such as [[0], [1]]")
        .map(Some)
}
