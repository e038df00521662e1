//! A machine's consoles, and how they are opened.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use vmm_config::Serial;
use vmm_devices::SerialLine;
use vmm_virtio::{HostEnd, HostPort};

use super::line::Line;
use super::name::ConsoleName;
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
    /// The virtio consoles that aren't open yet.
    pub(crate) consoles: Vec<ConsolePort>,
}

/// Opens a console for each line. The `kept` consoles of the previous machine stay open: COM1's gets the new line, virtio
/// consoles keep theirs.
pub(crate) fn open_all(
    lines: Lines,
    mut kept: Vec<Console>,
    messages: &Sender<Message>,
) -> Result<Vec<Console>, OpenError> {
    let Lines { serial, uart, consoles } = lines;
    let name = ConsoleName { label: SERIAL.to_owned(), field: SERIAL.to_owned() };
    let mut lines: Vec<(ConsoleName, HostEnd, Box<dyn Line>)> =
        vec![(name, serial_end(&serial), Box::new(uart))];
    lines.extend(consoles.into_iter().map(|console| {
        let field = console.field();
        let ConsolePort { id, port, .. } = console;
        (ConsoleName { label: id, field }, port.end().clone(), Box::new(port) as Box<dyn Line>)
    }));
    kept.iter_mut().for_each(Console::leave_event_loop);
    for (name, end, line) in lines {
        match kept.iter_mut().find(|console| console.field() == name.field) {
            Some(console) => console.set_line(line),
            None => kept.push(Console::open(name, &end, line, messages.clone())?),
        }
    }
    Ok(kept)
}
