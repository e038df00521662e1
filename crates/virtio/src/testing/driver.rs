//! A driver together with its device, transport, memory and interrupt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Map, Value};
use vmm_bus::{EventFd, Outcome};
use vmm_memory::GuestRam;
use vmm_sandbox::ViolationAction;

use super::arena::Arena;
use super::port::Port;
use super::ring::Ring;
use super::wait::Waiter;
use super::{DEADLINE, PciPort, Register, features, status};
use crate::{Control, ControlParams, DeviceError, VirtioDevice};

/// How [`Port`] attaches a device.
pub(super) type Attach = fn(ControlParams, Box<dyn VirtioDevice>) -> Port;

/// This crate's own tests have devices that do anything.
static HAS_FILTERS: AtomicBool = AtomicBool::new(!cfg!(test));

/// Lets the devices of drivers that this process creates from now on make any system call: for tests in which they do what they don't in a
/// monitor. Call it before the first driver is created.
pub fn without_filters() {
    HAS_FILTERS.store(false, Ordering::Relaxed);
}

/// A driver and its device.
///
/// The guest has 64 MiB of memory from 0, in two regions that touch at 32 MiB, and 1 MiB from 4 GiB.
/// [`init`](Self::init) does what the probe of a Linux driver does; [`queue`](Self::queue) accesses a queue.
/// Except for the panics documented at each method, methods can be called in any state, as a malicious driver
/// would.
pub struct Driver {
    pub(super) port: Port,
    pub(super) attach: Attach,
    pub(super) arena: Arena,
    pub(super) rings: Vec<Ring>,
    pub(super) features: u64,
    pub(super) interrupt: Waiter,
    pub(super) news: Waiter,
    pub(super) config_changed: bool,
    pub(super) interrupts: u64,
}

impl Driver {
    /// Starts the thread of `device`, with the MMIO transport; `id` is its virtio device id. Nothing is initialised.
    ///
    /// # Panics
    /// The host is out of file descriptors, threads or memory.
    pub fn new(device: Box<dyn VirtioDevice>, id: u32) -> Self {
        Self::attached(device, id, Port::mmio)
    }

    /// [`new`](Self::new) with the PCI transport. The function is probed, and has a vector for each queue and one for the configuration.
    ///
    /// # Panics
    /// As for [`new`](Self::new), or the function can't be probed.
    pub fn new_pci(device: Box<dyn VirtioDevice>, id: u32) -> Self {
        Self::attached(device, id, Port::pci)
    }

    fn attached(device: Box<dyn VirtioDevice>, id: u32, attach: Attach) -> Self {
        if HAS_FILTERS.load(Ordering::Relaxed) {
            // As in the monitor: a call that the device hasn't declared ends the test's process, with a message.
            vmm_sandbox::report_violations(|| ()).expect("the host accepts a handler");
            vmm_sandbox::enable(ViolationAction::Trap);
        }
        let arena = Arena::new();
        let news = Arc::new(EventFd::new().expect("a descriptor"));
        let params =
            ControlParams { id, name: "test".to_owned(), ram: arena.ram.clone(), news: Arc::clone(&news) };
        let port = attach(params, device);
        let (interrupt, news) = (Waiter::new(port.interrupt()), Waiter::new(&news));
        let mut driver = Self {
            port,
            attach,
            arena,
            rings: Vec::new(),
            features: 0,
            interrupt,
            news,
            config_changed: false,
            interrupts: 0,
        };
        driver.rings = driver.queue_maxima().map(|_| Ring::default()).collect();
        driver
    }

    /// Ends the machine and moves the device, in its current state, to another one with new memory and the same transport,
    /// uninitialised.
    ///
    /// # Panics
    /// The device's thread has panicked, or as for [`new`](Self::new).
    pub fn power_cycle(self) -> Self {
        let (id, attach) = (self.control().id(), self.attach);
        Self::attached(self.into_device(), id, attach)
    }

    /// Ends the machine and returns the device, as it is passed to another machine or closed.
    ///
    /// # Panics
    /// The device's thread has panicked.
    pub fn into_device(self) -> Box<dyn VirtioDevice> {
        self.port.power_off()
    }

    /// The guest's memory.
    pub fn ram(&self) -> &GuestRam {
        &self.arena.ram
    }

    /// The device's registers, which other threads may access concurrently.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// The PCI function.
    ///
    /// # Panics
    /// The transport is MMIO.
    pub fn function(&self) -> &PciPort {
        match &self.port {
            Port::Pci(port) => port,
            Port::Mmio(_) => panic!("the transport is MMIO"),
        }
    }

    /// The device's control side.
    pub fn control(&self) -> &Control {
        self.port.control()
    }

    /// Reads a register.
    ///
    /// # Panics
    /// The transport has no such register.
    pub fn read(&self, register: Register) -> u32 {
        self.port.read(register)
    }

    /// Reads 1, 2, 4 or 8 bytes at any offset in the registers' page or BAR.
    pub fn read_bytes(&self, offset: u64, bytes: &mut [u8]) {
        self.port.area().read(offset, bytes);
    }

    /// Writes a register, as [`write_bytes`](Self::write_bytes) does.
    ///
    /// # Panics
    /// As there, or the transport has no such register.
    pub fn write(&self, register: Register, value: u32) {
        if self.port.write(register, value) == Outcome::Hold {
            self.wait_hold();
        }
    }

    /// Writes 1, 2, 4 or 8 bytes at any offset in the registers' page or BAR. If the access is held, as a reset is,
    /// returns when the device releases it.
    ///
    /// # Panics
    /// The access is still held at the [`DEADLINE`].
    pub fn write_bytes(&self, offset: u64, bytes: &[u8]) {
        if self.port.area().write(offset, bytes) == Outcome::Hold {
            self.wait_hold();
        }
    }

    /// Whether the device holds an access.
    pub fn is_holding(&self) -> bool {
        self.port.area().is_holding()
    }

    /// Waits until the device releases a held access.
    ///
    /// # Panics
    /// The access is still held at the [`DEADLINE`].
    pub fn wait_hold(&self) {
        let until = Instant::now() + DEADLINE;
        while self.is_holding() {
            assert!(self.news.wait(until), "the device doesn't finish its reset");
        }
    }

    /// The device status register.
    pub fn status(&self) -> u8 {
        self.read(Register::Status) as u8
    }

    /// Sets bits of the device status in addition to the current ones.
    pub fn add_status(&self, bits: u8) {
        self.write(Register::Status, (self.status() | bits).into());
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub fn needs_reset(&self) -> bool {
        self.status() & status::NEEDS_RESET != 0
    }

    /// The features that the device offers.
    pub fn offered(&self) -> u64 {
        let half = |select| {
            self.write(Register::DeviceFeaturesSel, select);
            u64::from(self.read(Register::DeviceFeatures))
        };
        half(0) | half(1) << 32
    }

    /// Reads `len` bytes of the configuration space from `offset`, and retries while the device changes it,
    /// as drivers do (virtio 1.2 §2.5.1).
    ///
    /// # Panics
    /// The range exceeds the transport's room for it.
    pub fn config(&self, offset: u64, len: usize) -> Vec<u8> {
        let (start, room) = self.port.config();
        assert!(offset + len as u64 <= room, "beyond the configuration space");
        let mut bytes = vec![0xff; len];
        loop {
            let generation = self.read(Register::ConfigGeneration);
            for (at, byte) in bytes.iter_mut().enumerate() {
                self.read_bytes(start + offset + at as u64, std::slice::from_mut(byte));
            }
            if self.read(Register::ConfigGeneration) == generation {
                return bytes;
            }
        }
    }

    /// Reads 1, 2, 4 or 8 bytes of the configuration space in one access.
    pub fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        self.read_bytes(self.port.config().0 + offset, bytes);
    }

    /// Length of the transport's room for the configuration space.
    pub fn config_room(&self) -> u64 {
        self.port.config().1
    }

    /// Writes 1, 2, 4 or 8 bytes into the configuration space in one access.
    pub fn write_config(&self, offset: u64, bytes: &[u8]) {
        self.write_bytes(self.port.config().0 + offset, bytes);
    }

    /// Maximum size of each queue in descriptors. With PCI it is known until a driver writes the queue's size.
    pub fn queue_maxima(&self) -> impl Iterator<Item = u16> {
        (0..)
            .map(|index| {
                self.write(Register::QueueSel, index);
                self.read(Register::QueueSizeMax) as u16
            })
            .take_while(|max| *max != 0)
    }

    /// Resets the device and negotiates `features` and VIRTIO_F_VERSION_1. Returns whether the device accepts
    /// them.
    ///
    /// # Panics
    /// As [`reset`](Self::reset).
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.reset();
        self.add_status(status::ACKNOWLEDGE);
        self.add_status(status::DRIVER);
        self.features = features | features::VERSION_1;
        self.write_features(self.features);
        self.add_status(status::FEATURES_OK);
        self.status() & status::FEATURES_OK != 0
    }

    /// Writes the driver's features, regardless of the state.
    pub fn write_features(&self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(Register::DriverFeaturesSel, select);
            self.write(Register::DriverFeatures, half);
        }
    }

    /// Performs a driver's whole probe: reset, `features` and VIRTIO_F_VERSION_1, each queue at its maximum
    /// size, DRIVER_OK.
    ///
    /// # Panics
    /// The device rejects the features; or as for [`reset`](Self::reset).
    pub fn init(&mut self, features: u64) {
        assert!(self.negotiate(features), "the device rejected features {features:#x}");
        let maxima: Vec<_> = self.queue_maxima().collect();
        for (index, max) in maxima.into_iter().enumerate() {
            self.set_up_queue(index, max);
        }
        self.driver_ok();
    }

    /// Sets up a queue of `size` descriptors with new rings, and makes it ready. To be called between
    /// [`negotiate`](Self::negotiate) and [`driver_ok`](Self::driver_ok).
    ///
    /// # Panics
    /// There is no such queue, or the memory for rings is used up until a [`reset`](Self::reset).
    pub fn set_up_queue(&mut self, index: usize, size: u16) {
        self.place_queue(index, size);
        self.write(Register::QueueReady, 1);
    }

    /// Writes size and addresses of a queue with new rings, which stays selected and isn't made ready.
    ///
    /// # Panics
    /// As [`set_up_queue`](Self::set_up_queue).
    pub fn place_queue(&mut self, index: usize, size: u16) {
        let ring = Ring::new(&mut self.arena, size);
        self.write(Register::QueueSel, index as u32);
        self.write(Register::QueueSize, ring.size.into());
        let addresses = [
            (Register::QueueDescLow, Register::QueueDescHigh, ring.descriptors),
            (Register::QueueDriverLow, Register::QueueDriverHigh, ring.available),
            (Register::QueueDeviceLow, Register::QueueDeviceHigh, ring.used),
        ];
        for (low, high, gpa) in addresses {
            self.write(low, gpa as u32);
            self.write(high, (gpa >> 32) as u32);
        }
        self.rings[index] = ring;
    }

    /// Sets DRIVER_OK.
    pub fn driver_ok(&self) {
        self.add_status(status::DRIVER_OK);
    }

    /// Resets the device and waits for completion, as a held vCPU does. Chains in flight are forgotten and
    /// their memory is reused.
    ///
    /// # Panics
    /// The reset isn't complete by the [`DEADLINE`].
    pub fn reset(&mut self) {
        self.reset_while(|_| ());
    }

    /// [`reset`](Self::reset) with `meanwhile` called after the reset was written and before its completion
    /// is awaited, for actions of other vCPUs and of the device.
    ///
    /// # Panics
    /// As for [`reset`](Self::reset).
    pub fn reset_while(&mut self, meanwhile: impl FnOnce(&Self)) {
        self.port.enable();
        let outcome = self.port.write(Register::Status, 0);
        meanwhile(self);
        if outcome == Outcome::Hold {
            self.wait_hold();
        }
        assert_eq!(self.status(), 0, "the status after a reset");
        self.features = 0;
        self.arena.clear();
        self.rings.iter_mut().for_each(|ring| *ring = Ring::default());
        self.port.set_up_interrupts();
        let _ = self.interrupt.take();
        self.config_changed = false;
    }

    /// Number of interrupts that this driver has seen. Interrupts that arrive before it looks merge into one.
    pub fn interrupts(&mut self) -> u64 {
        self.take_interrupt();
        self.interrupts
    }

    /// Waits for an interrupt of any cause.
    ///
    /// # Panics
    /// No interrupt by the [`DEADLINE`].
    pub fn wait_any_interrupt(&mut self) {
        assert!(self.wait_interrupt(Instant::now() + DEADLINE), "no interrupt");
    }

    /// Waits for the interrupt that reports a configuration change or DEVICE_NEEDS_RESET.
    ///
    /// # Panics
    /// No such interrupt by the [`DEADLINE`].
    pub fn wait_config_change(&mut self) {
        let until = Instant::now() + DEADLINE;
        while !std::mem::take(&mut self.config_changed) {
            assert!(self.wait_interrupt(until), "no interrupt for a change of configuration");
        }
    }

    /// Waits until DEVICE_NEEDS_RESET is set and its interrupt has arrived.
    ///
    /// # Panics
    /// That isn't so by the [`DEADLINE`], perhaps because the interrupt was consumed before.
    pub fn wait_needs_reset(&mut self) {
        self.wait_config_change();
        while !self.needs_reset() {
            self.wait_config_change();
        }
    }

    /// Calls [`Control::begin_suspend`] and waits until the device [is at rest](Control::is_at_rest).
    ///
    /// # Panics
    /// It isn't at rest by the [`DEADLINE`].
    pub fn suspend(&self) {
        let until = Instant::now() + DEADLINE;
        self.control().begin_suspend();
        while !self.control().is_at_rest() {
            assert!(self.news.wait(until), "the device doesn't stop");
        }
    }

    /// Calls [`Control::resume`].
    pub fn resume(&self) {
        self.control().resume();
    }

    /// Calls [`VirtioDevice::update`] on the device's thread.
    ///
    /// # Errors
    /// Those of the device.
    ///
    /// # Panics
    /// No result by the [`DEADLINE`].
    pub fn update(&self, fields: Value) -> Result<(), DeviceError> {
        let answer = self.control().with_device(move |device, session| device.update(&fields, session));
        answer.recv_timeout(DEADLINE).expect("a result from the device's thread")
    }

    /// Calls [`VirtioDevice::report`] on the device's thread.
    ///
    /// # Panics
    /// No result by the [`DEADLINE`].
    pub fn report(&self) -> Map<String, Value> {
        let answer = self.control().with_device(|device, _| device.report());
        answer.recv_timeout(DEADLINE).expect("a result from the device's thread")
    }

    /// Waits for an interrupt and does an interrupt handler's work. False if the deadline passes first.
    pub(super) fn wait_interrupt(&mut self, until: Instant) -> bool {
        let came = self.interrupt.wait(until);
        if came {
            self.handle_interrupt();
        }
        came
    }

    fn take_interrupt(&mut self) {
        if self.interrupt.take().is_some() {
            self.handle_interrupt();
        }
    }

    fn handle_interrupt(&mut self) {
        self.interrupts += 1;
        self.config_changed |= self.port.take_config_change();
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("rings", &self.rings).finish_non_exhaustive()
    }
}
