//! What a guest may use of a device, as a config says it.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Deserialize;
use vmm_config::{ByteSize, Ranged, present};
use vmm_hostio::{Rate, RateLimiter};
use vmm_virtio::OpenError;

/// What the guest may use. What is absent is without limit.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes each second.
    #[serde(default, deserialize_with = "present")]
    pub bytes_per_second: Option<ByteSize>,
    /// Bytes at once after a rest; if absent, those of a second.
    #[serde(default, deserialize_with = "present")]
    pub bytes_burst: Option<ByteSize>,
    /// Requests each second.
    #[serde(default, deserialize_with = "present")]
    pub operations_per_second: Option<Ranged<0, { u64::MAX }>>,
    /// Requests at once after a rest; if absent, those of a second.
    #[serde(default, deserialize_with = "present")]
    pub operations_burst: Option<Ranged<0, { u64::MAX }>>,
}

impl Limits {
    /// What keeps to them, `None` if there are none.
    ///
    /// # Errors
    /// One lets nothing through, or a burst limits nothing. The field is called `limits`.
    pub(crate) fn limiter(&self) -> Result<Option<RateLimiter>, OpenError> {
        let bytes = |size: Option<ByteSize>| size.map(ByteSize::bytes);
        let bytes = rate("bytes", bytes(self.bytes_per_second), bytes(self.bytes_burst))?;
        let number = |given: Option<Ranged<0, { u64::MAX }>>| given.map(Ranged::get);
        let operations =
            rate("operations", number(self.operations_per_second), number(self.operations_burst))?;
        let is_limited = bytes.is_some() || operations.is_some();
        Ok(is_limited.then(|| RateLimiter::new(bytes, operations, Instant::now())))
    }
}

fn rate(what: &str, per_second: Option<u64>, burst: Option<u64>) -> Result<Option<Rate>, OpenError> {
    let wrong = |name: &str, problem: &str| {
        Err(OpenError::config(&format!("limits.{what}_{name}"), problem.to_owned()))
    };
    match (per_second, burst) {
        (Some(0), _) => wrong("per_second", "0 lets nothing through, leave it out for no limit"),
        (_, Some(0)) => wrong("burst", "0 lets nothing through, leave it out for that of a second"),
        (None, Some(_)) => wrong("burst", &format!("limits nothing without \"{what}_per_second\", add that")),
        (Some(per_second), burst) => Ok(Some(Rate { per_second, burst: burst.unwrap_or(per_second) })),
        (None, None) => Ok(None),
    }
}
