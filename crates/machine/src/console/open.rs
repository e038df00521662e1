//! Which consoles a machine has, and how they are opened.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use vmm_config::Serial;
use vmm_devices::SerialLine;
use vmm_virtio::{HostEnd, HostPort};

use super::line::Line;
use super::name::Name;
use super::{Console, OpenError};
use crate::Error;
use crate::message::Message;

/// The host's half of a virtio console.
#[derive(Debug)]
pub(crate) struct ConsolePort {
    /// Its place in the config's list of devices.
    pub(crate) index: usize,
    /// Its id.
    pub(crate) id: String,
    pub(crate) port: HostPort,
}

impl ConsolePort {
    /// The field of the config that says where it goes.
    fn field(&self) -> String {
        format!("devices[{}].target", self.index)
    }
}

/// Where COM1 goes, in the words of a console.
fn serial_end(serial: &Serial) -> HostEnd {
    match serial {
        Serial::Stdio => HostEnd::Stdio,
        Serial::Pty => HostEnd::Pty,
        Serial::None => HostEnd::None,
        Serial::File(path) => HostEnd::File(path.as_path().to_owned()),
        Serial::Socket(path) => HostEnd::Socket(path.as_path().to_owned()),
    }
}

/// The field of the config that says where COM1 goes.
const SERIAL: &str = "serial";

/// Where the consoles go, by the fields of the config that say so.
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

/// The guest's ends of a machine's lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Where COM1 goes.
    pub(crate) serial: Serial,
    pub(crate) uart: Arc<dyn SerialLine>,
    /// Those of virtio consoles that weren't there before.
    pub(crate) consoles: Vec<ConsolePort>,
}

/// Gives every console of a machine its line. Those that are `kept` are not opened anew; a
/// virtio console that goes on has its line still.
pub(crate) fn open_all(
    lines: Lines,
    mut kept: Vec<Console>,
    messages: &Sender<Message>,
) -> Result<Vec<Console>, OpenError> {
    let Lines { serial, uart, consoles } = lines;
    let name = Name { line: SERIAL.to_owned(), field: SERIAL.to_owned() };
    let mut lines: Vec<(Name, HostEnd, Box<dyn Line>)> = vec![(name, serial_end(&serial), Box::new(uart))];
    lines.extend(consoles.into_iter().map(|console| {
        let field = console.field();
        let ConsolePort { id, port, .. } = console;
        (Name { line: id, field }, port.end().clone(), Box::new(port) as Box<dyn Line>)
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
