//! Counts what the rules refuse, and logs each destination once.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use crate::allow::Protocol;

/// Maximum number of destinations that are logged, so that a guest that scans addresses fills neither the log
/// nor memory.
const LOGGED: usize = 256;

/// The flows and datagrams that the rules refused.
#[derive(Debug, Default)]
pub(crate) struct RefusalLog {
    count: u64,
    logged: HashSet<(Protocol, SocketAddr)>,
    /// At most `LOGGED` and a final one, whether or not they are taken.
    notices: VecDeque<String>,
    /// The destinations of these notices.
    destinations: VecDeque<String>,
    is_silent: bool,
}

impl RefusalLog {
    /// Counts a refusal of `to`, and queues a notice if `to` is new. ICMP ignores the port.
    pub(crate) fn note(&mut self, protocol: Protocol, to: SocketAddr) {
        self.count = self.count.saturating_add(1);
        let key = match protocol {
            Protocol::Icmp => SocketAddr::new(to.ip(), 0),
            Protocol::Tcp | Protocol::Udp => to,
        };
        if self.is_silent || self.logged.contains(&(protocol, key)) {
            return;
        }
        if self.logged.len() < LOGGED {
            self.logged.insert((protocol, key));
            self.notices.push_back(notice(protocol, to));
            self.destinations.push_back(destination(protocol, to));
        } else {
            self.is_silent = true;
            self.notices.push_back(format!(
                "refused {protocol} to more than {LOGGED} destinations: further ones are only counted"
            ));
        }
    }

    /// Number of flows and datagrams refused.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The oldest refused destination that isn't taken yet.
    pub(crate) fn take_destination(&mut self) -> Option<String> {
        self.destinations.pop_front()
    }

    /// The oldest pending notice, for the log.
    pub(crate) fn take_notice(&mut self) -> Option<String> {
        self.notices.pop_front()
    }
}

fn notice(protocol: Protocol, to: SocketAddr) -> String {
    format!(r#"refused {}: no rule of "allow" permits it"#, destination(protocol, to))
}

fn destination(protocol: Protocol, to: SocketAddr) -> String {
    match protocol {
        Protocol::Icmp => format!("{protocol} {}", to.ip()),
        Protocol::Tcp | Protocol::Udp => format!("{protocol} {to}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(refused: &mut RefusalLog, protocol: Protocol, to: &str) {
        refused.note(protocol, to.parse().unwrap());
    }

    fn notices(refused: &mut RefusalLog) -> Vec<String> {
        std::iter::from_fn(|| refused.take_notice()).collect()
    }

    #[test]
    fn refused_destination_is_told_once_and_counted_each_time() {
        let mut refused = RefusalLog::default();
        note(&mut refused, Protocol::Tcp, "192.0.2.7:80");
        note(&mut refused, Protocol::Tcp, "192.0.2.7:80");
        assert_eq!(notices(&mut refused), [r#"refused tcp 192.0.2.7:80: no rule of "allow" permits it"#]);
        note(&mut refused, Protocol::Tcp, "192.0.2.7:80");
        assert_eq!(refused.take_notice(), None);
        assert_eq!(refused.count(), 3);
    }

    #[test]
    fn refused_destination_of_other_protocol_or_port_is_another() {
        let mut refused = RefusalLog::default();
        note(&mut refused, Protocol::Udp, "192.0.2.7:80");
        note(&mut refused, Protocol::Tcp, "192.0.2.7:80");
        note(&mut refused, Protocol::Tcp, "[2001:db8::7]:81");
        assert_eq!(
            notices(&mut refused),
            [
                r#"refused udp 192.0.2.7:80: no rule of "allow" permits it"#,
                r#"refused tcp 192.0.2.7:80: no rule of "allow" permits it"#,
                r#"refused tcp [2001:db8::7]:81: no rule of "allow" permits it"#,
            ]
        );
    }

    #[test]
    fn refused_icmp_is_told_without_port() {
        let mut refused = RefusalLog::default();
        note(&mut refused, Protocol::Icmp, "192.0.2.7:0");
        note(&mut refused, Protocol::Icmp, "192.0.2.7:9");
        note(&mut refused, Protocol::Icmp, "[2001:db8::7]:0");
        assert_eq!(
            notices(&mut refused),
            [
                r#"refused icmp 192.0.2.7: no rule of "allow" permits it"#,
                r#"refused icmp 2001:db8::7: no rule of "allow" permits it"#,
            ]
        );
    }

    /// A guest scans 65535 ports of one address: 256 are logged, then a note that no more will be.
    #[test]
    fn refused_scan_is_told_to_a_limit_and_counted_on() {
        let mut refused = RefusalLog::default();
        for port in 1..=u16::MAX {
            refused.note(Protocol::Tcp, SocketAddr::from(([192, 0, 2, 7], port)));
        }
        let notices = notices(&mut refused);
        assert_eq!(notices.len(), 257);
        assert_eq!(notices[255], r#"refused tcp 192.0.2.7:256: no rule of "allow" permits it"#);
        assert_eq!(notices[256], "refused tcp to more than 256 destinations: further ones are only counted");
        assert_eq!(refused.count(), 65535);
    }
}
