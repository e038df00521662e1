//! Data that the guest regards as sent and the host hasn't accepted.

/// Data of one connection that a device has accepted from the guest, by an acknowledgement or within a credit,
/// and that the host's program hasn't received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The connection, as a noun phrase for the log: `connection from guest port 5000 to host port 1024`.
    pub connection: String,
    /// Number of bytes that the host's kernel hasn't taken from the device. They are lost if the device is dropped, and those
    /// in `sent_len` with them.
    pub len: u64,
    /// Number of bytes that the host's kernel has taken. If `len` is 0, it goes on sending them when the device is dropped.
    pub sent_len: u64,
}
