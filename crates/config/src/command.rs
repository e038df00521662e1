//! Commands to a running machine, and their responses.
//!
//! Keys typed at a terminal and signals are translated to the same commands. In JSON, a request is `{"id": 1,
//! "command": "pause"}` and its response `{"id": 1, "result": "done"}` or `{"id": 1, "error": {"code":
//! "not_running", "message": "..."}}`. A command for a device is an object: `{"id": 2, "command":
//! {"update_device": {"id": "net0", "link": "down"}}}`. Commands are executed in the order of the requests,
//! but responses are sent as commands complete: a pause waits for the disks, and a device responds on its own
//! thread.
//!
//! A client that has asked for `events` also receives `{"event": ...}` lines, see [`Event`](crate::Event).
//!
//! File descriptors come with a request for a [`snapshot`](Command::Snapshot), in one message of the socket (SCM_RIGHTS in unix(7)) that has
//! bytes of this request's line and of no other.
//!
//! Adding, removing and replacing devices or their media will be further variants of [`Command`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Reports the machine's state. Always available.
    Status,
    /// Stops the vCPUs and lets the devices complete their requests. Completes immediately if the machine is
    /// paused.
    Pause,
    /// Resumes a paused machine, or starts a configured one. Completes immediately if the machine is running.
    Resume,
    /// Presses the power button, which asks the guest to shut down.
    PowerButton,
    /// Resets the machine; `on_reboot` determines what follows. After a restart a paused machine runs; one that was only configured
    /// is configured again.
    Reset,
    /// Ends the machine and the monitor.
    Quit,
    /// Reports the devices' counters.
    Metrics,
    /// Changes a virtio device.
    UpdateDevice(DeviceUpdate),
    /// Reports the state of a virtio device, such as a balloon's size or a link.
    DeviceStatus {
        /// The device's id.
        id: String,
    },
    /// Sends events over this connection from now on, besides responses. Only for connections to a control socket.
    Events,
    /// Writes a snapshot of the machine, which is paused meanwhile. The request comes with file descriptors, in this order: the file
    /// for `state`, the file for `memory`, and one for each of `disks`. All are empty regular files that are open for reading and writing.
    /// Completes when the host's storage has them. `manifest.json` is the client's to write: `state` has the manifest.
    Snapshot(SnapshotCommand),
}

impl Command {
    /// The number of file descriptors that come with the command.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self {
            Self::Snapshot(snapshot) => 2 + snapshot.disks.len(),
            _ => 0,
        }
    }
}

/// What a snapshot contains besides state and memory, and what follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCommand {
    /// Whether the machine and the monitor end when the snapshot is complete. Otherwise, or if it fails, the machine does what it did
    /// before: it runs or is paused.
    #[serde(default)]
    pub stop: bool,
    /// Ids of writable disks whose contents go into the snapshot, at most 32, in the order of their file descriptors. The file for a disk
    /// will be `disks/ID` in the snapshot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<String>,
}

/// A change to a virtio device at run time. It lasts until the monitor exits, across guest resets, but not beyond a failure of the
/// device: a restart then opens it anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceUpdate {
    /// The device's id.
    pub id: String,
    /// The fields to change with their new values, in the notation of the config if they exist there.
    /// docs/devices.md lists those of each kind: a balloon's `size`, a disk's `size` and `limits`, a network
    /// card's `link` and `limits`, a console's `size`.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// A command with an id that identifies its response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Chosen by the client; repeated in the response.
    pub id: u64,
    /// The command.
    pub command: Command,
}

/// The response to a request.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Response {
    /// The request's id.
    pub id: u64,
    /// The result or error.
    #[serde(flatten)]
    pub answer: Answer,
}

/// A result or an error.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The command has completed.
    Result(Reply),
    /// The command has failed.
    Error(CommandError),
}

/// Result of a completed command.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// No data.
    Done,
    /// The machine's state.
    Status(Status),
    /// The devices' counters, as in the file of `--metrics`.
    Metrics(Value),
    /// The state of a device.
    Device(Map<String, Value>),
    /// A snapshot with the contents of disks.
    Snapshot(SnapshotReply),
}

/// What the client of a snapshot with the contents of disks still has to do, because the monitor doesn't own its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotReply {
    /// The modification time of each of the disks' files, in the order of the request, in nanoseconds since 1970. The client sets it, because
    /// a restore compares it. `None` for a block device.
    pub modified_ns: Vec<Option<i64>>,
}

/// The machine's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Status {
    /// Whether the machine is running.
    pub state: MachineState,
    /// What the monitor is doing while no guest runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// `None` if there is no machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineStatus>,
}

/// Whether the machine is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// There is no machine, or it is being built or torn down.
    NotRunning,
    /// The machine is built, but its guest hasn't been started.
    Configured,
    /// The guest runs.
    Running,
    /// The vCPUs are stopped; devices are completing their requests.
    Pausing,
    /// The machine is paused.
    Paused,
    /// The machine is paused while a snapshot is written.
    Saving,
}

/// An existing machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineStatus {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Size of its memory in bytes.
    pub memory_bytes: u64,
    /// Time since it was built, including pauses, in milliseconds.
    pub uptime_ms: u64,
    /// Its virtio devices, in the order of the config.
    pub devices: Vec<ListedDevice>,
}

/// A virtio device of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListedDevice {
    /// Its id, for commands.
    pub id: String,
    /// Its `type` in the config.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is a disk with a file that the guest writes, whose contents can go into a snapshot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writable_disk: bool,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// Machine-readable reason.
    pub code: ErrorCode,
    /// The offending field of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Human-readable message.
    pub message: String,
}

impl CommandError {
    /// An error of the command as a whole.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, field: None, message: message.into() }
    }

    /// An error of one field of the command.
    pub fn of_field(code: ErrorCode, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..Self::new(code, message) }
    }
}

/// Reasons for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No guest is running.
    NotRunning,
    /// The guest doesn't react.
    NotListening,
    /// A later command has cancelled it.
    Superseded,
    /// The host's storage doesn't respond in time.
    StorageHangs,
    /// No virtio device has this id.
    UnknownDevice,
    /// A field of the command is unknown or has an invalid value. Nothing has changed.
    InvalidField,
    /// The host refuses an operation that the command needs.
    HostRefuses,
    /// The device has failed; a reset of the machine restarts it.
    DeviceFailed,
    /// The machine ended before the command completed.
    Ended,
    /// The request isn't one: its JSON is malformed, its command unknown, its line too long, or it comes with other file descriptors
    /// than its command has.
    InvalidRequest,
    /// A snapshot is being written, or too many requests with file descriptors are in progress.
    Busy,
    /// The snapshot couldn't be written. The files are of no use.
    SnapshotFailed,
    /// A device of the machine, or something else that it has, can't be saved.
    NotSaveable,
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
    fn request_for_a_snapshot_has_two_descriptors_and_goes_on_by_default() {
        let command = |text: &str| from_str::<Request>(text).map(|request| request.command);
        let snapshot = command(r#"{"id": 1, "command": {"snapshot": {}}}"#).unwrap();
        assert_eq!(snapshot, Command::Snapshot(SnapshotCommand { stop: false, disks: Vec::new() }));
        assert_eq!((snapshot.descriptors(), Command::Pause.descriptors()), (2, 0));
        let stop = Command::Snapshot(SnapshotCommand { stop: true, disks: Vec::new() });
        assert_eq!(command(r#"{"id": 1, "command": {"snapshot": {"stop": true}}}"#).unwrap(), stop);
        assert_eq!(to_value(stop).unwrap(), json!({"snapshot": {"stop": true}}));
        let error = command(r#"{"id": 1, "command": {"snapshot": {"dir": "x"}}}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `dir`, expected `stop`"), "{error}");
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
        let devices =
            vec![ListedDevice { id: "dice".to_owned(), kind: "rng".to_owned(), writable_disk: false }];
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
