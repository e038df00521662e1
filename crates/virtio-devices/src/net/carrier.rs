//! The state of a TAP on the host: the card's link follows it, like a cable whose other end is pulled.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// Notifications about interfaces (rtnetlink(7), RTMGRP_LINK).
const INTERFACES: u32 = 1;
/// Messages read before the device handles other events.
const NEWS_AT_ONCE: u32 = 64;
/// Bytes of flags at most: "0x", 8 digits and a line feed, with room to spare.
const FLAGS_LEN: usize = 32;
/// netdevice(7).
const IFF_UP: u64 = 1;

/// An interface, and a descriptor that becomes readable when any interface may have changed.
#[derive(Debug)]
pub(super) struct Carrier {
    news: OwnedFd,
    /// Its flags, a hexadecimal number (Linux, Documentation/ABI/testing/sysfs-class-net). Read again after each change.
    flags: File,
}

impl Carrier {
    /// `None` if the host doesn't show the interface, for example because it is in another network namespace.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub(super) fn of(interface: &str) -> io::Result<Option<Self>> {
        let flags = Path::new("/sys/class/net").join(interface).join("flags");
        let Ok(flags) = File::open(flags) else { return Ok(None) };
        let socket_flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 is NETLINK_ROUTE.
        let news = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, socket_flags, None)?;
        rustix::net::bind(&news, &SocketAddrNetlink::new(0, INTERFACES))?;
        Ok(Some(Self { news, flags }))
    }

    /// Whether the interface exists and is up. Acknowledge first, so that no change is missed.
    pub(super) fn is_up(&self) -> bool {
        let mut text = [0; FLAGS_LEN];
        let read = self.flags.read_at(&mut text, 0).ok().and_then(|len| str::from_utf8(&text[..len]).ok());
        read.is_some_and(is_up)
    }

    /// Makes it unreadable until the next change, or immediately readable again if there are many messages.
    pub(super) fn acknowledge(&self) {
        // The messages are about all interfaces, so sysfs is read for this one. An error, such as lost
        // messages, is cleared when it is reported.
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

    /// Every host has a loopback; in an unconfigured namespace it may be down.
    #[test]
    fn interface_without_news_is_as_sysfs_says_and_acknowledged_at_once() {
        let carrier = Carrier::of("lo").unwrap().expect("there is one");
        carrier.acknowledge();
        let flags = std::fs::read_to_string("/sys/class/net/lo/flags").unwrap();
        assert_eq!(carrier.is_up(), is_up(&flags));
    }
}
