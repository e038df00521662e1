//! The commands that a running machine takes from outside, and their replies.
//!
//! Keys typed at a terminal and signals are translated to the same commands. In JSON, a request is
//! `{"id": 1, "command": "pause"}` and its response `{"id": 1, "result": "done"}` or
//! `{"id": 1, "error": {"code": "not_running", "message": "..."}}`. A command for a device is an object:
//! `{"id": 2, "command": {"update_device": {"id": "net0", "link": "down"}}}`. Commands are carried out in the order of the
//! requests, but responses come as they complete: a pause waits for the disks, and a device answers on its own thread.
//!
//! Snapshots, and adding, removing and replacing devices or their media, will be further variants of [`Command`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Say how the machine is. Answered at any time.
    Status,
    /// Take the vCPUs out of the guest and let the devices complete what they have begun. Done at once if the machine is paused.
    Pause,
    /// Let a paused machine go on, or start one that is configured. Done at once if it runs.
    Resume,
    /// Press the power button, which asks the guest to shut down.
    PowerButton,
    /// Reset the machine, as its reset line does: what follows is what `on_reboot` says.
    Reset,
    /// End the machine and the monitor.
    Quit,
    /// Say what the devices have counted.
    Metrics,
    /// Change a virtio device.
    UpdateDevice(DeviceUpdate),
    /// Report the state of a virtio device: a balloon's size, a link.
    DeviceStatus {
        /// The device's id.
        id: String,
    },
}

/// A change of a virtio device while its machine exists. It lasts until the monitor ends, resets of the guest included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceUpdate {
    /// The device's id.
    pub id: String,
    /// The fields to change and their new values, named and written as in the config where that has them. Which ones a kind of
    /// device can change is listed in docs/devices.md: a balloon's `size`, a disk's `size` and `limits`, a network card's `link`
    /// and `limits`, a console's `size`.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// A command, with a number by which its response is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by whoever asks; the response has it.
    pub id: u64,
    /// What to do.
    pub command: Command,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

/// A reply or an error.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The command is done.
    Result(Reply),
    /// It can't be.
    Error(CommandError),
}

/// What a command that is done gives back.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Nothing else.
    Done,
    /// How the machine is.
    Status(Status),
    /// What the devices have counted, as in the file of `--metrics`.
    Metrics(Value),
    /// The state of a device.
    Device(Map<String, Value>),
}

/// How a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Status {
    /// Whether it runs.
    pub state: MachineState,
    /// What the monitor is doing while no guest runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// Of a machine that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineStatus>,
}

/// Whether a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// There is none, or it is being built or taken apart.
    NotRunning,
    /// It is built, and its guest hasn't been started.
    Configured,
    /// Its guest runs.
    Running,
    /// Its vCPUs are out of the guest; devices complete what they have begun.
    Pausing,
    /// It stands still.
    Paused,
}

/// A machine that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineStatus {
    /// Its virtual processors.
    pub vcpus: u32,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// How long it has been there, pauses included, in milliseconds.
    pub uptime_ms: u64,
    /// Its virtio devices, in the order of the config.
    pub devices: Vec<ListedDevice>,
}

/// A virtio device of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedDevice {
    /// Its id, for commands.
    pub id: String,
    /// Its type in the config.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Why a command can't be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// For programs.
    pub code: ErrorCode,
    /// The field of the command that can't be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// For people.
    pub message: String,
}

impl CommandError {
    /// Of a command as a whole.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, field: None, message: message.into() }
    }

    /// Of a field of the command.
    pub fn of_field(code: ErrorCode, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(code, message) }
    }
}

/// The kinds of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No guest runs now.
    NotRunning,
    /// The guest doesn't listen.
    NotListening,
    /// A later command has taken it back.
    Superseded,
    /// The host's storage doesn't answer in time.
    StorageHangs,
    /// No virtio device has this id.
    UnknownDevice,
    /// A field of the command is unknown, or its value can't be used. Nothing has changed.
    InvalidField,
    /// The host refuses what the command needs.
    HostRefuses,
    /// The device has failed; a reset of the machine starts it anew.
    DeviceFailed,
    /// The machine ended before it was done.
    Ended,
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, json, to_value};

    use super::*;

    #[test]
    fn request_is_a_number_and_a_word() {
        let request: Request = from_str(r#"{"id": 7, "command": "power_button"}"#).unwrap();
        assert_eq!(request, Request { id: 7, command: Command::PowerButton });
    }

    #[test]
    fn request_for_a_device_has_its_id_beside_the_fields() {
        let text = r#"{"id": 8, "command": {"update_device": {"id": "net0", "link": "down"}}}"#;
        let fields = Map::from_iter([("link".to_owned(), json!("down"))]);
        let update = DeviceUpdate { id: "net0".to_owned(), fields };
        assert_eq!(from_str::<Request>(text).unwrap().command, Command::UpdateDevice(update));
        let text = r#"{"id": 9, "command": {"device_status": {"id": "net0"}}}"#;
        let status = Command::DeviceStatus { id: "net0".to_owned() };
        assert_eq!(from_str::<Request>(text).unwrap().command, status);
    }

    #[test]
    fn request_with_more_than_that_is_refused() {
        let error = from_str::<Request>(r#"{"id": 7, "command": "pause", "force": true}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `force`"), "{error}");
    }

    #[test]
    fn response_has_a_result_or_an_error() {
        let done = Response { id: 1, answer: Answer::Result(Reply::Done) };
        assert_eq!(to_value(done).unwrap(), json!({"id": 1, "result": "done"}));
        let error = CommandError::new(ErrorCode::NotListening, "the guest doesn't listen");
        let failed = Response { id: 2, answer: Answer::Error(error) };
        assert_eq!(
            to_value(failed).unwrap(),
            json!({"id": 2, "error": {"code": "not_listening", "message": "the guest doesn't listen"}})
        );
    }

    #[test]
    fn status_has_what_is_there() {
        let devices = vec![ListedDevice { id: "dice".to_owned(), kind: "rng".to_owned() }];
        let machine = MachineStatus { vcpus: 2, memory_bytes: 1 << 20, uptime_ms: 3, devices };
        let status = Status { state: MachineState::Paused, doing: None, machine: Some(machine) };
        assert_eq!(
            to_value(Reply::Status(status)).unwrap(),
            json!({"status": {"state": "paused",
                "machine": {"vcpus": 2, "memory_bytes": 1_048_576, "uptime_ms": 3,
                "devices": [{"id": "dice", "type": "rng"}]}}})
        );
    }
}
