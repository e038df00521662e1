//! `vmm-bin ctl`: commands to another monitor, by its control socket.

use std::ffi::OsString;

use clap::CommandFactory;
use serde_json::{Map, Value};
use vmm_config::{Command, DeviceUpdate, Event, EventLine};
use vmm_control::Client;

use crate::args::Args;
use crate::ctl_args::{Arguments, Device, Request};
use crate::ctl_error::CtlError;
use crate::ctl_snapshot;
use crate::json_fields::set_field;

/// Executes a command, and calls `print` with what it prints, until that says that nobody reads it any more.
///
/// # Errors
/// That of `print`, or why the command wasn't carried out.
pub(crate) fn run<E: From<CtlError>>(
    arguments: &Arguments,
    mut print: impl FnMut(&str) -> Result<bool, E>,
) -> Result<(), E> {
    let Arguments { path, request } = arguments;
    let mut client =
        Client::connect(path).map_err(|source| CtlError::Unreachable { path: path.clone(), source })?;
    let command = match request {
        Request::Status => Command::Status,
        Request::Pause => Command::Pause,
        Request::Resume => Command::Resume,
        Request::PowerButton => Command::PowerButton,
        Request::Reset => Command::Reset,
        Request::Quit => Command::Quit,
        Request::Metrics => Command::Metrics,
        Request::Events => return follow(client, print),
        Request::Snapshot { directory, stop, disks } => {
            return print(&ctl_snapshot::take(&mut client, directory, (*stop, *disks))?).map(drop);
        }
        Request::Balloon(device) => device.command("balloon", &mut client)?,
        Request::Block(device) => device.command("block", &mut client)?,
        Request::Net(device) => device.command("net", &mut client)?,
        Request::Console(device) => device.command("console", &mut client)?,
        Request::Unknown(words) => return Err(unknown(words).into()),
    };
    match client.execute(command).map_err(CtlError::from)? {
        // An object with the name of what it contains.
        Value::Object(result) => {
            for value in result.values() {
                print(&format!("{value:#}\n"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// There is no such command.
fn unknown(words: &[OsString]) -> CtlError {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let known = Args::command();
    let ctl = known.find_subcommand("ctl").into_iter().flat_map(|ctl| ctl.get_subcommands());
    let names: Vec<_> = ctl.map(|command| command.get_name()).filter(|name| *name != "help").collect();
    CtlError::Usage(format!("ctl has no command {word:?}, only {}", names.join(", ")))
}

/// Prints events until the monitor ends.
fn follow<E: From<CtlError>>(
    mut client: Client,
    mut print: impl FnMut(&str) -> Result<bool, E>,
) -> Result<(), E> {
    client.execute(Command::Events).map_err(CtlError::from)?;
    while let Some(line) = client.event().map_err(CtlError::from)? {
        let EventLine { event } = &line;
        let text = serde_json::to_string(event).unwrap_or_default();
        if !print(&format!("{text}\n"))? || matches!(event, Event::Ended { .. }) {
            break;
        }
    }
    Ok(())
}

impl Device {
    /// The command for a device of this kind.
    fn command(&self, kind: &str, client: &mut Client) -> Result<Command, CtlError> {
        let (fields, ids): (Vec<_>, Vec<_>) = self.words.iter().partition(|word| word.contains('='));
        let id = match ids[..] {
            [] => only(kind, client)?,
            [id] => id.clone(),
            [_, further, ..] => {
                return Err(CtlError::Usage(format!(
                    "{further:?} is a second id; write a field as FIELD=VALUE"
                )));
            }
        };
        if fields.is_empty() {
            return Ok(Command::DeviceStatus { id });
        }
        let mut changes = Map::new();
        for (field, value) in fields.iter().filter_map(|field| field.split_once('=')) {
            set_field(&mut changes, field, value).map_err(CtlError::Usage)?;
        }
        Ok(Command::UpdateDevice(DeviceUpdate { id, fields: changes }))
    }
}

/// The id of the only device of this kind.
fn only(kind: &str, client: &mut Client) -> Result<String, CtlError> {
    let status = client.execute(Command::Status)?;
    let devices = status["status"]["machine"]["devices"].as_array().cloned().unwrap_or_default();
    let ids: Vec<_> = devices
        .iter()
        .filter(|device| device["type"] == kind)
        .filter_map(|device| device["id"].as_str())
        .collect();
    match ids[..] {
        [id] => Ok(id.to_owned()),
        [] => Err(CtlError::Usage(format!("the machine has no device of type {kind:?}"))),
        _ => Err(CtlError::Usage(format!(
            "the machine has several devices of type {kind:?}, name one: {}",
            ids.join(", ")
        ))),
    }
}
