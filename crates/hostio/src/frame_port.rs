//! Descriptors that transfer Ethernet frames: TAPs, and sockets used in place of one.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::SocketType;
use vmm_sandbox::Allow;
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};

use crate::IoSlices;

/// Length of struct virtio_net_hdr_v1, which precedes every frame, in bytes (virtio 1.2 §5.1.6).
pub const NET_HEADER_LEN: usize = 12;

/// Length of an interface name with its NUL, in bytes (Linux, include/uapi/linux/if.h, IFNAMSIZ).
const NAME_LEN: usize = 16;

/// struct ifreq (netdevice(7)). TAP ioctls use its name and flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_LEN],
    flags: u16,
    /// The rest of a union whose largest member is struct ifmap, 24 bytes.
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// Why a TAP can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// /dev/net/tun can't be opened.
    #[error("/dev/net/tun can't be opened: {0}")]
    Device(io::Error),
    /// The interface can't be created or attached to (TUNSETIFF).
    #[error("TUNSETIFF: {0}")]
    Interface(io::Error),
    /// The interface can't be configured; the string names the ioctl.
    #[error("{0}: {1}")]
    Setup(&'static str, io::Error),
}

/// Sends and receives Ethernet frames, each preceded by a header of [`NET_HEADER_LEN`] bytes. It never
/// blocks.
#[derive(Debug)]
pub struct FramePort {
    file: File,
    /// Name of the interface; `None` for a socket.
    name: Option<String>,
}

/// The system calls of a thread with a [`FramePort`]. Frames are moved by read and writev, which are part of every filter.
pub const FRAME_PORT_CALLS: &[Allow] =
    &[Allow::when(libc::SYS_ioctl, 1, &[libc::TUNSETOFFLOAD as u32, libc::TUNSETQUEUE as u32])];

impl FramePort {
    /// Opens a queue of the TAP called `name`. A missing TAP is created, if the user may, and disappears with
    /// its last queue. `is_one_of_many` selects a TAP with several queues (IFF_MULTI_QUEUE).
    ///
    /// # Errors
    /// /dev/net/tun can't be opened, or an ioctl fails.
    pub fn tap(name: &str, is_one_of_many: bool) -> Result<Self, TapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(TapError::Device)?;
        let many = if is_one_of_many { libc::IFF_MULTI_QUEUE } else { 0 };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | many;
        let mut request = InterfaceRequest { name: [0; NAME_LEN], flags: flags as u16, rest: [0; 22] };
        if name.is_empty() || name.len() >= NAME_LEN {
            return Err(TapError::Interface(io::ErrorKind::InvalidInput.into()));
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the descriptor is open, `file` is borrowed. TUNSETIFF reads and writes a struct ifreq,
        // whose size and layout `InterfaceRequest` has; it is initialised and exclusively borrowed.
        let joined = unsafe { ioctl_with_mut_ref(&file, libc::TUNSETIFF, &mut request) };
        check(joined).map_err(TapError::Interface)?;
        let port = Self { file, name: Some(name.to_owned()) };
        port.set_header_len().map_err(|error| TapError::Setup("TUNSETVNETHDRSZ", error))?;
        Ok(port)
    }

    /// Uses a copy of the open descriptor `fd`: a TAP with IFF_VNET_HDR, or a socket that preserves packet
    /// boundaries. The original stays open. The open file description becomes non-blocking, for its other
    /// users too.
    ///
    /// # Errors
    /// `fd` isn't open, or it is something else, which the error says.
    pub fn inherited(fd: RawFd) -> io::Result<Self> {
        // SAFETY: F_DUPFD_CLOEXEC takes and returns plain numbers; a descriptor that isn't open is an error.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        check(copy)?;
        // SAFETY: the descriptor was made above, is open, and nothing else owns it.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        let flags = fcntl_getfl(&copy)?;
        fcntl_setfl(&copy, flags | OFlags::NONBLOCK)?;
        let file = File::from(copy);
        match rustix::net::sockopt::socket_type(&file) {
            Ok(SocketType::DGRAM | SocketType::SEQPACKET) => Ok(Self { file, name: None }),
            Ok(_) => Err(io::Error::other("is a socket that doesn't keep packets apart")),
            Err(_) => Self::of_tap(file),
        }
    }

    fn of_tap(file: File) -> io::Result<Self> {
        let mut request = InterfaceRequest { name: [0; NAME_LEN], flags: 0, rest: [0; 22] };
        // SAFETY: the descriptor is open, `file` is borrowed. TUNGETIFF writes a struct ifreq, whose size and
        // layout `InterfaceRequest` has; it is exclusively borrowed, and any value of its fields is valid.
        // Anything but a TAP refuses the call. No other driver has an ioctl with this number: among those
        // with the letter 'T', only tun uses it (Linux, Documentation/userspace-api/ioctl/ioctl-number.rst).
        let asked = unsafe { ioctl_with_mut_ref(&file, libc::TUNGETIFF, &mut request) };
        check(asked).map_err(|_| io::Error::other("is neither a TAP nor a socket"))?;
        let has = |flag: libc::c_int| libc::c_int::from(request.flags) & flag != 0;
        if !has(libc::IFF_TAP) || !has(libc::IFF_VNET_HDR) || !has(libc::IFF_NO_PI) {
            return Err(io::Error::other("is no TAP with IFF_VNET_HDR and IFF_NO_PI"));
        }
        let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let port = Self { name: Some(String::from_utf8_lossy(name).into_owned()), file };
        port.set_header_len()?;
        Ok(port)
    }

    /// Name of the interface; `None` for a socket.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The descriptor, for epoll.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Sets the offloads that the host may use for frames to us (Linux, include/uapi/linux/if_tun.h, TUN_F_).
    /// No effect on a socket.
    ///
    /// # Errors
    /// The kernel doesn't support one of them.
    pub fn set_offloads(&self, offloads: u32) -> io::Result<()> {
        if self.name.is_none() {
            return Ok(());
        }
        // SAFETY: the descriptor is open, `self` is borrowed. TUNSETOFFLOAD takes a plain number.
        check(unsafe { ioctl_with_val(&self.file, libc::TUNSETOFFLOAD, offloads.into()) })
    }

    /// Attaches or detaches this queue of a multi-queue TAP: the kernel sends frames to attached queues only.
    /// No effect on other ports, or if it is in that state already.
    ///
    /// # Errors
    /// The ioctl fails.
    pub fn set_attached(&self, is_attached: bool) -> io::Result<()> {
        let flag = if is_attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        let request = InterfaceRequest { name: [0; NAME_LEN], flags: flag as u16, rest: [0; 22] };
        // SAFETY: the descriptor is open, `self` is borrowed. TUNSETQUEUE reads a struct ifreq, whose size
        // and layout `InterfaceRequest` has.
        check(unsafe { ioctl_with_ref(&self.file, libc::TUNSETQUEUE, &request) })
    }

    /// Receives a frame with its header, truncated to the length of `into`. Returns 0 if a socket's peer is
    /// gone.
    ///
    /// # Errors
    /// `WouldBlock` if there is none now; another error if the TAP is gone.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(into)
    }

    /// Sends a frame with its header.
    ///
    /// # Errors
    /// The frame isn't sent: the kernel has no room or refuses the header, or the interface is down.
    pub fn send(&self, frame: &IoSlices) -> io::Result<u64> {
        frame.send(&self.file)
    }

    fn set_header_len(&self) -> io::Result<()> {
        let len = NET_HEADER_LEN as libc::c_int;
        // SAFETY: the descriptor is open, `self` is borrowed. TUNSETVNETHDRSZ reads an int.
        check(unsafe { ioctl_with_ref(&self.file, libc::TUNSETVNETHDRSZ, &len) })?;
        let little: libc::c_int = 1;
        // SAFETY: as above, for TUNSETVNETLE. A virtio 1 device is always little-endian (virtio 1.2
        // §5.1.6.1).
        check(unsafe { ioctl_with_ref(&self.file, libc::TUNSETVNETLE, &little) })
    }
}

fn check(returned: libc::c_int) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
