//! Arbitrary rings and descriptors, for a device that reads and writes every buffer it is given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_virtio::testing::{Descriptor, Driver, features, without_filters};
use vmm_virtio::{Chain, Fault, Session, Step, VirtioDevice};

const SIZE: u16 = 16;
/// Address of an indirect table, also of [`SIZE`] descriptors.
const TABLE: u64 = 0x20_0000;
/// Bytes of input per descriptor.
const DESCRIPTOR: usize = 6;

/// Reads all readable buffers, and fills all writable ones with the last byte read.
struct Greedy;

impl VirtioDevice for Greedy {
    fn queue_sizes(&self) -> Vec<u16> {
        vec![SIZE]
    }

    fn process(&mut self, queue: usize, session: &mut Session) -> Result<(), Fault> {
        session.drain(queue, use_all)
    }
}

fn use_all(chain: Chain<'_>) -> Result<Step, Fault> {
    let mut last = 0;
    let mut len = 0;
    chain.readable().slices(|slice| {
        let mut bytes = vec![0; slice.len().min(0x1000)];
        slice.copy_to(&mut bytes[..]);
        last = bytes.last().copied().unwrap_or(last);
        len += slice.len() as u64;
        Ok(())
    })?;
    assert_eq!(len, chain.readable().len());
    let (half, rest) =
        chain.writable().split_at(chain.writable().len() / 2).expect("half is within the whole");
    for buffers in [half, rest] {
        let bytes = vec![last; buffers.len().min(0x1000) as usize];
        buffers.write(&bytes)?;
    }
    Ok(Step::Used(u32::try_from(chain.writable().len()).unwrap_or(u32::MAX)))
}

fuzz_target!(init: without_filters(), |data: &[u8]| {
    let mut driver = Driver::new(Box::new(Greedy), 42);
    let mut rounds = data.chunks(3 + usize::from(SIZE) + 2 * DESCRIPTOR * usize::from(SIZE)).take(4);
    let Some(first) = rounds.next() else { return };
    driver.init(
        u64::from(first[0] & 1) * features::INDIRECT | u64::from(first[0] >> 1 & 1) * features::EVENT_IDX,
    );
    for round in std::iter::once(first).chain(rounds) {
        play(&mut driver, round);
    }
    driver.reset();
});

/// Sets up the queue from the input and notifies the device once.
fn play(driver: &mut Driver, round: &[u8]) {
    let mut bytes = round.iter().copied().chain(std::iter::repeat(0));
    let mut next = || bytes.next().expect("the iterator is infinite");
    let index = u16::from_le_bytes([next(), next()]);
    let mut queue = driver.queue(0);
    let addresses = queue.addresses();
    let [_, available, _] = addresses;
    let ring: Vec<_> = (0..SIZE).flat_map(|_| u16::from(next()).to_le_bytes()).collect();
    queue.write_bytes(available + 4, &ring);
    let mut descriptor = || descriptor([next(), next(), next(), next(), next(), next()], addresses);
    (0..SIZE).for_each(|place| queue.write_descriptor(place, descriptor()));
    let table: Vec<_> = (0..SIZE).flat_map(|_| descriptor().to_bytes()).collect();
    queue.write_bytes(TABLE, &table);
    // Usually a plausible increment; sometimes any index.
    let index = if index & 0x8000 != 0 { index } else { queue.available_index().wrapping_add(index % 20) };
    queue.set_available_index(index);
    queue.notify();
    driver.suspend();
    let was_broken = driver.needs_reset();
    driver.resume();
    assert!(!was_broken || driver.needs_reset(), "only a reset clears needs-reset");
}

/// A descriptor whose address is near a boundary.
fn descriptor(bytes: [u8; 6], rings: [u64; 3]) -> Descriptor {
    let [place, offset, len, shift, flags, next] = bytes;
    let [table, available, used] = rings;
    let borders = [
        0x30_0000,
        TABLE,
        table,
        available,
        used,
        32 << 20,
        64 << 20,
        4 << 30,
        (4 << 30) + (1 << 20),
        u64::MAX,
        0,
    ];
    let border = borders[usize::from(place) % borders.len()];
    // Half of them start before it.
    let gpa = border.wrapping_add(u64::from(offset & 0x7f)).wrapping_sub(u64::from(offset & 0x80));
    let len = u32::from(len) << (shift % 25);
    Descriptor { gpa, len, flags: u16::from(flags & 7), next: u16::from(next) % (SIZE + 2) }
}
