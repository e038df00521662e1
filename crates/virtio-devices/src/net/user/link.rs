//! The link to the network stack.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use vmm_usernet::{
    Allow, Forward, OpenError as UserError, OpenTcp, Resolver, Settings, UndeliveredTcp, UserNet,
};
use vmm_virtio::{Buffers, DeviceError, Needs, Undelivered};

use crate::descriptors;
use crate::net::config::{Config, Rules};
use crate::net::link::{GuestTcp, Link};
use crate::net::mac::Mac;
use crate::net::properties;
use crate::net::sizes::{FRAME_LEN, HEADER_LEN};

/// Default MTU: the longest IP packet, less what makes it a frame with an Ethernet header, rounded down to
/// words. The cost per packet is constant, so the longest packets are the fastest.
const MTU: u16 = 65520;

/// Field offsets of struct virtio_net_hdr_v1 (virtio 1.2 §5.1.6).
const CSUM_START: usize = 6;
const CSUM_OFFSET: usize = 8;

/// The link.
struct UserLink {
    net: UserNet,
    /// The frame being sent.
    frame: Vec<u8>,
}

/// Creates the network stack from the config; also returns its MTU.
pub(in crate::net) fn open(config: &Config, mac: Mac) -> Result<(Box<dyn Link>, u16), DeviceError> {
    let mtu = config.mtu.map_or(MTU, |mtu| mtu.get() as u16);
    let settings = Settings {
        allow: allow(config.allow.as_ref())?,
        forwards: config.forward.iter().flatten().map(|given| given.0.clone()).collect(),
        resolver: config.dns.unwrap_or(Resolver::OfHost),
        mtu,
        guest_mac: mac.0,
        flows: descriptors::share(),
    };
    let mut net = UserNet::open(settings).map_err(|error| refusal(config, error))?;
    net.set_driven(false);
    Ok((Box::new(UserLink { net, frame: vec![0; FRAME_LEN - HEADER_LEN] }), mtu))
}

fn allow(rules: Option<&Rules>) -> Result<Allow, DeviceError> {
    match rules {
        None => Ok(Allow::parse(&[]).expect("no rule is wrong")),
        Some(Rules::All) => Ok(Allow::all()),
        Some(Rules::List(rules)) => {
            let rules: Vec<String> = rules.iter().map(|rule| rule.0.clone()).collect();
            Allow::parse(&rules)
                .map_err(|error| DeviceError::config(&format!("allow[{}]", error.index()), error))
        }
    }
}

fn refusal(config: &Config, error: UserError) -> DeviceError {
    match &error {
        UserError::Mtu(_) => DeviceError::config("mtu", error),
        UserError::Forward { forward, .. } => {
            let refused = Forward::parse(forward).ok();
            let place = config.forward.iter().flatten().position(|given| Some(&given.0) == refused.as_ref());
            let field = place.map_or("forward".to_owned(), |index| format!("forward[{index}]"));
            DeviceError::host(&field, error)
        }
        UserError::Watch(_) => DeviceError::host("backend", error),
        UserError::Routes(_) => DeviceError::host("allow", error),
    }
}

impl Link for UserLink {
    fn needs(&self) -> Needs {
        self.net.needs()
    }

    fn send(&mut self, frame: &Buffers<'_>) -> io::Result<()> {
        // The header is ignored: checksums aren't verified, and packets aren't segmented here.
        let body = frame.split_at(HEADER_LEN as u64).map(|(_, body)| body);
        let body = body.ok_or(io::ErrorKind::InvalidInput)?;
        let len = usize::try_from(body.len()).ok().filter(|len| *len <= self.frame.len());
        let copy = &mut self.frame[..len.ok_or(io::ErrorKind::InvalidInput)?];
        body.read(copy).map_err(io::Error::other)?;
        self.net.send(copy);
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (header, body) = into.split_at_mut(HEADER_LEN);
        let frame = self.net.receive(body).ok_or(io::ErrorKind::WouldBlock)?;
        header.fill(0);
        if let Some(checksum) = frame.checksum {
            leave_checksum(header, checksum.start, checksum.offset);
        }
        Ok(HEADER_LEN + frame.len)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.net.as_fd()
    }

    fn set_offloads(&mut self, offloads: u32) -> io::Result<()> {
        self.net.set_partial_checksums(offloads & properties::USER_OFFLOADS != 0);
        Ok(())
    }

    fn set_attached(&mut self, _is_attached: bool) -> io::Result<()> {
        Ok(())
    }

    fn set_driven(&mut self, is_driven: bool) {
        self.net.set_driven(is_driven);
    }

    fn forget_guest(&mut self) {
        self.net.forget_guest();
    }

    fn deliver(&mut self, patience: Duration) -> Vec<Undelivered> {
        let left = self.net.deliver(patience).into_iter();
        left.map(|UndeliveredTcp { guest, remote, len, sent_len }| Undelivered {
            connection: format!("connection of {guest} and {remote}"),
            len: len as u64,
            sent_len: sent_len as u64,
        })
        .collect()
    }

    fn take_notice(&mut self) -> Option<String> {
        self.net.take_notice()
    }

    fn take_refused(&mut self) -> Option<String> {
        self.net.take_refused()
    }

    fn refused(&self) -> u64 {
        self.net.refused()
    }

    fn open_tcp(&self) -> Vec<GuestTcp> {
        let open = self.net.open_tcp().into_iter();
        open.map(|OpenTcp { guest, remote, next, wanted }| GuestTcp { guest, remote, next, wanted }).collect()
    }

    fn reset_tcp(&mut self, open: Vec<GuestTcp>) -> bool {
        let open = open.into_iter();
        let open =
            open.map(|GuestTcp { guest, remote, next, wanted }| OpenTcp { guest, remote, next, wanted });
        self.net.reset_tcp(open.collect());
        true
    }

    fn answers(&self) -> bool {
        true
    }
}

/// Marks a frame with a zero header as having a partial checksum, which the guest has to complete.
fn leave_checksum(header: &mut [u8], start: u16, offset: u16) {
    header[properties::FLAGS] = properties::HDR_F_NEEDS_CSUM;
    header[CSUM_START..CSUM_START + 2].copy_from_slice(&start.to_le_bytes());
    header[CSUM_OFFSET..CSUM_OFFSET + 2].copy_from_slice(&offset.to_le_bytes());
}
