//! A device without fields in the config.

use schemars::JsonSchema;
use serde::Deserialize;

/// The fields of a kind of device that has none, besides `type` and `id`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoFields {}
