//! What a part of a program needs of the host after everything it opens is open.

use std::path::PathBuf;

use crate::declare::Allow;
use crate::landlock::Ports;

/// What a part of a program, such as a device, needs once the walls stand. What isn't declared isn't permitted.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The system calls of its thread, besides [`BASE`](crate::BASE).
    pub calls: Vec<&'static [Allow]>,
    /// The sockets that it opens in the host's network, if any.
    pub network: Option<HostNetwork>,
    /// The beginnings of the paths of unix sockets that it connects to. A number follows.
    pub connects: Vec<PathBuf>,
    /// The files that it removes at the end.
    pub removes: Vec<PathBuf>,
}

/// The TCP ports of the host's network that a part of a program uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetwork {
    /// Those that it connects to.
    pub connect: Ports,
    /// Those that it listens at or connects from.
    pub bind: Ports,
}

impl Needs {
    /// Only system calls.
    #[must_use]
    pub fn calls(lists: &[&'static [Allow]]) -> Self {
        Self { calls: lists.to_vec(), ..Self::default() }
    }

    /// Adds what another part of the same program needs.
    pub fn add(&mut self, other: Self) {
        self.calls.extend(other.calls);
        self.connects.extend(other.connects);
        self.removes.extend(other.removes);
        if let Some(theirs) = other.network {
            self.network = Some(match self.network.take() {
                Some(ours) => ours.and(theirs),
                None => theirs,
            });
        }
    }
}

impl HostNetwork {
    fn and(self, other: Self) -> Self {
        Self { connect: self.connect.and(other.connect), bind: self.bind.and(other.bind) }
    }
}

impl Ports {
    /// The ports of both.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut ours), Self::Only(theirs)) => {
                ours.extend(theirs);
                Self::Only(ours)
            }
            _ => Self::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(connect: Ports, bind: Ports) -> Needs {
        Needs { network: Some(HostNetwork { connect, bind }), ..Needs::default() }
    }

    #[test]
    fn needs_of_two_parts_are_those_of_both() {
        const READ: &[Allow] = &[Allow::call(libc::SYS_pread64)];
        let mut needs = Needs { removes: vec!["a".into()], ..Needs::calls(&[READ]) };
        needs.add(network(Ports::Only(vec![80]), Ports::Only(vec![])));
        needs.add(Needs { connects: vec!["b_".into()], ..network(Ports::Only(vec![443]), Ports::Any) });
        assert_eq!((needs.calls.len(), needs.removes.len(), needs.connects.len()), (1, 1, 1));
        assert_eq!(
            needs.network,
            Some(HostNetwork { connect: Ports::Only(vec![80, 443]), bind: Ports::Any })
        );
    }

    #[test]
    fn part_without_a_network_takes_none_away() {
        let mut needs = network(Ports::Any, Ports::Any);
        needs.add(Needs::default());
        assert!(needs.network.is_some());
    }
}
