//! A client's requests, one a line.

use serde::Deserialize;
use serde_json::Value;
use vmm_config::{CommandError, ErrorCode, Request};

/// Bytes of the longest line. A request has a few hundred.
pub(crate) const LINE_MAX: usize = 16 << 10;

/// The beginning of a line whose end hasn't come yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Vec<u8>);

/// Why a line isn't a request.
#[derive(Debug, PartialEq)]
pub(crate) struct Refusal {
    /// The line's id, if it has one.
    pub(crate) id: Option<u64>,
    pub(crate) error: CommandError,
    /// Nothing after it can be understood.
    pub(crate) is_final: bool,
}

impl Inbox {
    /// Room for the next bytes that are received: with what is there, one byte more than a line may have.
    pub(crate) fn room(&self) -> usize {
        LINE_MAX + 1 - self.0.len().min(LINE_MAX)
    }

    pub(crate) fn extend(&mut self, received: &[u8]) {
        self.0.extend_from_slice(received);
    }

    /// Takes the next whole line, if it has come. Empty lines are skipped.
    pub(crate) fn take_request(&mut self) -> Option<Result<Request, Refusal>> {
        loop {
            let Some(end) = self.0.iter().position(|byte| *byte == b'\n') else {
                let message = format!("a request has at most {LINE_MAX} bytes, and ends with a newline");
                let is_too_long = self.0.len() > LINE_MAX;
                return is_too_long.then(|| Err(Refusal { is_final: true, ..Refusal::new(None, message) }));
            };
            let line: Vec<u8> = self.0.drain(..=end).collect();
            let line = line[..end].trim_ascii();
            if !line.is_empty() {
                return Some(parse(line));
            }
        }
    }
}

impl Refusal {
    fn new(id: Option<u64>, message: impl Into<String>) -> Self {
        Self { id, error: CommandError::new(ErrorCode::InvalidRequest, message), is_final: false }
    }
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let value: Value =
        serde_json::from_slice(line).map_err(|error| Refusal::new(None, format!("not JSON: {error}")))?;
    let id = value.get("id").and_then(Value::as_u64);
    Request::deserialize(value).map_err(|error| Refusal::new(id, error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmm_config::Command;

    use super::*;

    fn inbox(bytes: &[u8]) -> Inbox {
        let mut inbox = Inbox::default();
        inbox.extend(bytes);
        inbox
    }

    #[test]
    fn requests_come_in_any_pieces() {
        let mut inbox = Inbox::default();
        let text = b"\n{\"id\": 1, \"command\": \"pause\"}\r\n{\"id\":2,\"command\":\"resume\"}\n{\"id\"";
        let mut found = Vec::new();
        for piece in text.chunks(7) {
            inbox.extend(piece);
            found.extend(std::iter::from_fn(|| inbox.take_request()));
        }
        let request = |id, command| Ok(Request { id, command });
        assert_eq!(found, [request(1, Command::Pause), request(2, Command::Resume)]);
    }

    #[test]
    fn line_that_is_no_request_is_refused_with_its_id() {
        let refusal = inbox(b"{\"id\": 7, \"command\": \"paws\"}\n").take_request().unwrap().unwrap_err();
        assert_eq!((refusal.id, refusal.is_final), (Some(7), false));
        assert!(refusal.error.message.starts_with("unknown variant `paws`"), "{refusal:?}");
        let refusal = inbox(b"pause\n").take_request().unwrap().unwrap_err();
        assert_eq!(refusal.id, None);
        assert!(refusal.error.message.starts_with("not JSON: "), "{refusal:?}");
    }

    #[test]
    fn line_without_an_end_is_refused_for_good() {
        let mut inbox = inbox(&[b'x'; LINE_MAX]);
        assert_eq!(inbox.take_request(), None);
        assert_eq!(inbox.room(), 1);
        inbox.extend(b"x");
        assert!(inbox.take_request().unwrap().unwrap_err().is_final);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut inbox = inbox(&bytes);
            let lines = std::iter::from_fn(|| inbox.take_request()).count();
            prop_assert!(lines <= bytes.iter().filter(|byte| **byte == b'\n').count());
        }
    }
}
