//! Opens a machine's consoles: first their targets, then, when the machine is built, their connections to its lines.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use vmm_config::Serial;
use vmm_devices::SerialLine;
use vmm_virtio::{HostEnd, HostPort};

use super::line::Line;
use super::name::ConsoleName;
use super::target::OpenTargets;
use super::{Console, OpenError};
use crate::Error;
use crate::message::Message;

/// The host's end of a virtio console.
#[derive(Debug)]
pub(crate) struct ConsolePort {
    /// Its index in the config's `devices`.
    pub(crate) index: usize,
    /// The device's id.
    pub(crate) id: String,
    pub(crate) port: HostPort,
}

impl ConsolePort {
    /// JSON path of its target in the config.
    fn field(&self) -> String {
        format!("devices[{}].target", self.index)
    }
}

/// COM1's target, as that of a virtio console.
fn serial_end(serial: &Serial) -> HostEnd {
    match serial {
        Serial::Stdio => HostEnd::Stdio,
        Serial::Pty => HostEnd::Pty,
        Serial::None => HostEnd::None,
        Serial::File(path) => HostEnd::File(path.as_path().to_owned()),
        Serial::Socket(path) => HostEnd::Socket(path.as_path().to_owned()),
    }
}

/// The config's field for COM1's target.
const SERIAL: &str = "serial";

/// The consoles' targets, each with its JSON path in the config.
pub(crate) fn ends<'a>(
    serial: &Serial,
    consoles: impl Iterator<Item = &'a ConsolePort>,
) -> impl Iterator<Item = (String, HostEnd)> {
    let others = consoles.map(|console| (console.field(), console.port.end().clone()));
    std::iter::once((SERIAL.to_owned(), serial_end(serial))).chain(others)
}

/// Refuses a second console on standard input and output.
pub(crate) fn check_stdio<'a>(
    serial: &Serial,
    consoles: impl Iterator<Item = &'a ConsolePort>,
) -> Result<(), Error> {
    let mut others = consoles.filter(|console| *console.port.end() == HostEnd::Stdio);
    let (first, second) = match serial {
        Serial::Stdio => (None, others.next()),
        _ => (others.next(), others.next()),
    };
    match second {
        Some(console) => Err(Error::StdioTaken { index: console.index, by: first.map(|first| first.index) }),
        None => Ok(()),
    }
}

/// The guest's ends of a machine's console lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// COM1's target.
    pub(crate) serial: Serial,
    pub(crate) uart: Arc<dyn SerialLine>,
    /// The virtio consoles that have no line yet.
    pub(crate) consoles: Vec<ConsolePort>,
}

impl Lines {
    fn ends(&self) -> impl Iterator<Item = (String, HostEnd)> {
        ends(&self.serial, self.consoles.iter())
    }
}

/// Opens a console for each line, on the open `targets`. The `kept` consoles of the previous machine stay open: COM1's gets the new
/// line, virtio consoles keep theirs.
pub(crate) fn open_all(
    lines: Lines,
    mut targets: OpenTargets,
    mut kept: Vec<Console>,
    messages: &Sender<Message>,
) -> Result<Vec<Console>, OpenError> {
    let ends: Vec<_> = lines.ends().collect();
    let Lines { uart, consoles, .. } = lines;
    let mut lines: Vec<(String, Box<dyn Line>)> = vec![(SERIAL.to_owned(), Box::new(uart))];
    lines.extend(
        consoles.into_iter().map(|ConsolePort { id, port, .. }| (id, Box::new(port) as Box<dyn Line>)),
    );
    kept.iter_mut().for_each(Console::leave_event_loop);
    for ((field, end), (label, line)) in ends.into_iter().zip(lines) {
        match kept.iter_mut().find(|console| console.field() == field) {
            Some(console) => console.set_line(line),
            None => {
                let target = targets.take(&field);
                let target =
                    target.ok_or_else(|| OpenError::new(&field, &end, io::ErrorKind::NotFound.into()))?;
                kept.push(Console::open(ConsoleName { label, field }, target, line, messages.clone())?);
            }
        }
    }
    Ok(kept)
}

/// Opens the targets of the lines that no `kept` console has, and connects all.
#[cfg(test)]
pub(crate) fn open_now(
    lines: Lines,
    kept: Vec<Console>,
    messages: &Sender<Message>,
) -> Result<Vec<Console>, OpenError> {
    let new = lines.ends().filter(|(field, _)| kept.iter().all(|console| console.field() != field));
    let targets = OpenTargets::open(new)?;
    open_all(lines, targets, kept, messages)
}
