//! Host sockets, and the epoll instance that reports their events.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// The timer's token. Tokens of flows and listeners are smaller.
pub(crate) const TIMER: u64 = u64::MAX;

/// Maximum number of events read from the kernel at once.
const EVENTS: usize = 64;

/// An epoll instance for all host sockets and one timer.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Option<Instant>,
}

/// Events of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SocketEvents {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer sends no more, or the socket has failed.
    pub(crate) hung_up: bool,
    /// The socket has failed.
    pub(crate) failed: bool,
}

impl Watch {
    pub(crate) fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Edge-triggered: each expiry is reported once, without reading the timer.
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)?;
        Ok(Self { epoll, timer, armed: None })
    }

    /// Reports `socket`'s events with `token`, edge-triggered, until the socket is closed.
    pub(crate) fn add(&self, socket: &impl AsFd, token: u64) -> Result<(), Errno> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(token), flags)
    }

    /// Passes all pending events to `handle`, without blocking.
    pub(crate) fn take(&mut self, mut handle: impl FnMut(SocketEvents)) {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [none; EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // EINTR occurs only when blocking. Other errors would be permanent, and lose nothing.
        let Ok(count) = epoll::wait(&self.epoll, &mut events[..], Some(&now)) else { return };
        for event in &events[..count] {
            let flags = event.flags;
            let failed = flags.contains(EventFlags::ERR);
            let over = failed || flags.contains(EventFlags::HUP);
            let token = event.data.u64();
            if token == TIMER {
                self.armed = None;
            }
            handle(SocketEvents {
                token,
                readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP) || over,
                writable: flags.contains(EventFlags::OUT) || over,
                hung_up: flags.contains(EventFlags::RDHUP) || over,
                failed,
            });
        }
    }

    /// Waits for events for at most `patience`.
    pub(crate) fn wait(&self, patience: Duration) {
        let patience =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        // EINTR ends the wait early.
        let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&patience));
    }

    /// Arms the timer to expire at `deadline` or earlier.
    pub(crate) fn wake_at(&mut self, deadline: Instant, now: Instant) {
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        // Zero would disarm the timer.
        let left = deadline.saturating_duration_since(now).max(Duration::from_micros(1));
        let value = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_ok() {
            self.armed = Some(deadline);
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// A non-blocking host socket, not yet connected.
pub(crate) fn socket(address: IpAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(family(address), kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// An unprivileged socket for echo requests and replies (Linux `ping_group_range`).
pub(crate) fn echo_socket(address: IpAddr) -> Result<OwnedFd, Errno> {
    let protocol = if address.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family(address), SocketType::DGRAM, flags, Some(protocol))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// Closes a connection with a reset.
pub(crate) fn reset(socket: OwnedFd) {
    close_by_reset(&socket, true);
}

/// Sets whether closing the connection, also by the end of the process, resets it.
pub(crate) fn close_by_reset(socket: &OwnedFd, is_reset: bool) {
    // If this fails, the connection is closed normally.
    let _ = sockopt::set_socket_linger(socket, is_reset.then_some(Duration::ZERO));
}

/// The host's loopback address of the same family as `address`.
pub(crate) fn loopback(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// The first usable name server in the host's resolver configuration.
pub(crate) fn resolver() -> Option<SocketAddr> {
    first_nameserver(&std::fs::read_to_string("/etc/resolv.conf").ok()?)
}

/// Finds the first "nameserver ADDRESS" line (resolv.conf(5)).
fn first_nameserver(text: &str) -> Option<SocketAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != "nameserver" {
            return None;
        }
        let address: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    };
    text.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_first_of_file_is_taken() {
        let text =
            "# nameserver 192.0.2.9\nsearch example\nnameserver\t192.0.2.1 # one\nnameserver 192.0.2.2\n";
        assert_eq!(first_nameserver(text), Some("192.0.2.1:53".parse().unwrap()));
    }

    /// A link-local one needs an interface index, but the file has an interface name.
    #[test]
    fn nameserver_with_scope_is_passed_over() {
        let text = "nameserver fe80::1%eth0\nnameserver 2001:db8::1\n";
        assert_eq!(first_nameserver(text), Some("[2001:db8::1]:53".parse().unwrap()));
    }

    #[test]
    fn nameserver_none_in_file_is_none() {
        assert_eq!(first_nameserver("options edns0\n"), None);
    }
}
