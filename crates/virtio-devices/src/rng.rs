//! Entropy device (virtio 1.2 §5.4).

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use schemars::JsonSchema;
use serde::Deserialize;
use vmm_virtio::{DeviceError, Fault, Kind, Persistence, Session, Setting, Step, VirtioDevice};

/// Maximum number of bytes per request. Linux asks for 64 at a time; a driver that wants more asks again.
const REQUEST_LEN: u64 = 4096;
/// Bytes copied at a time. So many come whole (getrandom(2)).
const PIECE_LEN: usize = 256;

/// Random bytes from getrandom(2), which needs no file and doesn't block once the host has booted.
#[derive(Debug)]
pub struct Rng;

/// There are no options.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

impl Kind for Rng {
    const NAME: &'static str = "rng";
    const ID: u32 = 4;
    type Config = Config;

    fn open(_config: Config, _setting: &Setting<'_>) -> Result<Self, DeviceError> {
        fill(&mut [0; 1]).map_err(|error| DeviceError::host("", error))?;
        Ok(Self)
    }
}

/// Fills up to [`PIECE_LEN`] bytes by the system call. Not by the C library, nor by a crate that looks for it there: a static program
/// has no table of symbols, and the crate would read /dev/urandom.
fn fill(bytes: &mut [u8]) -> io::Result<()> {
    getrandom(bytes, GetRandomFlags::empty())?;
    Ok(())
}

impl VirtioDevice for Rng {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![64]
    }

    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Stateless
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        session.drain(queue, |chain| {
            let mut room = chain.writable();
            let mut piece = [0; PIECE_LEN];
            let mut given = 0;
            counters.requests.add(1);
            while given < REQUEST_LEN && !room.is_empty() {
                let len = room.len().min(PIECE_LEN as u64);
                let bytes = &mut piece[..len as usize];
                if fill(bytes).is_err() {
                    counters.errors.add(1);
                    break;
                }
                let (here, rest) = room.split_at(len).expect("it is no longer than the room");
                here.write(bytes)?;
                (room, given) = (rest, given + len);
            }
            counters.bytes_in.add(given);
            Ok(Step::Used(given as u32))
        })
    }
}
