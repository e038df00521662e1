//! What can be done to a machine from outside, and what comes back.
//!
//! Keys of a terminal and signals mean the same commands. In JSON a request is `{"id": 1, "command": "pause"}`, its response
//! `{"id": 1, "result": "done"}` or `{"id": 1, "error": {"code": "not_running", "message": "..."}}`. Responses come in the order
//! in which the commands are done, which needn't be that of the requests: a pause waits for the disks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Say how the machine is. Answered at any time.
    Status,
    /// Take the vCPUs out of the guest and let the devices complete what they have begun. Done at once if the machine is paused.
    Pause,
    /// Let a paused machine go on. Done at once if it runs.
    Resume,
    /// Press the power button, which asks the guest to shut down.
    PowerButton,
    /// Reset the machine, as its reset line does: what follows is what `on_reboot` says.
    Reset,
    /// End the machine and the monitor.
    Quit,
    /// Say what the devices have counted.
    Metrics,
}

/// A command, with a number by which its response is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    pub outcome: Outcome,
}

/// A reply or an error.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
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
    Metrics(serde_json::Value),
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
    /// Its guest runs.
    Running,
    /// Its vCPUs are out of the guest; devices complete what they have begun.
    Pausing,
    /// It stands still.
    Paused,
}

/// A machine that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineStatus {
    /// Its virtual processors.
    pub vcpus: u32,
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// How long it has been there, pauses included, in milliseconds.
    pub uptime_ms: u64,
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
    fn request_with_more_than_that_is_refused() {
        let error = from_str::<Request>(r#"{"id": 7, "command": "pause", "force": true}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `force`"), "{error}");
    }

    #[test]
    fn response_has_a_result_or_an_error() {
        let done = Response { id: 1, outcome: Outcome::Result(Reply::Done) };
        assert_eq!(to_value(done).unwrap(), json!({"id": 1, "result": "done"}));
        let error = CommandError::new(ErrorCode::NotListening, "the guest doesn't listen");
        let failed = Response { id: 2, outcome: Outcome::Error(error) };
        assert_eq!(
            to_value(failed).unwrap(),
            json!({"id": 2, "error": {"code": "not_listening", "message": "the guest doesn't listen"}})
        );
    }

    #[test]
    fn status_has_what_is_there() {
        let machine = MachineStatus { vcpus: 2, memory_bytes: 1 << 20, uptime_ms: 3 };
        let status = Status { state: MachineState::Paused, doing: None, machine: Some(machine) };
        assert_eq!(
            to_value(Reply::Status(status)).unwrap(),
            json!({"status": {"state": "paused",
                "machine": {"vcpus": 2, "memory_bytes": 1_048_576, "uptime_ms": 3}}})
        );
    }
}
