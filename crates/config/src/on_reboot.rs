//! What happens when the guest resets the machine. The default is exit code 0: with `panic=-1`, a reset is how many
//! guests end.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{strict, text::hint, value_error::ValueError};

/// What happens when the guest resets the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// The monitor exits.
    #[default]
    Exit,
    /// The machine restarts in the same process: memory cleared, devices reset, kernel reloaded.
    Restart,
}

impl OnReboot {
    /// All values, in the order of the documentation.
    pub const ALL: [OnReboot; 2] = [OnReboot::Exit, OnReboot::Restart];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            OnReboot::Exit => "exit",
            OnReboot::Restart => "restart",
        }
    }
}

impl FromStr for OnReboot {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<OnReboot, ValueError> {
        let names = OnReboot::ALL.map(OnReboot::name);
        OnReboot::ALL.into_iter().find(|value| value.name() == text).ok_or_else(|| ValueError::UnknownName {
            what: "action",
            name: text.to_owned(),
            hint: hint(text, &names),
        })
    }
}

impl fmt::Display for OnReboot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

impl<'de> Deserialize<'de> for OnReboot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OnReboot, D::Error> {
        strict::text(deserializer, "an action such as \"exit\"")
    }
}
