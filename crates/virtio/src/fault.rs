//! Violations of the specification by a driver.

/// Why a device set DEVICE_NEEDS_RESET and stopped: usually a violation of the specification by its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More chains are available than the queue has descriptors (virtio 1.2 §2.7.13.3).
    #[error("the available ring's index jumped by more than the queue's size")]
    AvailableIndex,
    /// A chain is made available while the device still owns it (virtio 1.2 §2.7.13.1).
    #[error("chain {head} was made available while the device owns it")]
    InUse {
        /// Index of its first descriptor.
        head: u16,
    },
    /// The head of a chain or a `next` is outside the table.
    #[error("descriptor index {index} in a table of {count}")]
    DescriptorIndex {
        /// The index.
        index: u32,
        /// Number of descriptors in the table.
        count: u32,
    },
    /// A chain is longer than the queue, perhaps because it has a loop.
    #[error("a chain is longer than the queue's {size} descriptors")]
    ChainTooLong {
        /// The queue's size.
        size: u16,
    },
    /// A descriptor or its buffer isn't entirely in RAM.
    #[error("a descriptor or its buffer isn't in memory ({len} bytes at {gpa:#x})")]
    Unmapped {
        /// Guest-physical address.
        gpa: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A readable descriptor follows a writable one (virtio 1.2 §2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    ReadableBehindWritable,
    /// An indirect descriptor without VIRTIO_F_INDIRECT_DESC.
    #[error("an indirect descriptor without VIRTIO_F_INDIRECT_DESC")]
    IndirectNotNegotiated,
    /// An indirect descriptor inside an indirect table, or with a `next`.
    #[error("an indirect descriptor in an indirect table, or with NEXT set")]
    IndirectMisplaced,
    /// The length of an indirect table isn't a positive multiple of 16.
    #[error("an indirect table has {len} bytes, not a positive multiple of 16")]
    IndirectLength {
        /// Length in bytes.
        len: u32,
    },
    /// A chain is shorter than its device needs.
    #[error("a chain has {len} bytes, but {needed} are needed")]
    TooShort {
        /// Length in bytes.
        len: u64,
        /// Minimum length in bytes.
        needed: u64,
    },
    /// A ring isn't in RAM or is misaligned.
    #[error("queue {queue}: its rings aren't in memory or are misaligned")]
    Rings {
        /// Index of the queue.
        queue: usize,
    },
    /// Not the driver's fault: the device's thread has panicked, which is a bug in the monitor.
    #[error("the device's thread has panicked, which is a bug in the monitor")]
    Panicked,
    /// Not the driver's fault: the host's kernel refuses to serve the queues (vhost).
    #[error("the host's kernel refused {call}: {}", std::io::Error::from_raw_os_error(*errno))]
    Refused {
        /// Name of the system call or ioctl.
        call: &'static str,
        /// The error number.
        errno: i32,
    },
    /// A request is invalid for its device.
    #[error("{0}")]
    Request(&'static str),
}
