//! A console (virtio 1.2 §5.3): one port, Linux's `hvc0`.
//!
//! ```text
//!  receiveq  <-- a chain takes what is there ---------- port <-- typed at the host's end
//!  transmitq --> a chain goes whole, or waits (Full) --> port --> terminal, file, pty or socket
//! ```
//!
//! The machine connects the host's end of the port. The device requests input while the driver has buffers
//! for it, and leaves output in the queue while the host's end is slow.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use vmm_config::{Ranged, Serial, read_update};
use vmm_virtio::{
    Buffers, Chain, Claim, ConfigSpace, Counters, DeviceError, DevicePort, Fault, HostEnd, HostPort, Kind,
    Persistence, Session, Setting, Step, TerminalSize, VirtioDevice, port,
};

mod state;

/// VIRTIO_CONSOLE_F_SIZE (virtio 1.2 §5.3.3): the configuration has columns and rows.
const F_SIZE: u32 = 0;

/// The queues (virtio 1.2 §5.3.2).
const RECEIVEQ: usize = 0;
const TRANSMITQ: usize = 1;

/// Linux posts a page per descriptor of the receive queue, and sends at most a page per chain.
const QUEUE_SIZE: u16 = 64;
/// Bytes copied at a time.
const PIECE_LEN: usize = 4096;

/// The device.
#[derive(Debug)]
pub struct Console {
    port: DevicePort,
    /// Until the machine takes it.
    host: Option<HostPort>,
    /// A chain longer than the port's capacity, of which a part has been sent.
    partial: Option<Partial>,
}

/// A chain sent in part, to be recognised when the queue returns it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partial {
    /// Index of its first descriptor.
    head: u16,
    gpa: Option<u64>,
    len: u64,
    gone: u64,
}

/// Config of a console.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the console goes. Only one can use standard input and output, which is `serial` by default.
    #[serde(default = "pty")]
    pub target: Serial,
}

/// Fields that can be changed at run time.
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

/// Always available; its path is shown to the user. Standard input and output belong to the serial console by
/// default.
fn pty() -> Serial {
    Serial::Pty
}

impl Kind for Console {
    const NAME: &'static str = "console";
    const ID: u32 = 3;
    type Config = Config;

    fn config_claims(config: &Config, setting: &Setting<'_>) -> Vec<Claim> {
        match &config.target {
            Serial::Socket(path) => vec![Claim::socket("target", &setting.path(path))],
            _ => Vec::new(),
        }
    }

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

    /// Columns and rows. The following fields belong to features that aren't offered.
    fn config_space(&self) -> ConfigSpace {
        self.port.size_space().clone()
    }

    fn port(&mut self) -> Option<HostPort> {
        self.host.take()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        if session.watch(self.port.bell(), 0).is_err() {
            // The host is out of memory. The device then relies on the driver's notifications.
            session.counters().errors.add(1);
        }
        // Linux reads the size when it is notified of a change, not at its start.
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

    /// Sets the size of a console without a terminal, such as one on a socket. A later resize of a terminal
    /// replaces it.
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

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Own(self)
    }

    /// The rest of a partly sent chain is dropped.
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

    /// Copies input to the driver's buffers, as far as they suffice.
    fn receive(&mut self, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let mut is_wanted = false;
        session.drain(RECEIVEQ, |chain| {
            let len = self.fill(chain.writable())?;
            // An empty chain is returned, so that it doesn't block the next one.
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

    /// Writes up to one piece of input to `room`, and returns the number of bytes.
    fn fill(&self, room: Buffers<'_>) -> Result<u64, Fault> {
        let mut piece = [0; PIECE_LEN];
        let most = room.len().min(PIECE_LEN as u64) as usize;
        let len = self.port.take(&mut piece[..most]);
        room.write(&piece[..len])?;
        Ok(len as u64)
    }

    /// Sends the driver's output to the host, as far as there is room.
    fn transmit(&mut self, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let mut is_full = false;
        let drained = session.drain(TRANSMITQ, |chain| {
            let step = self.give(&chain, &counters)?;
            is_full |= step == Step::Full;
            Ok(step)
        });
        // After a fault, the rest of the queue isn't output any more.
        self.port.set_backlog(is_full && drained.is_ok());
        drained
    }

    /// Sends one chain as a whole. A chain longer than the port's capacity is sent in parts, one per turn, so
    /// that a driver can't keep the thread busy for long.
    fn give(&mut self, chain: &Chain<'_>, counters: &Counters) -> Result<Step, Fault> {
        let all = chain.readable();
        let this = |gone| Partial { head: chain.head().index(), gpa: all.gpa(), len: all.len(), gone };
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
