//! qcow2 headers: an accepted header has usable values; a refused one gets a one-line message.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vmm_virtio_devices::block::qcow2::header::{Header, MAGIC};

/// Without these, most headers would have an unknown version, an invalid cluster size, encryption or unknown features.
const STAMPS: [(usize, &[u8]); 5] =
    [(0, &MAGIC), (4, &[0, 0, 0]), (20, &[0, 0, 0]), (32, &[0, 0, 0, 0]), (72, &[0, 0, 0, 0, 0, 0, 0])];

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (mut bytes, stamps) = input;
    for (index, (at, stamp)) in STAMPS.into_iter().enumerate() {
        if stamps & 1 << index == 0
            && let Some(field) = bytes.get_mut(at..at + stamp.len())
        {
            field.copy_from_slice(stamp);
        }
    }
    match Header::parse(&bytes) {
        Ok(header) => {
            let cluster_len = 1_u64 << header.cluster_bits;
            assert!((512..=2 << 20).contains(&cluster_len));
            assert!(u64::from(header.l1.0) * 8 <= 32 << 20 && header.l1.1.is_multiple_of(cluster_len));
            assert!(u64::from(header.refcount_table.0) * cluster_len <= 8 << 20);
            assert!(header.refcount_table.1.is_multiple_of(cluster_len) && header.refcount_order <= 6);
            let covered = u128::from(header.l1.0) * u128::from(cluster_len) * u128::from(cluster_len / 8);
            assert!(u128::from(header.disk_len) <= covered);
            assert!(header.backing.is_none_or(|backing| backing.name.len() <= 1023));
        }
        Err(refusal) => {
            let problem = refusal.problem(Path::new("a.qcow2"));
            assert!(problem.len() < 400 && !problem.contains(char::is_control), "{problem}");
        }
    }
});
