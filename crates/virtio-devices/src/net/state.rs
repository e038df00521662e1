//! The state of a network card.

use std::net::{IpAddr, SocketAddr};

use vmm_virtio::{FieldReader, FieldWriter, Persistent, State, StateError};

use super::Net;
use super::link::GuestTcp;
use super::mac::Mac;
use super::properties::LINK_UP;

/// Length of MAC address, status, number of pairs and MTU in the configuration.
const CONFIG_LEN: usize = 12;
/// Where `status` is in it, which follows the link.
const STATUS: std::ops::Range<usize> = 6..8;
/// The most connections that are reset: those of a network with all descriptors of a process (fs.nr_open), by far.
const CONNECTIONS_MAX: usize = 1 << 14;

/// What the driver knows of its card, and what the user backend has of the guest. Frames on their way aren't in it: a network may lose
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetState {
    config: [u8; CONFIG_LEN],
    /// Pairs that the driver uses.
    active: u16,
    /// The user has set the link down.
    is_unplugged: bool,
    /// Connections that end with the user backend's sockets.
    open: Vec<GuestTcp>,
}

impl State for NetState {
    const KIND: &'static str = "virtio.net";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.array(&self.config);
        fields.u16(self.active);
        fields.bool(self.is_unplugged);
        fields.list(&self.open, |fields, open| {
            save_end(fields, open.guest);
            save_end(fields, open.remote);
            fields.u32(open.next);
            fields.u32(open.wanted);
        });
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            config: fields.array("config")?,
            active: fields.u16("active_pairs")?,
            is_unplugged: fields.bool("unplugged")?,
            open: fields.list("connections", CONNECTIONS_MAX, |fields| {
                Ok(GuestTcp {
                    guest: load_end(fields, "guest")?,
                    remote: load_end(fields, "remote")?,
                    next: fields.u32("next")?,
                    wanted: fields.u32("wanted")?,
                })
            })?,
        })
    }
}

fn save_end(fields: &mut FieldWriter, end: SocketAddr) {
    fields.bool(end.is_ipv6());
    match end.ip() {
        IpAddr::V4(address) => fields.array(&address.octets()),
        IpAddr::V6(address) => fields.array(&address.octets()),
    }
    fields.u16(end.port());
}

fn load_end(fields: &mut FieldReader<'_>, name: &str) -> Result<SocketAddr, StateError> {
    let address: IpAddr = match fields.bool(name)? {
        false => fields.array::<4>(name)?.into(),
        true => fields.array::<16>(name)?.into(),
    };
    Ok(SocketAddr::new(address, fields.u16(name)?))
}

/// A field of the configuration, and how it is shown.
type Shown = (&'static str, fn(&[u8; CONFIG_LEN]) -> String);

fn mac(config: &[u8; CONFIG_LEN]) -> String {
    let [a, b, c, d, e, f, ..] = *config;
    Mac([a, b, c, d, e, f]).to_string()
}

fn number(config: &[u8; CONFIG_LEN], at: usize) -> String {
    u16::from_le_bytes([config[at], config[at + 1]]).to_string()
}

impl Net {
    fn config(&self) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        self.space.read(0, &mut config);
        config
    }
}

impl Persistent for Net {
    type State = NetState;

    fn save(&mut self) -> Result<NetState, String> {
        let mut open = self.pairs[0].link.open_tcp();
        open.truncate(CONNECTIONS_MAX);
        // There are at most 2^15 pairs (virtio 1.2 §5.1.4).
        Ok(NetState {
            config: self.config(),
            active: self.active as u16,
            is_unplugged: self.is_unplugged,
            open,
        })
    }

    fn load(&mut self, state: NetState) -> Result<(), StateError> {
        let shown: [Shown; 3] =
            [("mac", mac), ("pairs", |config| number(config, 8)), ("mtu", |config| number(config, 10))];
        let own = self.config();
        for (field, show) in shown {
            let (ours, theirs) = (show(&own), show(&state.config));
            if ours != theirs {
                return Err(StateError::new(field, format!("is {theirs}, that of this card {ours}")));
            }
        }
        let [status, reserved] = [state.config[STATUS.start], state.config[STATUS.start + 1]];
        if status & !LINK_UP != 0 || reserved != 0 {
            return Err(StateError::new("status", "has bits that this card doesn't have"));
        }
        if !(1..=self.pairs.len()).contains(&usize::from(state.active)) {
            let problem = format!("{} isn't from 1 to {}", state.active, self.pairs.len());
            return Err(StateError::new("active_pairs", problem));
        }
        if !state.open.is_empty() && !self.pairs[0].link.reset_tcp(state.open) {
            return Err(StateError::new(
                "connections",
                "are those of the user backend, which this card hasn't",
            ));
        }
        self.active = state.active.into();
        self.is_unplugged = state.is_unplugged;
        // The link's state that the driver has last read: a change is noticed at the start.
        self.space.update(|bytes| bytes[STATUS].copy_from_slice(&state.config[STATUS]));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};

    use vmm_virtio::{Buffers, Needs};

    use super::*;
    use crate::net::link::Link;
    use crate::net::properties::NetProperties;

    /// A link without traffic.
    struct Silent(io::PipeReader);

    impl Link for Silent {
        fn needs(&self) -> Needs {
            Needs::default()
        }

        fn send(&mut self, _frame: &Buffers<'_>) -> io::Result<()> {
            Ok(())
        }

        fn receive(&mut self, _into: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn set_offloads(&mut self, _offloads: u32) -> io::Result<()> {
            Ok(())
        }

        fn set_attached(&mut self, _is_attached: bool) -> io::Result<()> {
            Ok(())
        }
    }

    /// A card with two pairs.
    fn card() -> Net {
        let link = || Box::new(Silent(io::pipe().unwrap().0)) as Box<dyn Link>;
        let properties = NetProperties { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: None, pairs: 2, offloads: 0 };
        Net::new(vec![link(), link()], properties, None, String::new()).unwrap()
    }

    fn state_of(card: &mut Net) -> NetState {
        Persistent::save(card).unwrap()
    }

    fn refusal(state: NetState) -> String {
        let mut fresh = card();
        let before = state_of(&mut fresh);
        let refusal = Persistent::load(&mut fresh, state).unwrap_err().to_string();
        assert_eq!(state_of(&mut fresh), before, "nothing has changed");
        refusal
    }

    #[test]
    fn pairs_that_the_driver_uses_are_kept() {
        let mut source = card();
        source.active = 2;
        let state = state_of(&mut source);
        let mut fresh = card();
        Persistent::load(&mut fresh, state.clone()).unwrap();
        assert_eq!((fresh.active, state_of(&mut fresh)), (2, state));
    }

    #[test]
    fn pairs_that_there_aren_t_are_refused() {
        for active in [0, 3, u16::MAX] {
            let text = refusal(NetState { active, ..state_of(&mut card()) });
            assert_eq!(text, format!("active_pairs: {active} isn't from 1 to 2"));
        }
    }

    #[test]
    fn status_with_unknown_bits_is_refused() {
        let mut state = state_of(&mut card());
        state.config[STATUS.start] = 2;
        assert_eq!(refusal(state), "status: has bits that this card doesn't have");
    }

    #[test]
    fn connections_of_another_backend_are_refused() {
        let guest = "10.0.2.15:5000".parse().unwrap();
        let open = vec![GuestTcp { guest, remote: guest, next: 1, wanted: 2 }];
        let text = refusal(NetState { open, ..state_of(&mut card()) });
        assert_eq!(text, "connections: are those of the user backend, which this card hasn't");
    }
}
