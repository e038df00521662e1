//! Rate limits of a device.

use std::fmt;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::{ByteSize, Ranged};
use vmm_hostio::{Rate, RateLimiter};
use vmm_virtio::DeviceError;

/// Rate limits. Absent ones are unlimited.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"bytes_per_second\": \"10M\"}")]
pub struct Limits {
    /// Bytes per second.
    #[serde(default)]
    pub bytes_per_second: Option<ByteSize>,
    /// Maximum burst in bytes; default: the bytes of one second.
    #[serde(default)]
    pub bytes_burst: Option<ByteSize>,
    /// Requests per second.
    #[serde(default)]
    pub operations_per_second: Option<Ranged<0, { u64::MAX }>>,
    /// Maximum burst in requests; default: the requests of one second.
    #[serde(default)]
    pub operations_burst: Option<Ranged<0, { u64::MAX }>>,
}

impl Limits {
    /// The limiter, or `None` without limits.
    ///
    /// # Errors
    /// A limit of 0, or a burst without a rate. The error's field is `limits`.
    pub(crate) fn limiter(&self) -> Result<Option<RateLimiter>, DeviceError> {
        let bytes = rate("bytes", self.bytes_per_second, self.bytes_burst, ByteSize::bytes)?;
        let operations = rate("operations", self.operations_per_second, self.operations_burst, Ranged::get)?;
        let is_limited = bytes.is_some() || operations.is_some();
        Ok(is_limited.then(|| RateLimiter::new(bytes, operations, Instant::now())))
    }
}

fn rate<N: Copy + fmt::Display>(
    what: &str,
    per_second: Option<N>,
    burst: Option<N>,
    number: fn(N) -> u64,
) -> Result<Option<Rate>, DeviceError> {
    let wrong = |name: &str, problem: &str| {
        Err(DeviceError::config(&format!("limits.{what}_{name}"), problem.to_owned()))
    };
    match (per_second.map(number), burst.map(number)) {
        (Some(0), _) => wrong("per_second", "0 lets nothing through, leave it out for no limit"),
        (_, Some(0)) => wrong("burst", "0 lets nothing through, leave it out for that of a second"),
        (None, Some(_)) => {
            let shown = burst.map(|burst| format!("{burst} ")).unwrap_or_default();
            wrong("burst", &format!("{shown}limits nothing without \"{what}_per_second\", add that"))
        }
        (Some(per_second), burst) => Ok(Some(Rate { per_second, burst: burst.unwrap_or(per_second) })),
        (None, None) => Ok(None),
    }
}
