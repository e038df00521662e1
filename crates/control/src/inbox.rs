//! A client's requests, one a line.

use serde::Deserialize;
use serde_json::Value;
use vmm_config::{CommandError, ErrorCode, Request};

use crate::closer::ClientFiles;

/// Bytes of the longest line. A request has a few hundred.
pub(crate) const LINE_MAX: usize = 16 << 10;

/// Files of a request: a snapshot has two, and one for each of up to 32 disks.
pub(crate) const FILES_MAX: usize = 2 + 32;

/// Lines that haven't been taken yet, and the beginning of one whose end hasn't come yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    /// In the order of their lines.
    attachments: Vec<Attachment>,
}

/// The files of one message.
#[derive(Debug)]
struct Attachment {
    /// Index of the last byte that was received with them, which is in their line.
    at: usize,
    /// An error refuses the request that they belong to.
    files: Files,
}

/// The files of a message, or why they weren't taken.
pub(crate) type Files = Result<ClientFiles, CommandError>;

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
        LINE_MAX + 1 - self.bytes.len().min(LINE_MAX)
    }

    /// Appends bytes, at least one, and the files that were received with them, if there were any.
    pub(crate) fn extend(&mut self, received: &[u8], files: Option<Files>) {
        self.bytes.extend_from_slice(received);
        let at = self.bytes.len().saturating_sub(1);
        self.attachments.extend(files.map(|files| Attachment { at, files }));
    }

    /// Takes the next whole line, if it has come, and the files that its command needs. Empty lines are skipped.
    pub(crate) fn take_request(&mut self) -> Option<Result<(Request, Option<ClientFiles>), Refusal>> {
        loop {
            let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
                let message = format!("a request has at most {LINE_MAX} bytes, and ends with a newline");
                let is_too_long = self.bytes.len() > LINE_MAX;
                return is_too_long.then(|| Err(Refusal { is_final: true, ..Refusal::new(None, message) }));
            };
            let line: Vec<u8> = self.bytes.drain(..=end).collect();
            let files = self.take_files(line.len());
            let line = line[..end].trim_ascii();
            if !line.is_empty() {
                return Some(parse(line).and_then(|request| attach(request, files)));
            }
        }
    }

    /// Whether there are files for a line whose end hasn't come yet.
    pub(crate) fn has_unfinished_files(&self) -> bool {
        let begins = self.unfinished_from();
        self.attachments.iter().any(|attachment| attachment.at >= begins && attachment.files.is_ok())
    }

    /// Refuses the files for a line whose end hasn't come yet, and the line if it ends.
    pub(crate) fn refuse_unfinished_files(&mut self, error: &CommandError) {
        let begins = self.unfinished_from();
        for attachment in self.attachments.iter_mut().filter(|attachment| attachment.at >= begins) {
            attachment.files = Err(error.clone());
        }
    }

    /// Index of the first byte of a line whose end hasn't come yet.
    fn unfinished_from(&self) -> usize {
        self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
    }

    /// Takes the files of the line that had the first `len` bytes, which have been taken.
    fn take_files(&mut self, len: usize) -> Option<Files> {
        let count = self.attachments.iter().take_while(|attachment| attachment.at < len).count();
        let mut of_line = self.attachments.drain(..count).map(|attachment| attachment.files);
        let files = of_line.next();
        let files = if of_line.next().is_some() { Some(Err(too_many())) } else { files };
        drop(of_line);
        self.attachments.iter_mut().for_each(|attachment| attachment.at -= len);
        files
    }
}

/// Why files of a request are refused.
pub(crate) fn too_many() -> CommandError {
    let message = format!("a request has at most {FILES_MAX} file descriptors, which come in one message");
    CommandError::new(ErrorCode::InvalidRequest, message)
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

/// Gives a request the files that its command needs; others are closed.
fn attach(request: Request, files: Option<Files>) -> Result<(Request, Option<ClientFiles>), Refusal> {
    match files.transpose() {
        Ok(files) => {
            let files = files.filter(|_| request.command.descriptors() > 0);
            Ok((request, files))
        }
        Err(error) => Err(Refusal { id: Some(request.id), error, is_final: false }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vmm_config::{Command, SnapshotCommand};

    use super::*;
    use crate::closer::Closer;

    fn inbox(bytes: &[u8]) -> Inbox {
        let mut inbox = Inbox::default();
        inbox.extend(bytes, None);
        inbox
    }

    /// The next request, and the number of its files.
    fn taken(inbox: &mut Inbox) -> Option<Result<(Request, usize), Refusal>> {
        let taken = inbox.take_request()?;
        Some(taken.map(|(request, files)| (request, files.map_or(0, |files| files.len()))))
    }

    #[test]
    fn requests_come_in_any_pieces() {
        let mut inbox = Inbox::default();
        let text = b"\n{\"id\": 1, \"command\": \"pause\"}\r\n{\"id\":2,\"command\":\"resume\"}\n{\"id\"";
        let mut found = Vec::new();
        for piece in text.chunks(7) {
            inbox.extend(piece, None);
            found.extend(std::iter::from_fn(|| taken(&mut inbox)));
        }
        let request = |id, command| Ok((Request { id, command }, 0));
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
        assert_eq!(taken(&mut inbox), None);
        assert_eq!(inbox.room(), 1);
        inbox.extend(b"x", None);
        assert!(inbox.take_request().unwrap().unwrap_err().is_final);
    }

    fn files(closer: &Closer, count: usize) -> Option<Files> {
        let open = || std::fs::File::open("/dev/null").unwrap().into();
        Some(Ok(closer.files(std::iter::repeat_with(open).take(count).collect())))
    }

    const SNAPSHOT: Command = Command::Snapshot(SnapshotCommand { stop: false, disks: Vec::new() });

    #[test]
    fn files_belong_to_the_line_of_the_last_byte_received_with_them() {
        let closer = Closer::start().unwrap();
        let line = |id| format!("{{\"id\": {id}, \"command\": {{\"snapshot\": {{}}}}}}\n");
        let text = [1, 2, 3, 4].map(line).concat();
        let (len, mut inbox) = (line(1).len(), Inbox::default());
        // Its first half comes with the line before, its last byte with the beginning of the next.
        inbox.extend(&text.as_bytes()[..len + 9], files(&closer, 2));
        inbox.extend(&text.as_bytes()[len + 9..2 * len + 1], files(&closer, 1));
        assert!(inbox.has_unfinished_files());
        inbox.extend(&text.as_bytes()[2 * len + 1..], None);
        assert!(!inbox.has_unfinished_files());
        let found: Vec<_> = std::iter::from_fn(|| taken(&mut inbox)).collect();
        let request = |id, files| Ok((Request { id, command: SNAPSHOT }, files));
        assert_eq!(found, [request(1, 0), request(2, 2), request(3, 1), request(4, 0)]);
    }

    #[test]
    fn files_of_one_line_in_two_messages_are_refused() {
        let closer = Closer::start().unwrap();
        let mut inbox = Inbox::default();
        inbox.extend(b"{\"id\": 1, \"command\": ", files(&closer, 1));
        inbox.extend(b"{\"snapshot\": {}}}\n", files(&closer, 1));
        let refusal = inbox.take_request().unwrap().unwrap_err();
        assert_eq!(refusal, Refusal { id: Some(1), error: too_many(), is_final: false });
        assert!(inbox.attachments.is_empty());
    }

    #[test]
    fn files_of_half_a_line_that_are_refused_refuse_the_line() {
        let closer = Closer::start().unwrap();
        let mut inbox = Inbox::default();
        inbox.extend(b"{\"id\": 1, \"command\": {\"snapshot\": {}}}\n", files(&closer, 2));
        inbox.extend(b"{\"id\": 2, \"command\": ", files(&closer, 2));
        inbox.refuse_unfinished_files(&CommandError::new(ErrorCode::Busy, "no more"));
        assert!(!inbox.has_unfinished_files());
        inbox.extend(b"{\"snapshot\": {}}}\n", None);
        assert_eq!(taken(&mut inbox), Some(Ok((Request { id: 1, command: SNAPSHOT }, 2))));
        let refusal = inbox.take_request().unwrap().unwrap_err();
        assert_eq!((refusal.id, refusal.error.message.as_str()), (Some(2), "no more"));
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
