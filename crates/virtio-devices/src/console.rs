//! A console (virtio 1.2 §5.3): one port, Linux's `hvc0`.
//!
//! ```text
//!  receiveq  <-- a chain takes what is there ---------- port <-- typed at the host's end
//!  transmitq --> a chain goes whole, or waits (Full) --> port --> terminal, file, pty or socket
//! ```
//!
//! The host's half of the port belongs to whoever builds the machine. The device asks for input while the driver has a
//! buffer for it, and leaves output in the queue while the host's end is slow.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vmm_config::{Ranged, Serial, read_update};
use vmm_virtio::{
    Buffers, Chain, ConfigSpace, Counters, DeviceError, DevicePort, Fault, Head, HostEnd, HostPort, Kind,
    Session, Setting, Step, TerminalSize, VirtioDevice, port,
};

/// VIRTIO_CONSOLE_F_SIZE (virtio 1.2 §5.3.3): the configuration has columns and rows.
const F_SIZE: u32 = 0;

/// The queues (virtio 1.2 §5.3.2).
const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

/// Linux gives the receiving queue a page for each descriptor, and its driver a page in each chain at most.
const QUEUE_SIZE: u16 = 64;
/// Bytes copied at a time.
const PIECE_LEN: usize = 4096;

/// The device.
#[derive(Debug)]
pub struct Console {
    port: DevicePort,
    /// Until the machine takes it.
    host: Option<HostPort>,
    /// The chain that is longer than all that the port keeps, of which a part has gone.
    partial: Option<Partial>,
}

/// A chain of which a part has gone, as it is recognised when the queue gives it once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partial {
    head: Head,
    gpa: Option<u64>,
    len: u64,
    gone: u64,
}

/// What a config says of a console.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the console goes; only one can have standard input and output, and unless told otherwise that is `serial`.
    #[serde(default = "pty")]
    pub target: Serial,
}

/// What can be changed while the machine exists.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    size: Option<Size>,
}

/// A terminal's size in characters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object such as {\"columns\": 80, \"rows\": 25}")]
struct Size {
    columns: Ranged<1, 65535>,
    rows: Ranged<1, 65535>,
}

/// Always free, and told to the user: standard input and output belong to the serial console by default.
fn pty() -> Serial {
    Serial::Pty
}

impl Kind for Console {
    const NAME: &'static str = "console";
    const ID: u32 = 3;
    type Config = Config;

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, DeviceError> {
        let end = match config.target {
            Serial::Stdio => HostEnd::Stdio,
            Serial::Pty => HostEnd::Pty,
            Serial::None => HostEnd::None,
            Serial::File(path) => HostEnd::File(setting.path(path)),
            Serial::Socket(path) => HostEnd::Socket(setting.path(path)),
        };
        let (port, host) = port(end).map_err(|error| DeviceError::host("", error))?;
        Ok(Self { port, host: Some(host), partial: None })
    }
}

impl VirtioDevice for Console {
    fn features(&self) -> u64 {
        1 << F_SIZE
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    /// Columns and rows; the fields behind them belong to features that aren't offered.
    fn config_space(&self) -> ConfigSpace {
        self.port.size_space().clone()
    }

    fn port(&mut self) -> Option<HostPort> {
        self.host.take()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        if session.watch(self.port.bell(), 0).is_err() {
            // The host is out of memory. The device lives by the driver's notifications.
            session.counters().errors.add(1);
        }
        // Linux reads the size when it is told of a change, not at its start.
        let _ = self.port.take_resized();
        if self.port.size() != TerminalSize::default() {
            Self::tell_size(session);
        }
        Ok(())
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        match queue {
            RECEIVEQ => self.receive(session),
            _ => self.transmit(session),
        }
    }

    fn event(&mut self, _token: u32, session: &mut Session) -> Result<(), Fault> {
        self.port.answer();
        if self.port.take_resized() {
            Self::tell_size(session);
        }
        self.transmit(session)?;
        self.receive(session)
    }

    fn stop(&mut self, session: &mut Session) {
        let _ = session.unwatch(self.port.bell());
        self.port.set_wanted(false);
    }

    /// The size of a console that no terminal shows, such as one on a socket. A terminal's own size replaces it when that changes.
    fn update(&mut self, fields: &Value, _session: Option<&mut Session>) -> Result<(), DeviceError> {
        let Update { size } = read_update(fields)?;
        if let Some(Size { columns, rows }) = size {
            self.port.resize(TerminalSize { columns: columns.get() as u16, rows: rows.get() as u16 });
        }
        Ok(())
    }

    fn report(&mut self) -> Map<String, Value> {
        let TerminalSize { columns, rows } = self.port.size();
        Map::from_iter([("size".to_owned(), json!({"columns": columns, "rows": rows}))])
    }

    /// Of a chain that had gone in part nothing more comes.
    fn power_cycle(&mut self) {
        self.partial = None;
        self.port.set_backlog(false);
    }
}

impl Console {
    fn tell_size(session: &Session) {
        if session.has_feature(F_SIZE) {
            session.config_changed();
        }
    }

    /// Gives the driver what was typed, as far as it has buffers.
    fn receive(&mut self, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let mut is_wanted = false;
        session.drain(RECEIVEQ, |chain| {
            let len = self.fill(chain.writable())?;
            // A chain without room is given back, so that the next one isn't kept waiting.
            if len == 0 && !chain.writable().is_empty() {
                is_wanted = true;
                return Ok(Step::Full);
            }
            counters.requests.add(1);
            counters.bytes_in.add(len);
            Ok(Step::Used(len as u32))
        })?;
        self.port.set_wanted(is_wanted);
        Ok(())
    }

    /// Writes what was typed into `room`, a piece at most, and returns how many bytes that were.
    fn fill(&self, room: Buffers<'_>) -> Result<u64, Fault> {
        let mut piece = [0; PIECE_LEN];
        let most = room.len().min(PIECE_LEN as u64) as usize;
        let len = self.port.take(&mut piece[..most]);
        room.write(&piece[..len])?;
        Ok(len as u64)
    }

    /// Gives the host what the driver wrote, as far as the host takes it.
    fn transmit(&mut self, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let mut is_full = false;
        let drained = session.drain(TRANSMITQ, |chain| {
            let step = self.give(&chain, &counters)?;
            is_full |= step == Step::Full;
            Ok(step)
        });
        // Of a driver that broke the rules nothing more comes.
        self.port.set_backlog(is_full && drained.is_ok());
        drained
    }

    /// One chain, whole. Of one that is longer than all that the port keeps a part at a time goes, so that a driver can't
    /// keep the thread busy for long.
    fn give(&mut self, chain: &Chain<'_>, counters: &Counters) -> Result<Step, Fault> {
        let all = chain.readable();
        let this = |gone| Partial { head: chain.head(), gpa: all.gpa(), len: all.len(), gone };
        let gone = match self.partial.take() {
            Some(partial) if partial == this(partial.gone) => partial.gone,
            _ => 0,
        };
        let (_, rest) = all.split_at(gone).expect("less than the chain has gone");
        let granted = self.port.reserve(rest.len()) as u64;
        let (now, later) = rest.split_at(granted).expect("no more is granted than was asked for");
        self.push(now)?;
        counters.bytes_out.add(granted);
        if later.is_empty() {
            counters.requests.add(1);
            return Ok(Step::Used(0));
        }
        if gone + granted > 0 {
            self.partial = Some(this(gone + granted));
        }
        if granted > 0 {
            self.port.ring();
        }
        Ok(Step::Full)
    }

    fn push(&self, mut bytes: Buffers<'_>) -> Result<(), Fault> {
        let mut piece = [0; PIECE_LEN];
        while !bytes.is_empty() {
            let len = bytes.len().min(PIECE_LEN as u64);
            let (here, rest) = bytes.split_at(len).expect("it is no longer than what is left");
            let piece = &mut piece[..len as usize];
            here.read(piece)?;
            self.port.push(piece);
            bytes = rest;
        }
        Ok(())
    }
}
