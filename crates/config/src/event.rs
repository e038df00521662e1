//! What happens to a machine, as a control socket's clients are told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A line of events: `{"event": "paused"}` or `{"event": {"ended": {"exit_code": 0, "reason": "the guest powered off"}}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventLine {
    /// What has happened.
    pub event: Event,
}

/// Something that has happened to the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The guest's first instruction runs; after a reset, the next guest's.
    Started,
    /// The machine is paused.
    Paused,
    /// A paused machine runs again.
    Resumed,
    /// The machine was reset, by the guest or by a command, and restarts.
    Reset,
    /// The guest's kernel has reported a panic. The end of the machine follows.
    GuestPanicked,
    /// A driver has violated the protocol of its virtio device, which does nothing until the driver resets it.
    DeviceFault {
        /// The device's id.
        id: String,
        /// What the driver did.
        message: String,
    },
    /// A rule of a network card has refused a destination for the first time.
    ConnectionRefused {
        /// The device's id.
        id: String,
        /// The protocol, and the address and port if it has one, such as `tcp 192.0.2.7:80`.
        destination: String,
    },
    /// The monitor exits. The last event.
    Ended {
        /// Its exit code.
        exit_code: u8,
        /// Why.
        reason: String,
    },
    /// This client has read too slowly: so many events in this place are lost.
    Lost(u64),
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn event_is_a_word_or_an_object_with_one() {
        let line = |event| to_value(EventLine { event }).unwrap();
        assert_eq!(line(Event::GuestPanicked), json!({"event": "guest_panicked"}));
        let ended = Event::Ended { exit_code: 4, reason: "a disk".to_owned() };
        assert_eq!(line(ended), json!({"event": {"ended": {"exit_code": 4, "reason": "a disk"}}}));
        assert_eq!(line(Event::Lost(3)), json!({"event": {"lost": 3}}));
    }
}
