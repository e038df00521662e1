//! Test disks and requests to them.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::NamedTempFile;
use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use vmm_virtio::testing::{Buf, DEADLINE, Driver, Used};
use vmm_virtio::{ConfigSpace, DeviceError, Fault, Needs, Session, Setting, VirtioDevice};
use vmm_virtio_devices::KINDS;

/// VIRTIO_BLK_T_*.
pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const WRITE_ZEROES: u32 = 13;

/// VIRTIO_BLK_S_*.
pub(crate) const OK: u8 = 0;
pub(crate) const IOERR: u8 = 1;
pub(crate) const UNSUPP: u8 = 2;

/// The features that Linux's driver accepts.
pub(crate) const FEATURES: u64 = 1 << VIRTIO_BLK_F_SIZE_MAX
    | 1 << VIRTIO_BLK_F_FLUSH
    | 1 << VIRTIO_BLK_F_DISCARD
    | 1 << VIRTIO_BLK_F_WRITE_ZEROES
    | 1 << VIRTIO_BLK_F_CONFIG_WCE;
pub(crate) const MQ: u64 = 1 << VIRTIO_BLK_F_MQ;

/// Number of sectors of [`image`].
pub(crate) const SECTORS: u64 = 128;

/// An image of 64 KiB in which every byte is the number of its sector.
pub(crate) fn image() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..SECTORS).flat_map(|sector| [sector as u8; 512]).collect();
    file.write_all(&bytes).unwrap();
    file
}

/// A sparse image of this many MiB of zeros.
pub(crate) fn sparse_image(mib: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(mib << 20).unwrap();
    file
}

/// Otherwise unused memory in the second half of the driver's 64 MiB. Requests can refer to it several times
/// to be longer than memory.
pub(crate) const SPARE: u64 = 48 << 20;
/// Its first MiB.
pub(crate) const MIB: Buf<'_> = Buf::WriteAt(SPARE, 1 << 20);

/// A disk that reports every call to the test, and then waits for it.
struct WatchedDisk {
    disk: Box<dyn VirtioDevice>,
    calls: Sender<Call>,
    go: Receiver<()>,
}

/// State of a disk after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Number of completed requests.
    pub(crate) done: u64,
    /// Number of the first queue's requests in flight.
    pub(crate) in_flight: u32,
    /// Whether it was the call for a configuration write by the driver.
    pub(crate) is_config: bool,
}

impl WatchedDisk {
    fn tell(&self, result: Result<(), Fault>, session: &mut Session, is_config: bool) -> Result<(), Fault> {
        let done = session.counters().requests.get();
        let in_flight = session.queue(0).map_or(0, |queue| queue.in_flight());
        // If the test no longer listens, don't wait for it.
        if self.calls.send(Call { done, in_flight, is_config }).is_ok() {
            let _ = self.go.recv();
        }
        result
    }
}

impl VirtioDevice for WatchedDisk {
    fn needs(&self) -> Needs {
        self.disk.needs()
    }

    fn features(&self) -> u64 {
        self.disk.features()
    }

    fn queue_sizes(&self) -> Vec<u16> {
        self.disk.queue_sizes()
    }

    fn config_space(&self) -> ConfigSpace {
        self.disk.config_space()
    }

    fn start(&mut self, session: &mut Session) -> Result<(), Fault> {
        self.disk.start(session)
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        let done = self.disk.process(queue, session);
        self.tell(done, session, false)
    }

    fn event(&mut self, token: u32, session: &mut Session) -> Result<(), Fault> {
        let done = self.disk.event(token, session);
        self.tell(done, session, false)
    }

    fn config_written(&mut self, session: &mut Session) -> Result<(), Fault> {
        let done = self.disk.config_written(session);
        self.tell(done, session, true)
    }

    fn stop(&mut self, session: &mut Session) {
        self.disk.stop(session);
    }
}

/// A running disk with one queue that reports each call, and continues when the test tells it to or no longer
/// listens. Its first call, at the start, has happened.
pub(crate) fn start_watched(mut fields: Value) -> (Driver, Receiver<Call>, Sender<()>) {
    fields["queues"] = json!(1);
    let ((calls, heard), (go, wait)) = (channel(), channel());
    let disk = try_open(fields).unwrap();
    let mut driver = Driver::new(Box::new(WatchedDisk { disk, calls, go: wait }), 2);
    driver.init(FEATURES);
    assert_eq!(heard.recv_timeout(DEADLINE).unwrap(), Call { done: 0, in_flight: 0, is_config: false });
    go.send(()).unwrap();
    (driver, heard, go)
}

/// The config's fields with the path of `file`.
pub(crate) fn fields(file: &NamedTempFile, mut fields: Value) -> Value {
    fields["path"] = json!(file.path());
    fields
}

/// Opens a disk from its config, on a machine with 4 vCPUs.
pub(crate) fn try_open(fields: Value) -> Result<Box<dyn VirtioDevice>, DeviceError> {
    let entry = KINDS.iter().find(|entry| entry.name == "block").unwrap();
    let setting = Setting { directory: Path::new("."), vcpus: 4, id: "disk0", plan_only: false };
    entry.open(fields, &setting)
}

/// A running disk with the features of Linux's driver.
pub(crate) fn start(fields: Value) -> Driver {
    let mut driver = driver(fields);
    driver.init(driver.offered() & FEATURES);
    driver
}

/// An uninitialised disk.
pub(crate) fn driver(fields: Value) -> Driver {
    Driver::new(try_open(fields).unwrap(), 2)
}

/// `struct virtio_blk_outhdr`.
pub(crate) fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// `struct virtio_blk_discard_write_zeroes`.
pub(crate) fn segment(sector: u64, sectors: u32, flags: u32) -> [u8; 16] {
    let mut segment = [0; 16];
    segment[..8].copy_from_slice(&sector.to_le_bytes());
    segment[8..12].copy_from_slice(&sectors.to_le_bytes());
    segment[12..].copy_from_slice(&flags.to_le_bytes());
    segment
}

/// Reads `len` bytes from `sector`: the data and the status.
pub(crate) fn read(driver: &mut Driver, sector: u64, len: u32) -> (Vec<u8>, u8) {
    let header = header(IN, sector);
    let mut used = driver.queue(0).request(&[Buf::Read(&header), Buf::Write(len), Buf::Write(1)]);
    let status = used.bytes.pop().unwrap();
    (used.bytes, status)
}

/// Sends `kind` with `data` after the header, and returns the status.
pub(crate) fn send(driver: &mut Driver, kind: u32, sector: u64, data: &[u8]) -> u8 {
    let header = header(kind, sector);
    let used = match data {
        [] => driver.queue(0).request(&[Buf::Read(&header), Buf::Write(1)]),
        _ => driver.queue(0).request(&[Buf::Read(&header), Buf::Read(data), Buf::Write(1)]),
    };
    assert_eq!(used.len, 1, "only the status was written");
    used.bytes[0]
}

/// The status of a used chain.
pub(crate) fn status(used: &Used) -> u8 {
    *used.bytes.last().unwrap()
}

/// The lines for the log, once there are some.
pub(crate) fn told(driver: &Driver) -> Vec<String> {
    let begun = Instant::now();
    let told = std::iter::from_fn(|| {
        std::thread::sleep(Duration::from_millis(1));
        (begun.elapsed() < DEADLINE).then(|| driver.control().take_notices().texts)
    });
    told.into_iter().find(|texts| !texts.is_empty()).expect("nothing is told")
}

/// The contents of the file, as another process sees them.
pub(crate) fn bytes_of(file: &NamedTempFile) -> Vec<u8> {
    std::fs::read(file.path()).unwrap()
}

/// The space allocated to a file in bytes.
pub(crate) fn room_of(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt;
    file.metadata().unwrap().blocks() * 512
}
