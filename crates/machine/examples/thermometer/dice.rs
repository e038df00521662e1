//! A virtio device that no table of the workspace has.

use vmm_virtio::schemars::JsonSchema;
use vmm_virtio::serde::Deserialize;
use vmm_virtio::{DeviceError, Fault, Kind, Persistence, Session, Setting, Step, VirtioDevice};

/// Bytes of a request. A driver that wants more asks again.
const REQUEST_LEN: u64 = 64;

/// A source of random numbers (virtio 1.2 §5.4) that always throws the same face.
#[derive(Debug)]
pub(crate) struct Dice {
    face: u8,
}

/// Its fields in the config.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "vmm_virtio::serde", deny_unknown_fields)]
#[schemars(crate = "vmm_virtio::schemars")]
pub(crate) struct Config {
    /// What it throws, 1 to 6.
    face: u8,
}

impl Kind for Dice {
    const NAME: &'static str = "dice";
    const ID: u32 = 4;
    type Config = Config;

    fn open(config: Config, _setting: &Setting<'_>) -> Result<Self, DeviceError> {
        match config.face {
            face @ 1..=6 => Ok(Self { face }),
            face => Err(DeviceError::config("face", format!("{face} is on no die, choose 1 to 6"))),
        }
    }
}

impl VirtioDevice for Dice {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
    }

    /// The face is the config's.
    fn persistence(&mut self) -> Persistence<'_> {
        Persistence::Stateless
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        session.drain(queue, |chain| {
            let room = chain.writable();
            let len = room.len().min(REQUEST_LEN);
            let (here, _) = room.split_at(len).expect("it is no longer than the room");
            here.write(&vec![self.face; len as usize])?;
            Ok(Step::Used(len as u32))
        })
    }
}
