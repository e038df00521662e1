//! A block device of the host, given by VMM_TEST_BLOCK_DEVICE, which is overwritten. As root, for example:
//!
//! ```sh
//! truncate -s 1M disk.img && export VMM_TEST_BLOCK_DEVICE=$(losetup --show --sector-size 4096 -f disk.img)
//! cargo test -p vmm-virtio-devices --test block -- --ignored device
//! ```

use serde_json::json;

use crate::disk::*;

#[test]
#[ignore = "needs a block device that may be written, in VMM_TEST_BLOCK_DEVICE"]
fn device_has_its_size_and_blocks_and_serves() {
    let path = std::env::var("VMM_TEST_BLOCK_DEVICE").expect("VMM_TEST_BLOCK_DEVICE names a block device");
    let file = std::fs::File::open(&path).unwrap();
    let mut driver = start(json!({"path": path, "direct": true}));
    let sectors = rustix::fs::seek(&file, rustix::fs::SeekFrom::End(0)).unwrap() / 512;
    assert_eq!(driver.config(0, 8), sectors.to_le_bytes());
    assert_eq!(driver.config(20, 4), rustix::fs::ioctl_blksszget(&file).unwrap().to_le_bytes());
    assert_eq!(send(&mut driver, OUT, 8, &[0x5c; 8192]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    assert_eq!(read(&mut driver, 8, 8192), (vec![0x5c; 8192], OK));
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(8, 8, 0)), OK);
    assert_eq!(read(&mut driver, 8, 8192), ([[0; 4096], [0x5c; 4096]].concat(), OK));
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(16, 8, 0)), OK);
    assert!(try_open(json!({"path": path})).is_err(), "it is locked");
}
