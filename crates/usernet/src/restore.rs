//! The end of a guest's connections when it is restored elsewhere: its host's sockets can't be.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::flow::NetworkFlow;
use crate::link::HEADER_LEN;
use crate::packet::finish_whole;
use crate::tcp::{OpenTcp, reset_of};
use crate::usernet::UserNet;

impl UserNet {
    /// The TCP connections that the guest regards as open, for [`reset_tcp`](Self::reset_tcp) of another network. Those whose
    /// handshake isn't complete aren't: the guest repeats it.
    pub fn open_tcp(&self) -> Vec<OpenTcp> {
        let tcp = self.table.flows().filter_map(|flow| match flow {
            NetworkFlow::Tcp(tcp) => tcp.open(),
            NetworkFlow::Udp(_) | NetworkFlow::ForwardedUdp(_) | NetworkFlow::Ping(_) => None,
        });
        tcp.collect()
    }

    /// Resets connections that the guest had with another network, as soon as it takes frames. The ends of each must be addresses of the
    /// same family. Segments of connections that this network doesn't know are answered with a reset anyway.
    pub fn reset_tcp(&mut self, open: Vec<OpenTcp>) {
        self.resets = VecDeque::from(open);
        self.resets.retain(|open| are_connectable(open.guest, open.remote));
    }

    /// Writes the next of those resets to `into`, which has room for it.
    pub(crate) fn next_reset(&mut self, into: &mut [u8]) -> Option<usize> {
        let segment = reset_of(&self.resets.pop_front()?);
        let packet = segment.packet();
        let frame = &mut into[..HEADER_LEN + packet.len()];
        frame[HEADER_LEN..].copy_from_slice(packet);
        finish_whole(&mut frame[HEADER_LEN..]);
        self.shared.link.seal(frame);
        Some(frame.len())
    }
}

fn are_connectable(guest: SocketAddr, remote: SocketAddr) -> bool {
    guest.is_ipv4() == remote.is_ipv4()
}
