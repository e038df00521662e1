//! What a driver can do wrong.

/// A driver's fault against the specification. The device stops and says DEVICE_NEEDS_RESET; the monitor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More chains are available than the queue has descriptors (virtio 1.2 §2.7.13.3).
    #[error("the available ring's index jumped by more than the queue's size")]
    AvailableIndex,
    /// A chain is made available that the device still has (virtio 1.2 §2.7.13.1).
    #[error("chain {head} is made available while the device has it")]
    InUse {
        /// The head.
        head: u16,
    },
    /// The head of a chain, or a `next`, isn't in the table.
    #[error("descriptor {index} of a table of {count}")]
    DescriptorIndex {
        /// What was named.
        index: u32,
        /// How many there are.
        count: u32,
    },
    /// A chain is longer than the queue, as one with a loop is.
    #[error("a chain is longer than the queue's {size} descriptors")]
    ChainTooLong {
        /// The queue's size.
        size: u16,
    },
    /// A descriptor, or what it names, isn't RAM.
    #[error("a descriptor names {len} bytes at {gpa:#x}, which isn't all memory")]
    Unmapped {
        /// Guest-physical address.
        gpa: u64,
        /// In bytes.
        len: u32,
    },
    /// What the device reads stands behind what it writes (virtio 1.2 §2.7.4.2).
    #[error("a readable descriptor stands behind a writable one")]
    ReadableBehindWritable,
    /// An indirect descriptor without VIRTIO_F_INDIRECT_DESC.
    #[error("an indirect descriptor, which wasn't negotiated")]
    IndirectNotNegotiated,
    /// An indirect descriptor inside an indirect table, or with a `next`.
    #[error("an indirect descriptor where none may be")]
    IndirectMisplaced,
    /// The length of an indirect table.
    #[error("an indirect table of {len} bytes")]
    IndirectLength {
        /// In bytes.
        len: u32,
    },
    /// A chain lacks bytes that its device needs.
    #[error("a chain has {len} bytes where {needed} are needed")]
    TooShort {
        /// What it has.
        len: u64,
        /// What the device needs.
        needed: u64,
    },
    /// A ring isn't in RAM, or isn't aligned.
    #[error("queue {queue}: its rings aren't in memory, or aren't aligned")]
    Rings {
        /// The queue.
        queue: usize,
    },
    /// Nothing that a driver did: the device's thread has ended, which is a defect of the monitor.
    #[error("not the driver: the device's own thread has panicked")]
    Panicked,
    /// Nothing that a driver did: the host's kernel doesn't serve the queues (vhost).
    #[error("not the driver: the kernel refuses {call}: {}", std::io::Error::from_raw_os_error(*errno))]
    Refused {
        /// The call.
        call: &'static str,
        /// Why.
        errno: i32,
    },
    /// What a request says makes no sense to its device.
    #[error("{0}")]
    Request(&'static str),
}
