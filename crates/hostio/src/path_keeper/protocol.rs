//! The messages between a monitor and its path keeper.
//!
//! A request is a message on a SOCK_SEQPACKET socket, with one descriptor, to which the reply is sent:
//!
//! | bytes | content |
//! |---|---|
//! | 0 | kind: 1 connect, 2 remove, 3 remove if empty |
//! | 1..17 | of a removal: device and inode number, in native byte order |
//! | the rest | the path, of at most 4095 bytes |
//!
//! A reply is the error number as an i32, 0 for success; that of a connection carries it as a descriptor.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::by_path::Contents;

const CONNECT: u8 = 1;
const REMOVE: u8 = 2;
const REMOVE_EMPTY: u8 = 3;

/// PATH_MAX (Linux, include/uapi/linux/limits.h) without its NUL.
const PATH_MAX: usize = 4095;
/// Maximum length of a request in bytes: kind, device, inode and path.
pub(super) const REQUEST_MAX: usize = 1 + 8 + 8 + PATH_MAX;

/// Length of a reply in bytes.
pub(super) const REPLY_LEN: usize = size_of::<i32>();

/// The highest error number (Linux, include/linux/err.h, MAX_ERRNO).
const ERRNO_MAX: i32 = 4095;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// Answered with a connection.
    Connect { path: &'a Path },
    /// Removes the name, if it is that of this inode.
    Remove { path: &'a Path, device: u64, inode: u64, contents: Contents },
}

impl<'a> Request<'a> {
    /// # Errors
    /// ENAMETOOLONG: the path is longer than the kernel accepts.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Errno> {
        let (mut message, path) = match self {
            Self::Connect { path } => (vec![CONNECT], path),
            Self::Remove { path, device, inode, contents } => {
                let kind = match contents {
                    Contents::Any => REMOVE,
                    Contents::Empty => REMOVE_EMPTY,
                };
                ([&[kind][..], &device.to_ne_bytes(), &inode.to_ne_bytes()].concat(), path)
            }
        };
        let path = path.as_os_str().as_bytes();
        if path.len() > PATH_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        message.extend_from_slice(path);
        Ok(message)
    }

    /// The request in `message`; `None` if it is malformed. The path is any bytes.
    pub(super) fn decode(message: &'a [u8]) -> Option<Self> {
        let (kind, rest) = message.split_first()?;
        let contents = match *kind {
            CONNECT => return Some(Self::Connect { path: path_of(rest) }),
            REMOVE => Contents::Any,
            REMOVE_EMPTY => Contents::Empty,
            _ => return None,
        };
        let (device, rest) = rest.split_first_chunk()?;
        let (inode, path) = rest.split_first_chunk()?;
        let [device, inode] = [device, inode].map(|number| u64::from_ne_bytes(*number));
        Some(Self::Remove { path: path_of(path), device, inode, contents })
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

pub(super) fn encode_outcome(outcome: Result<(), Errno>) -> [u8; REPLY_LEN] {
    outcome.map_or_else(Errno::raw_os_error, |()| 0).to_ne_bytes()
}

/// The outcome in a reply. EPROTO if it is none.
pub(super) fn decode_outcome(reply: &[u8]) -> Result<(), Errno> {
    match reply.try_into().map(i32::from_ne_bytes) {
        Ok(0) => Ok(()),
        Ok(number @ 1..=ERRNO_MAX) => Err(Errno::from_raw_os_error(number)),
        _ => Err(Errno::PROTO),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_decoded_as_they_were() {
        let path = Path::new(OsStr::from_bytes(b"/run/\xff_5"));
        let connect = Request::Connect { path };
        assert_eq!(Request::decode(&connect.encode().unwrap()), Some(connect));
        let remove = Request::Remove { path, device: u64::MAX, inode: 7, contents: Contents::Any };
        assert_eq!(Request::decode(&remove.encode().unwrap()), Some(remove));
        let empty = Request::Remove { path, device: 1, inode: 2, contents: Contents::Empty };
        assert_eq!(Request::decode(&empty.encode().unwrap()), Some(empty));
    }

    #[test]
    fn requests_that_are_malformed_are_none() {
        assert_eq!(Request::decode(b""), None);
        assert_eq!(Request::decode(b"\0/run/vm_5"), None);
        assert_eq!(Request::decode(b"\x04/run/vm_5/and/so/on"), None);
        assert_eq!(Request::decode(&[REMOVE; 16]), None);
        assert_eq!(Request::decode(&[REMOVE_EMPTY; 9]), None);
    }

    #[test]
    fn longest_path_fits_and_a_longer_one_is_refused() {
        let longest = "x".repeat(PATH_MAX);
        let request = |path| Request::Remove { path, device: 1, inode: 2, contents: Contents::Any };
        assert_eq!(request(Path::new(&longest)).encode().unwrap().len(), REQUEST_MAX);
        assert_eq!(request(Path::new(&format!("{longest}x"))).encode(), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn outcomes_are_decoded_as_they_were_and_nothing_else_is_one() {
        assert_eq!(decode_outcome(&encode_outcome(Ok(()))), Ok(()));
        assert_eq!(decode_outcome(&encode_outcome(Err(Errno::ACCESS))), Err(Errno::ACCESS));
        assert_eq!(decode_outcome(&(-1i32).to_ne_bytes()), Err(Errno::PROTO));
        assert_eq!(decode_outcome(&4096i32.to_ne_bytes()), Err(Errno::PROTO));
        assert_eq!(decode_outcome(&i32::MIN.to_ne_bytes()), Err(Errno::PROTO));
        assert_eq!(decode_outcome(&[0; 3]), Err(Errno::PROTO));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_that_encodes_to_them_or_none(
            message in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            if let Some(request) = Request::decode(&message) {
                prop_assert_eq!(request.encode().unwrap(), message);
            }
        }
    }
}
