//! A disk (virtio 1.2 §5.2).

mod config;
mod request;

use std::fs::File;

use virtio_bindings::bindings::virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX};
use vmm_virtio::{ConfigSpace, Fault, IoSlices, Kind, OpenError, Session, Setting, Step, VirtioDevice};

use self::config::Config;
use self::request::{Parsed, Request, SECTOR_LEN, SERIAL_LEN, Status, Terms, parse};

const QUEUE_SIZE: u16 = 256;

/// The device.
#[derive(Debug)]
pub struct Block {
    file: File,
    sectors: u64,
    read_only: bool,
    serial: [u8; SERIAL_LEN],
    slices: IoSlices,
}

impl Kind for Block {
    const NAME: &'static str = "block";
    const ID: u32 = 2;
    type Config = Config;

    fn open(config: Config, setting: &Setting<'_>) -> Result<Self, OpenError> {
        let path = setting.path(&config.path);
        let file = File::options().read(true).write(!config.read_only).open(&path);
        let file = file
            .map_err(|error| OpenError::config("path", format!("{}: {error}", path.display())))?;
        let len = file.metadata().map_err(|error| OpenError::host("path", error))?.len();
        let mut serial = [0; SERIAL_LEN];
        serial.iter_mut().zip(setting.id.bytes()).for_each(|(to, from)| *to = from);
        let slices = IoSlices::with_capacity(QUEUE_SIZE.into());
        Ok(Self { file, sectors: len / SECTOR_LEN, read_only: config.read_only, serial, slices })
    }
}

impl VirtioDevice for Block {
    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_SEG_MAX | u64::from(self.read_only) << VIRTIO_BLK_F_RO
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE]
    }

    fn config_space(&self) -> ConfigSpace {
        let mut bytes = vec![0; 60];
        bytes[..8].copy_from_slice(&self.sectors.to_le_bytes());
        bytes[12..16].copy_from_slice(&254_u32.to_le_bytes());
        ConfigSpace::read_only(bytes)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let counters = session.counters().clone();
        let terms = Terms { sectors: self.sectors, read_only: self.read_only, features: session.features() };
        session.drain(queue, |chain| {
            counters.requests.add(1);
            let Parsed { request, status } = parse(&chain, &terms)?;
            let done = match request {
                Err(refusal) => Err(refusal),
                Ok(Request::Read { offset, into }) => self
                    .slices
                    .fill(&into)
                    .and_then(|()| self.slices.read_at(&self.file, offset))
                    .map(|()| into.len())
                    .map_err(|_| Status::Failed),
                Ok(Request::Write { offset, from }) => self
                    .slices
                    .fill(&from)
                    .and_then(|()| self.slices.write_at(&self.file, offset, false))
                    .map(|()| 0)
                    .map_err(|_| Status::Failed),
                Ok(Request::Flush) => self.file.sync_data().map(|()| 0).map_err(|_| Status::Failed),
                Ok(Request::Identify { into }) => {
                    into.write(&self.serial)?;
                    Ok(SERIAL_LEN as u64)
                }
                Ok(_) => Err(Status::Unsupported),
            };
            status.write(&[done.err().unwrap_or(Status::Done).byte()])?;
            Ok(Step::Used(done.unwrap_or(0) as u32 + 1))
        })
    }
}
