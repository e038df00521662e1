//! The function under test: on a bus, with a mover that refuses some moves, and a device that records how it is started.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vmm_bus::{BusDevice, EventFd, Outcome};
use vmm_memory::GuestRam;
use vmm_pci::{BarMove, BarMover, Cam, Ecam, Function, Message, RootBus};

use super::function_model::{QUEUE_SIZES, RAM_LEN, WINDOW, is_refused};
use super::steps::{Step, Way};
use crate::testing::DEADLINE;
use crate::{
    ConfigSpace, ControlParams, Fault, Interrupt, MessageSender, PciTransport, Session, VirtioDevice,
};

pub(super) const SLOT: u64 = 7;

/// Size and ring addresses of a queue.
pub(super) type Rings = (u16, [u64; 3]);

/// What can be observed of a function without reading its registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) decoded: Option<u64>,
    pub(super) moves: usize,
    pub(super) refused: usize,
    pub(super) sent: Vec<Message>,
    /// The queues of each start of the device.
    pub(super) starts: Vec<Vec<Option<Rings>>>,
}

type Shared<T> = Arc<Mutex<T>>;

pub(super) struct Bench {
    transport: Arc<PciTransport>,
    _bus: Arc<RootBus>,
    cam: Cam,
    ecam: Ecam,
    seen: Shared<Seen>,
    starts: Receiver<Vec<Option<Rings>>>,
}

struct Mover(Shared<Seen>);

impl BarMover for Mover {
    fn move_bar(&self, slot: usize, wanted: BarMove) -> bool {
        let mut seen = self.0.lock().unwrap();
        assert_eq!((slot as u64, wanted.bar, wanted.from), (SLOT, 0, seen.decoded));
        if wanted.to.is_some_and(is_refused) {
            seen.refused += 1;
            return false;
        }
        seen.decoded = wanted.to;
        seen.moves += 1;
        true
    }
}

struct Log(Shared<Seen>);

impl MessageSender for Log {
    fn send(&self, message: Message) {
        self.0.lock().unwrap().sent.push(message);
    }
}

struct Recorder {
    config: ConfigSpace,
    starts: Sender<Vec<Option<Rings>>>,
}

impl VirtioDevice for Recorder {
    fn queue_sizes(&self) -> Vec<u16> {
        QUEUE_SIZES.to_vec()
    }

    fn config_space(&self) -> ConfigSpace {
        self.config.clone()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        let rings = |index| {
            let state = session.queue(index)?.state();
            Some((state.size, [state.desc_table, state.avail_ring, state.used_ring]))
        };
        let _ = self.starts.send((0..QUEUE_SIZES.len()).map(rings).collect());
        Ok(())
    }

    fn process(&mut self, _queue: usize, _session: &mut Session) -> Result<(), Fault> {
        Ok(())
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        let seen = Shared::<Seen>::default();
        let (sender, starts) = channel();
        let ram = GuestRam::new(&[0..RAM_LEN]).unwrap();
        let news = Arc::new(EventFd::new().unwrap());
        let params = ControlParams { id: 42, name: "test".to_owned(), ram, news };
        let config = ConfigSpace::new([0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7], 2..6);
        let device = Box::new(Recorder { config, starts: sender });
        let log = Box::new(Log(Arc::clone(&seen)));
        let transport = Arc::new(PciTransport::new(params, device, log, WINDOW.start, WINDOW).unwrap());
        let mut bus = RootBus::new(Box::new(Mover(Arc::clone(&seen))));
        bus.insert(SLOT as usize, Arc::clone(&transport) as Arc<dyn Function>);
        let bus = Arc::new(bus);
        let (cam, ecam) = (bus.cam(), bus.ecam());
        Self { transport, _bus: bus, cam, ecam, seen, starts }
    }

    /// Whether the function may decode its BAR there after a restore.
    pub(super) fn can_decode(&self, bar: usize, address: u64) -> bool {
        self.transport.can_decode(bar, address)
    }

    pub(super) fn seen(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap();
        seen.starts.extend(self.starts.try_iter());
        seen.clone()
    }

    /// The bytes that were read, or none of a write.
    pub(super) fn take(&self, step: &Step) -> Vec<u8> {
        match step {
            Step::ReadConfig(way, offset, width) => {
                let mut data = vec![0x77; *width];
                self.config_access(*way, *offset, |device, offset| device.read(offset, &mut data));
                data
            }
            Step::WriteConfig(way, offset, data) => {
                let mut outcome = Outcome::Done;
                self.config_access(*way, *offset, |device, offset| outcome = device.write(offset, data));
                self.settle(outcome, || self.ecam.is_holding() && self.cam.is_holding())
            }
            Step::ReadBar(offset, width) => {
                let mut data = vec![0x77; *width];
                if self.seen.lock().unwrap().decoded.is_some() {
                    self.transport.read(*offset, &mut data);
                }
                data
            }
            Step::WriteBar(offset, data) => {
                let is_decoded = self.seen.lock().unwrap().decoded.is_some();
                let outcome = if is_decoded {
                    BusDevice::write(&*self.transport, *offset, data)
                } else {
                    Outcome::Done
                };
                self.settle(outcome, || BusDevice::is_holding(&*self.transport))
            }
            Step::Fire(queue) => {
                match queue {
                    Some(queue) => self.transport.interrupt.queue(*queue),
                    None => self.transport.interrupt.config(),
                }
                Vec::new()
            }
        }
    }

    fn config_access(&self, way: Way, offset: u64, mut act: impl FnMut(&dyn BusDevice, u64)) {
        match way {
            Way::Ecam => act(&self.ecam, (SLOT << 15) + offset),
            Way::Cam => {
                let address = 1 << 31 | (SLOT as u32) << 11 | offset as u32 & 0xfc;
                assert_eq!(self.cam.write(0, &address.to_le_bytes()), Outcome::Done);
                act(&self.cam, 4 + (offset & 3));
            }
        }
    }

    /// Waits for the end of a reset, and for the device's thread.
    fn settle(&self, outcome: Outcome, is_holding: impl Fn() -> bool) -> Vec<u8> {
        let until = Instant::now() + DEADLINE;
        while outcome == Outcome::Hold && is_holding() {
            assert!(Instant::now() < until, "the reset ends");
            std::thread::yield_now();
        }
        let answer = self.transport.control().with_device(|_, _| ());
        answer.recv_timeout(DEADLINE).expect("the device's thread");
        Vec::new()
    }
}
