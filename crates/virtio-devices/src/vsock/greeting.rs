//! The first line from a host program, `CONNECT <port>\n`, as defined by Firecracker.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

/// Maximum length of the line with its end in bytes: the word, a space, ten digits and a carriage return need
/// 20.
const LINE_MAX: usize = 32;
/// Maximum number of clients that haven't sent their line, if the host allows enough descriptors.
const CLIENTS_MAX: usize = 256;
/// How long a client may take for its line: it may be a person who types.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take if others wait.
const HASTE: Duration = Duration::from_secs(1);

/// Clients that haven't sent their line, each in a slot. When it is full, further ones wait in the kernel, and
/// those inside have little time.
#[derive(Debug)]
pub(super) struct Lobby {
    most: usize,
    clients: Vec<Option<Client>>,
    count: usize,
}

#[derive(Debug)]
struct Client {
    socket: UnixStream,
    since: Instant,
}

/// State of a client's line.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Port(u32),
    Unfinished,
    Wrong,
}

impl Lobby {
    /// For a device that may have `descriptors` open. A client needs its place only until its line has come,
    /// which usually takes no time: an eighth of them, and the rest is left to connections. So silent clients
    /// never prevent a connection, and connections never lock a client out of the lobby.
    pub(super) fn within(descriptors: usize) -> Self {
        Self { most: (descriptors / 8).clamp(1, CLIENTS_MAX), clients: Vec::new(), count: 0 }
    }

    /// Maximum number of its clients.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == self.most
    }

    /// Adds a client and returns its slot.
    pub(super) fn enter(&mut self, socket: UnixStream, since: Instant) -> usize {
        let free = self.clients.iter().position(Option::is_none);
        let place = free.unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        self.clients[place] = Some(Client { socket, since });
        self.count += 1;
        place
    }

    pub(super) fn socket(&self, place: usize) -> Option<&UnixStream> {
        Some(&self.clients.get(place)?.as_ref()?.socket)
    }

    /// The clients' places and sockets.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (usize, &UnixStream)> {
        let clients = self.clients.iter().enumerate();
        clients.filter_map(|(place, client)| Some((place, &client.as_ref()?.socket)))
    }

    /// Removes a client that has sent its line, and returns it with the port. A client that sent something
    /// else is closed, and so is one that is `gone` before its line is complete.
    pub(super) fn leave(&mut self, place: usize, is_gone: bool) -> Option<(UnixStream, u32)> {
        let line = read_line(self.socket(place)?);
        if line == Line::Unfinished && !is_gone {
            return None;
        }
        self.count -= 1;
        let client = self.clients[place].take()?;
        match line {
            Line::Port(port) => Some((client.socket, port)),
            Line::Unfinished | Line::Wrong => None,
        }
    }

    /// Closes clients that took too long.
    pub(super) fn expire(&mut self, now: Instant) {
        let patience = if self.is_full() { HASTE } else { PATIENCE };
        for place in &mut self.clients {
            self.count -= usize::from(place.take_if(|client| now >= client.since + patience).is_some());
        }
    }

    /// Restarts their time after a pause of the machine.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.clients.iter_mut().flatten().for_each(|client| client.since = now);
    }
}

/// Reads the line from the socket, and nothing after it.
fn read_line(socket: &UnixStream) -> Line {
    let mut bytes = [0; LINE_MAX];
    let peeked = match recv(socket, &mut bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, len)) => &bytes[..len],
        Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => return Line::Unfinished,
        Err(_) => return Line::Wrong,
    };
    let Some(end) = peeked.iter().position(|byte| *byte == b'\n') else {
        let can_end = !peeked.is_empty() && peeked.len() < LINE_MAX;
        return if can_end { Line::Unfinished } else { Line::Wrong };
    };
    let mut line = [0; LINE_MAX];
    // All of it is in the socket.
    match recv(socket, &mut line[..=end], RecvFlags::DONTWAIT) {
        Ok((_, len)) if len == end + 1 => parse(&line[..end]).map_or(Line::Wrong, Line::Port),
        _ => Line::Wrong,
    }
}

/// Words are separated by any white space, and the first is case-insensitive, as in Firecracker.
fn parse(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let is_connect = words.next()?.eq_ignore_ascii_case("connect");
    let digits = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
    let port = digits.parse().ok()?;
    (is_connect && words.next().is_none()).then_some(port)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn line_of_a_port_is_its_number() {
        assert_eq!(parse(b"CONNECT 52"), Some(52));
        assert_eq!(parse(b"connect  4294967295\r"), Some(u32::MAX));
    }

    #[test]
    fn line_of_something_else_is_none() {
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"CONNECT"), None);
        assert_eq!(parse(b"CONNECT x"), None);
        assert_eq!(parse(b"CONNECT +1"), None);
        assert_eq!(parse(b"CONNECT 4294967296"), None);
        assert_eq!(parse(b"CONNECT 1 2"), None);
        assert_eq!(parse(b"GET / HTTP/1.1"), None);
        assert_eq!(parse(b"CONNECT \xff"), None);
    }

    #[test]
    fn line_in_pieces_is_read_when_it_is_whole_and_nothing_behind_it() {
        let (mut client, mut socket) = UnixStream::pair().unwrap();
        assert_eq!(read_line(&socket), Line::Unfinished);
        client.write_all(b"CONN").unwrap();
        assert_eq!(read_line(&socket), Line::Unfinished);
        client.write_all(b"ECT 7").unwrap();
        assert_eq!(read_line(&socket), Line::Unfinished);
        client.write_all(b"\nhello\n").unwrap();
        assert_eq!(read_line(&socket), Line::Port(7));
        let mut rest = [0; 6];
        socket.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"hello\n");
    }

    #[test]
    fn line_without_an_end_is_wrong_when_it_is_too_long_or_the_client_goes() {
        let (mut client, socket) = UnixStream::pair().unwrap();
        client.write_all(&[b'x'; 31]).unwrap();
        assert_eq!(read_line(&socket), Line::Unfinished);
        client.write_all(b"x").unwrap();
        assert_eq!(read_line(&socket), Line::Wrong);
        let (client, socket) = UnixStream::pair().unwrap();
        drop(client);
        assert_eq!(read_line(&socket), Line::Wrong);
    }

    #[test]
    fn client_that_says_nothing_is_sent_away_in_the_end_and_sooner_if_others_wait() {
        // An eighth: two.
        let (mut lobby, start) = (Lobby::within(16), Instant::now());
        lobby.enter(UnixStream::pair().unwrap().0, start);
        lobby.expire(start + PATIENCE - HASTE);
        assert!(!lobby.is_empty());
        lobby.expire(start + PATIENCE);
        assert!(lobby.is_empty());
        lobby.enter(UnixStream::pair().unwrap().0, start);
        assert!(!lobby.is_full());
        lobby.enter(UnixStream::pair().unwrap().0, start);
        assert!(lobby.is_full());
        lobby.expire(start + HASTE);
        assert!(lobby.is_empty());
    }
}
