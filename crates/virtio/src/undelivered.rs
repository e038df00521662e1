//! Data that the guest regards as sent and the host hasn't accepted.

/// Data of one connection that a device has accepted from the guest, by an acknowledgement or within a credit,
/// and that the host's program or kernel hasn't taken from the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The connection, as a noun phrase for the log: `connection from guest port 5000 to host port 1024`.
    pub connection: String,
    /// Length in bytes.
    pub len: u64,
}
