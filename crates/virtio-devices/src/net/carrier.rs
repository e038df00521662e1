//! Whether a TAP is up on the host: the card's link follows it, as if the host's end of a cable were pulled.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// What the kernel tells of interfaces that come, change and go (rtnetlink(7), RTMGRP_LINK).
const INTERFACES: u32 = 1;
/// Messages that are read before the device looks after other things.
const NEWS_AT_ONCE: u32 = 64;
/// netdevice(7).
const IFF_UP: u64 = 1;

/// An interface, and a descriptor that can be read when it, or another, may have changed.
#[derive(Debug)]
pub(super) struct Carrier {
    news: OwnedFd,
    /// Of its flags, a hexadecimal number (Linux, Documentation/ABI/testing/sysfs-class-net).
    flags: PathBuf,
}

impl Carrier {
    /// `None` where the host doesn't show the interface, as one of another network namespace.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub(super) fn of(interface: &str) -> io::Result<Option<Self>> {
        let flags = Path::new("/sys/class/net").join(interface).join("flags");
        if !flags.exists() {
            return Ok(None);
        }
        let socket_flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a protocol: NETLINK_ROUTE is 0.
        let news = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, socket_flags, None)?;
        rustix::net::bind(&news, &SocketAddrNetlink::new(0, INTERFACES))?;
        Ok(Some(Self { news, flags }))
    }

    /// Whether it is there and up. Whoever acknowledges the news first misses none.
    pub(super) fn is_up(&self) -> bool {
        fs::read_to_string(&self.flags).is_ok_and(|text| is_up(&text))
    }

    /// Can't be read until there is news again; or at once, if there is very much.
    pub(super) fn acknowledge(&self) {
        // What they say is of all interfaces; sysfs says it of this one. An error, such as that news was lost, is gone when it
        // was told.
        for _ in 0..NEWS_AT_ONCE {
            if rustix::net::recv(&self.news, &mut [0; 64], RecvFlags::DONTWAIT) == Err(Errno::AGAIN) {
                break;
            }
        }
    }
}

impl AsRawFd for Carrier {
    fn as_raw_fd(&self) -> RawFd {
        self.news.as_raw_fd()
    }
}

fn is_up(flags: &str) -> bool {
    let digits = flags.trim().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).is_ok_and(|flags| flags & IFF_UP != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_an_interface_say_whether_it_is_up() {
        assert!(is_up("0x1003\n"));
        assert!(!is_up("0x1002\n"));
        assert!(!is_up(""));
    }

    #[test]
    fn interface_that_the_host_does_not_show_has_none() {
        assert!(Carrier::of("no-such-one").unwrap().is_none());
    }

    /// Every host has a loopback; in a namespace that nobody set up it may be down.
    #[test]
    fn interface_without_news_is_as_sysfs_says_and_acknowledged_at_once() {
        let carrier = Carrier::of("lo").unwrap().expect("there is one");
        carrier.acknowledge();
        let flags = fs::read_to_string("/sys/class/net/lo/flags").unwrap();
        assert_eq!(carrier.is_up(), is_up(&flags));
    }
}
