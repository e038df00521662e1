//! What a guest may use of a device, as a config says it.

use std::fmt;
use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::{ByteSize, Ranged};
use vmm_hostio::{Rate, RateLimiter};
use vmm_virtio::DeviceError;

/// What the guest may use. What is absent is without limit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"bytes_per_second\": \"10M\"}")]
pub struct Limits {
    /// Bytes each second.
    #[serde(default)]
    pub bytes_per_second: Option<ByteSize>,
    /// Bytes at once after a rest; if absent, those of a second.
    #[serde(default)]
    pub bytes_burst: Option<ByteSize>,
    /// Requests each second.
    #[serde(default)]
    pub operations_per_second: Option<Ranged<0, { u64::MAX }>>,
    /// Requests at once after a rest; if absent, those of a second.
    #[serde(default)]
    pub operations_burst: Option<Ranged<0, { u64::MAX }>>,
}

impl Limits {
    /// What keeps to them, `None` if there are none.
    ///
    /// # Errors
    /// One lets nothing through, or a burst limits nothing. The field is called `limits`.
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
