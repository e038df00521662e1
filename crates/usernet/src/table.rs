//! The flow table: flows by number and by addresses, and which of them have work to do.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use crate::flow::{Key, NetworkFlow};

/// Identifies a flow or a listener. A flow's token isn't reused, so late events for it are ignored.
pub(crate) type Token = u64;

/// Set in tokens of listeners.
const LISTENER: Token = 1 << 63;

/// The flows of a network, at most `limit`.
#[derive(Debug)]
pub(crate) struct Table {
    limit: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_key: HashMap<Key, Token>,
    /// Round robin: after its turn a flow goes to the end. May contain removed flows.
    ready: VecDeque<Token>,
    due: BTreeSet<(Instant, Token)>,
    /// The listeners in `due`.
    waiting: HashSet<Token>,
    /// Flows that may be replaced, least recently used first. May contain removed flows.
    replaceable: VecDeque<Token>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    entry: Option<TrackedFlow>,
}

#[derive(Debug)]
struct TrackedFlow {
    key: Key,
    flow: NetworkFlow,
    is_ready: bool,
    due: Option<Instant>,
}

impl Table {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            ready: VecDeque::new(),
            due: BTreeSet::new(),
            waiting: HashSet::new(),
            replaceable: VecDeque::new(),
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() - self.free.len() >= self.limit
    }

    /// Maximum number of incoming connections. Clients of forwarded ports must not take the network from the
    /// guest.
    pub(crate) fn share(&self) -> usize {
        self.limit - self.limit / 4
    }

    /// The token of the next flow: its socket is watched before it is inserted.
    pub(crate) fn next_token(&self) -> Token {
        match self.free.last() {
            Some(&index) => token(index, self.slots[index as usize].generation),
            None => token(self.slots.len() as u32, 0),
        }
    }

    /// Inserts a flow and makes it ready. There must be room, and no flow with this key.
    pub(crate) fn insert(&mut self, key: Key, flow: NetworkFlow) -> Token {
        let token = self.next_token();
        let is_replaceable = !matches!(flow, NetworkFlow::Tcp(_));
        let entry = Some(TrackedFlow { key, flow, is_ready: false, due: None });
        match self.free.pop() {
            Some(index) => self.slots[index as usize].entry = entry,
            None => self.slots.push(Slot { generation: 0, entry }),
        }
        self.by_key.insert(key, token);
        if is_replaceable {
            if self.replaceable.len() > 2 * self.limit {
                let slots = &self.slots;
                self.replaceable.retain(|&token| live(slots, token).is_some());
            }
            self.replaceable.push_back(token);
        }
        self.make_ready(token);
        token
    }

    pub(crate) fn find(&self, key: &Key) -> Option<Token> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&mut self, token: Token) -> Option<&mut NetworkFlow> {
        Some(&mut self.entry(token)?.flow)
    }

    /// All flows, in no particular order.
    pub(crate) fn flows(&self) -> impl Iterator<Item = &NetworkFlow> {
        self.slots.iter().filter_map(|slot| Some(&slot.entry.as_ref()?.flow))
    }

    pub(crate) fn flows_mut(&mut self) -> impl Iterator<Item = &mut NetworkFlow> {
        self.slots.iter_mut().filter_map(|slot| Some(&mut slot.entry.as_mut()?.flow))
    }

    /// The tokens of all flows, in no particular order.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        let slots = self.slots.iter().enumerate();
        let used = slots.filter(|(_, slot)| slot.entry.is_some());
        used.map(|(index, slot)| token(index as u32, slot.generation)).collect()
    }

    pub(crate) fn get_with_key(&mut self, token: Token) -> Option<(Key, &mut NetworkFlow)> {
        let entry = self.entry(token)?;
        Some((entry.key, &mut entry.flow))
    }

    /// Hides a flow from the guest, which may open another one with its addresses. It still counts as one.
    pub(crate) fn detach(&mut self, token: Token) {
        if let Some(key) = self.entry(token).map(|entry| entry.key)
            && self.by_key.get(&key) == Some(&token)
        {
            self.by_key.remove(&key);
        }
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<NetworkFlow> {
        self.detach(token);
        self.entry(token)?;
        let slot = &mut self.slots[index(token)];
        let entry = slot.entry.take()?;
        // 30 bits count more flows than a guest opens in years.
        slot.generation = (slot.generation + 1) & 0x3fff_ffff;
        self.free.push(index(token) as u32);
        if let Some(due) = entry.due {
            self.due.remove(&(due, token));
        }
        Some(entry.flow)
    }

    /// A datagram flow that hasn't been used recently, to be replaced by another.
    ///
    /// Each flow used since it was last examined gets a second chance (the clock algorithm), so all are
    /// examined at most once.
    pub(crate) fn replaceable(&mut self) -> Option<Token> {
        for _ in 0..self.replaceable.len() {
            let token = self.replaceable.pop_front()?;
            let Some(flow) = self.get(token) else { continue };
            match flow.take_used() {
                Some(false) => return Some(token),
                Some(true) => self.replaceable.push_back(token),
                None => {}
            }
        }
        // All were used; the first has waited longest.
        self.replaceable.pop_front()
    }

    /// The connection that has been quiet longest, if that is since `before` or earlier.
    pub(crate) fn longest_quiet(&self, before: Instant) -> Option<Token> {
        let quiet = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let NetworkFlow::Tcp(tcp) = &slot.entry.as_ref()?.flow else { return None };
            let since = tcp.quiet_since().filter(|since| *since <= before)?;
            Some((since, token(index as u32, slot.generation)))
        });
        Some(quiet.min()?.1)
    }

    /// Gives a flow or listener a turn.
    pub(crate) fn make_ready(&mut self, token: Token) {
        if token & LISTENER == 0 {
            match self.entry(token) {
                Some(entry) if !entry.is_ready => entry.is_ready = true,
                _ => return,
            }
        } else if self.ready.contains(&token) {
            return;
        }
        if self.ready.len() > 2 * self.limit + 64 {
            let slots = &self.slots;
            self.ready.retain(|&token| token & LISTENER != 0 || live(slots, token).is_some());
        }
        self.ready.push_back(token);
    }

    /// The flow or listener whose turn it is.
    pub(crate) fn next_ready(&mut self) -> Option<Token> {
        loop {
            let token = self.ready.pop_front()?;
            if token & LISTENER != 0 {
                return Some(token);
            }
            if let Some(entry) = self.entry(token) {
                entry.is_ready = false;
                return Some(token);
            }
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Gives a flow or listener a turn at `deadline` or earlier.
    pub(crate) fn wake_at(&mut self, token: Token, deadline: Instant) {
        if token & LISTENER != 0 {
            // All wait for the same period, so the first deadline is the earliest.
            if self.waiting.insert(token) {
                self.due.insert((deadline, token));
            }
            return;
        }
        let Some(entry) = self.entry(token) else { return };
        let before = entry.due;
        if before.is_some_and(|due| due <= deadline) {
            return;
        }
        entry.due = Some(deadline);
        if let Some(due) = before {
            self.due.remove(&(due, token));
        }
        self.due.insert((deadline, token));
    }

    /// Makes those ready whose deadline has passed.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(&(deadline, token)) = self.due.first() {
            if deadline > now {
                return;
            }
            self.due.pop_first();
            self.waiting.remove(&token);
            if let Some(entry) = self.entry(token) {
                entry.due = None;
            }
            self.make_ready(token);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|&(deadline, _)| deadline)
    }

    fn entry(&mut self, token: Token) -> Option<&mut TrackedFlow> {
        let slot = self.slots.get_mut(index(token))?;
        if slot.generation == generation(token) { slot.entry.as_mut() } else { None }
    }
}

/// The token of the listener with this index.
pub(crate) fn listener(number: usize) -> Token {
    LISTENER | number as Token
}

/// The index of a listener; `None` for a flow's token.
pub(crate) fn listener_number(token: Token) -> Option<usize> {
    (token & LISTENER != 0).then_some((token & !LISTENER) as usize)
}

fn live(slots: &[Slot], token: Token) -> Option<&TrackedFlow> {
    let slot = slots.get(index(token))?;
    if slot.generation == generation(token) { slot.entry.as_ref() } else { None }
}

fn token(index: u32, generation: u32) -> Token {
    Token::from(generation) << 32 | Token::from(index)
}

fn index(token: Token) -> usize {
    (token & 0xffff_ffff) as usize
}

fn generation(token: Token) -> u32 {
    (token >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::allow::Protocol;
    use crate::udp::ForwardedUdp;

    fn key(port: u16) -> Key {
        let guest = ([10, 0, 2, 15], port).into();
        Key { protocol: Protocol::Udp, guest, remote: ([10, 0, 2, 2], 9).into() }
    }

    /// A flow that doesn't need the network; its descriptor is never used.
    fn flow() -> NetworkFlow {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        NetworkFlow::ForwardedUdp(ForwardedUdp::new(0, Arc::new(socket.into()), ([127, 0, 0, 1], 9).into()))
    }

    #[test]
    fn token_of_removed_flow_finds_nobody_later() {
        let mut table = Table::new(4);
        let old = table.insert(key(1), flow());
        table.remove(old);
        let new = table.insert(key(2), flow());
        assert_eq!(index(old), index(new));
        assert!(table.get(old).is_none());
        assert!(table.get(new).is_some());
        assert_eq!(table.find(&key(1)), None);
    }

    #[test]
    fn detached_flow_leaves_its_key_to_another_and_still_counts() {
        let mut table = Table::new(2);
        let old = table.insert(key(1), flow());
        table.detach(old);
        assert_eq!(table.find(&key(1)), None);
        let new = table.insert(key(1), flow());
        assert!(table.is_full());
        assert_eq!(table.tokens(), [old, new]);
        table.remove(old);
        assert_eq!(table.find(&key(1)), Some(new));
        assert!(!table.is_full());
    }

    #[test]
    fn ready_flows_have_turns_in_order() {
        let mut table = Table::new(4);
        let tokens = [1, 2, 3].map(|port| table.insert(key(port), flow()));
        assert_eq!(tokens.map(|_| table.next_ready().unwrap()), tokens);
        assert_eq!(table.next_ready(), None);
        table.make_ready(tokens[1]);
        table.make_ready(tokens[0]);
        table.make_ready(tokens[1]);
        assert_eq!([(); 3].map(|()| table.next_ready()), [Some(tokens[1]), Some(tokens[0]), None]);
    }

    #[test]
    fn replaceable_flow_is_one_not_used_since() {
        let mut table = Table::new(4);
        let tokens = [1, 2, 3].map(|port| table.insert(key(port), flow()));
        // All are new, and this call marks them as seen.
        assert_eq!(table.replaceable(), Some(tokens[0]));
        table.remove(tokens[0]);
        let Some(NetworkFlow::ForwardedUdp(second)) = table.get(tokens[1]) else { panic!("it was removed") };
        second.age.used();
        assert_eq!(table.replaceable(), Some(tokens[2]));
    }

    #[test]
    fn deadline_earlier_replaces_later() {
        let mut table = Table::new(4);
        let token = table.insert(key(1), flow());
        table.next_ready();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        table.wake_at(token, now + 3 * second);
        table.wake_at(token, now + second);
        table.wake_at(token, now + 2 * second);
        assert_eq!(table.next_deadline(), Some(now + second));
        table.wake(now);
        assert!(!table.has_ready());
        table.wake(now + second);
        assert_eq!(table.next_ready(), Some(token));
        assert_eq!(table.next_deadline(), None);
    }

    /// Flows that come and go without a turn must not grow the lists.
    #[test]
    fn lists_of_flows_that_are_gone_are_bounded() {
        let mut table = Table::new(2);
        for port in 0..1000 {
            let token = table.insert(key(port), flow());
            table.remove(token);
        }
        assert!(table.ready.len() <= 2 * 2 + 65 && table.replaceable.len() <= 2 * 2 + 1);
    }

    /// Each flow that ends gives a turn to a listener that is out of descriptors, and each such turn sets a
    /// deadline.
    #[test]
    fn deadlines_of_listener_are_one() {
        let mut table = Table::new(4);
        let now = Instant::now();
        let second = Duration::from_secs(1);
        table.wake_at(listener(1), now + 2 * second);
        for number in 1..1000 {
            table.wake_at(listener(0), now + number * second);
        }
        assert_eq!(table.due.len(), 2);
        table.wake(now + second);
        assert_eq!([table.next_ready(), table.next_ready()], [Some(listener(0)), None]);
        table.wake_at(listener(0), now + 3 * second);
        table.wake(now + 3 * second);
        assert_eq!([(); 3].map(|()| table.next_ready()), [Some(listener(1)), Some(listener(0)), None]);
    }
}
