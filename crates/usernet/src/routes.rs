//! Whether a destination is the host itself or directly connected, according to its routes (rtnetlink(7)).

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// include/uapi/linux/netlink.h and rtnetlink.h.
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
/// Return the route as it is in the table, not the path for one address.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// A gateway of the other address family.
const RTA_VIA: u16 = 18;
/// The bits of an attribute's type without its flags.
const NLA_TYPE_MASK: u16 = 0x3fff;
const RTN_UNICAST: u8 = 1;
/// A route that the kernel created for an interface's address.
const RTPROT_KERNEL: u8 = 2;
/// include/uapi/linux/if.h.
const IFF_POINTOPOINT: u32 = 0x10;

/// Lengths of struct nlmsghdr, struct rtmsg and struct ifinfomsg in bytes.
const HEADER_LEN: usize = 16;
const ROUTE_LEN: usize = 12;
const LINK_LEN: usize = 16;
/// Longer than any route's answer. A link's is longer, but only its start is used.
const ANSWER_LEN: usize = 1024;
/// Maximum number of answers read per request; there are several only if an earlier one was late.
const ANSWERS: u32 = 8;

/// Queries the host's routes, one destination at a time. The socket is opened once, so a guest that uses up
/// all descriptors can't make queries fail.
#[derive(Debug)]
pub(crate) struct Routes {
    socket: OwnedFd,
    sequence: u32,
}

/// A route in the kernel's answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Route {
    prefix_len: u8,
    protocol: u8,
    kind: u8,
    has_gateway: bool,
    interface: u32,
}

impl Routes {
    /// Opens a netlink socket.
    ///
    /// # Errors
    /// No descriptor is left, or a sandbox forbids netlink sockets.
    pub(crate) fn open() -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Whether `address` is the host's own or in a directly connected subnet; true if the host can't say.
    ///
    /// On a point-to-point link such as a VPN's, only the subnet of the link's own address counts: its other
    /// routes lead beyond the link, and may cover the whole internet in pieces.
    pub(crate) fn is_near(&mut self, address: IpAddr) -> bool {
        let path = match self.route(address, 0) {
            Ok(path) => path,
            // Unreachable, or the host lacks the address family. Connecting will report it to the guest.
            Err(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS) => return false,
            Err(Errno::AFNOSUPPORT | Errno::OPNOTSUPP) => return false,
            Err(_) => return true,
        };
        if path.kind != RTN_UNICAST {
            return true;
        }
        if path.has_gateway {
            return false;
        }
        let Ok(route) = self.route(address, RTM_F_FIB_MATCH) else { return true };
        route.is_of_subnet(|| self.is_point_to_point(path.interface))
    }

    fn route(&mut self, address: IpAddr, flags: u32) -> Result<Route, Errno> {
        let mut answer = [0; ANSWER_LEN];
        let body = route_question(address, flags);
        let len = self.ask(RTM_GETROUTE, &body, &mut answer)?;
        parse_route(&answer[..len]).ok_or(Errno::PROTO)
    }

    /// False if the kernel doesn't answer, because that permits less.
    fn is_point_to_point(&mut self, interface: u32) -> bool {
        let mut answer = [0; ANSWER_LEN];
        let mut body = [0; LINK_LEN];
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        let Ok(len) = self.ask(RTM_GETLINK, &body, &mut answer) else { return false };
        let flags = answer[..len].get(8..12).and_then(|flags| flags.try_into().ok());
        flags.is_some_and(|flags| u32::from_ne_bytes(flags) & IFF_POINTOPOINT != 0)
    }

    /// Sends a request and returns the length of the answer's body, which is at the start of `answer`. The
    /// kernel answers during send.
    fn ask(&mut self, kind: u16, body: &[u8], answer: &mut [u8; ANSWER_LEN]) -> Result<usize, Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = Vec::with_capacity(HEADER_LEN + body.len());
        question.extend(((HEADER_LEN + body.len()) as u32).to_ne_bytes());
        question.extend(kind.to_ne_bytes());
        question.extend(NLM_F_REQUEST.to_ne_bytes());
        question.extend(self.sequence.to_ne_bytes());
        question.extend([0; 4]);
        question.extend(body);
        rustix::net::send(&self.socket, &question, SendFlags::empty())?;
        for _ in 0..ANSWERS {
            let (len, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
            let (header, rest) = answer[..len].split_at_checked(HEADER_LEN).ok_or(Errno::PROTO)?;
            if header[8..12] != self.sequence.to_ne_bytes() {
                continue;
            }
            if header[4..6] == NLMSG_ERROR.to_ne_bytes() {
                let code = rest.get(..4).and_then(|code| code.try_into().ok()).ok_or(Errno::PROTO)?;
                return Err(Errno::from_raw_os_error(i32::from_ne_bytes(code).wrapping_neg()));
            }
            answer.copy_within(HEADER_LEN..len, 0);
            return Ok(len - HEADER_LEN);
        }
        Err(Errno::PROTO)
    }
}

impl Route {
    /// Whether a route without a gateway is for a subnet of its link.
    fn is_of_subnet(&self, is_point_to_point: impl FnOnce() -> bool) -> bool {
        // A default route without a gateway: the link leads to the internet.
        self.prefix_len != 0 && (self.protocol == RTPROT_KERNEL || !is_point_to_point())
    }
}

/// A struct rtmsg followed by the destination.
fn route_question(address: IpAddr, flags: u32) -> Vec<u8> {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (AddressFamily::INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AddressFamily::INET6, address.octets().to_vec()),
    };
    let mut body = vec![0; ROUTE_LEN];
    body[0] = family.as_raw() as u8;
    body[1] = 8 * bytes.len() as u8;
    body[8..].copy_from_slice(&flags.to_ne_bytes());
    body.extend((4 + bytes.len() as u16).to_ne_bytes());
    body.extend(RTA_DST.to_ne_bytes());
    body.extend(bytes);
    body
}

/// `None` if the message is truncated.
fn parse_route(body: &[u8]) -> Option<Route> {
    let (head, mut rest) = body.split_at_checked(ROUTE_LEN)?;
    let mut route = Route { prefix_len: head[1], protocol: head[5], kind: head[7], ..Route::default() };
    while let Some((head, _)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(4..len)?;
        match u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK {
            RTA_GATEWAY | RTA_VIA => route.has_gateway = true,
            RTA_OIF => route.interface = u32::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
        // Attributes are aligned to four bytes; the last one may lack padding.
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Without a netlink socket, nothing is known.
    fn deaf() -> Routes {
        let nowhere = std::os::unix::net::UnixDatagram::unbound().unwrap();
        Routes { socket: nowhere.into(), sequence: 0 }
    }

    #[test]
    fn own_address_is_near() {
        let mut routes = Routes::open().unwrap();
        // All of 127.0.0.0/8 is loopback.
        assert!(routes.is_near(Ipv4Addr::LOCALHOST.into()));
        assert!(routes.is_near(Ipv4Addr::new(127, 200, 3, 4).into()));
        assert_eq!(routes.route(Ipv4Addr::LOCALHOST.into(), 0).unwrap().kind, 2, "RTN_LOCAL");
    }

    /// On a host without IPv6 the address isn't near, because it doesn't exist.
    #[test]
    fn own_address_of_ipv6_is_near_where_there_is_one() {
        let has_ipv6 = fs::read_to_string("/proc/net/if_inet6").is_ok_and(|text| !text.is_empty());
        assert_eq!(Routes::open().unwrap().is_near(Ipv6Addr::LOCALHOST.into()), has_ipv6);
    }

    /// TEST-NET-2 (RFC 5737), to which hardly any host is connected.
    const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

    #[test]
    fn address_of_nobody_is_not_near() {
        assert!(!Routes::open().unwrap().is_near(NOBODY));
    }

    /// A router advertisement (RTPROT_RA, 9) or an administrator (RTPROT_STATIC, 4) may also add on-link
    /// routes; on a VPN, such routes lead beyond it.
    #[test]
    fn route_without_a_gateway_is_of_a_subnet_unless_it_is_default_or_a_vpns() {
        let route = |prefix_len, protocol| Route { prefix_len, protocol, ..Route::default() };
        assert!(route(24, RTPROT_KERNEL).is_of_subnet(|| false));
        assert!(route(32, RTPROT_KERNEL).is_of_subnet(|| true));
        assert!(route(64, 9).is_of_subnet(|| false));
        assert!(route(24, 4).is_of_subnet(|| false));
        assert!(!route(1, 4).is_of_subnet(|| true));
        assert!(!route(0, 4).is_of_subnet(|| false));
    }

    /// Loopback isn't point-to-point. Its index is 1 in every network namespace.
    #[test]
    fn loopback_is_not_point_to_point() {
        assert!(!Routes::open().unwrap().is_point_to_point(1));
    }

    #[test]
    fn address_that_the_host_says_nothing_of_is_near() {
        assert!(deaf().is_near(NOBODY));
    }

    /// Each of a thousand requests in a row gets its own answer.
    #[test]
    fn questions_in_a_row_are_each_answered() {
        let mut routes = Routes::open().unwrap();
        let near = (0..1000).filter(|_| routes.is_near(Ipv4Addr::LOCALHOST.into())).count();
        assert_eq!(near, 1000);
        assert!(!routes.is_near(NOBODY));
    }

    /// `ip route get 1.1.1.1` on a host with a router, as answered by Linux 6.1 on a little-endian host.
    #[test]
    fn route_with_a_gateway_is_parsed() {
        let mut answer = vec![2, 32, 0, 0, 254, 0, 0, 1, 0, 2, 0, 0];
        answer.extend([8, 0, 15, 0, 254, 0, 0, 0]);
        answer.extend([8, 0, 1, 0, 1, 1, 1, 1]);
        answer.extend([8, 0, 4, 0, 2, 0, 0, 0]);
        answer.extend([8, 0, 5, 0, 192, 168, 1, 1]);
        let route = parse_route(&answer).unwrap();
        assert_eq!(
            route,
            Route { prefix_len: 32, protocol: 0, kind: RTN_UNICAST, has_gateway: true, interface: 2 }
        );
    }

    #[test]
    fn route_that_ends_early_is_none() {
        assert_eq!(parse_route(&[2, 32, 0, 0]), None);
        let mut answer = vec![2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        answer.extend([12, 0, 5, 0, 192, 168]);
        assert_eq!(parse_route(&answer), None);
        let mut answer = vec![2, 32, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
        answer.extend([0, 0, 5, 0]);
        assert_eq!(parse_route(&answer), None);
    }
}
