//! The other end: a program that sends commands.

use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::Value;
use vmm_config::{Command, CommandError, Event, EventLine, Request};

/// A connection to a monitor's control socket.
#[derive(Debug)]
pub struct Client {
    lines: BufReader<UnixStream>,
    next_id: u64,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The machine refused or failed to do it.
    #[error(transparent)]
    Refused(CommandError),
    /// The monitor has ended, or can't be talked to.
    #[error("no answer from the monitor")]
    Io(#[from] io::Error),
    /// What came isn't a response.
    #[error("the answer isn't one of a monitor: {0}")]
    NoResponse(String),
}

/// Any line of a monitor.
#[derive(Debug, Deserialize)]
struct Line {
    id: Option<u64>,
    result: Option<Value>,
    error: Option<CommandError>,
    event: Option<Event>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// There is none, nobody listens, or the user has no permission.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { lines: BufReader::new(UnixStream::connect(path)?), next_id: 1 })
    }

    /// Has the monitor execute a command, and returns its result as JSON: `"done"`, or an object with the name of what it contains. Waits as
    /// long as it takes. Events that come meanwhile are dropped.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn execute(&mut self, command: Command) -> Result<Value, ClientError> {
        self.execute_with(command, &[])
    }

    /// [`execute`](Self::execute)s a command with the files that [it needs](Command::descriptors), in its order. The caller keeps them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn execute_with(&mut self, command: Command, files: &[BorrowedFd<'_>]) -> Result<Value, ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut text = serde_json::to_string(&Request { id, command }).map_err(io::Error::other)?;
        text.push('\n');
        send(self.lines.get_mut(), text.as_bytes(), files)?;
        loop {
            let line = self.line()?;
            match line {
                Line { error: Some(error), id: theirs, .. } if theirs.is_none_or(|theirs| theirs == id) => {
                    return Err(ClientError::Refused(error));
                }
                Line { result: Some(result), id: Some(theirs), .. } if theirs == id => return Ok(result),
                _ => {}
            }
        }
    }

    /// The next event, after [`Command::Events`]; `None` when the monitor has ended.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn event(&mut self) -> Result<Option<EventLine>, ClientError> {
        loop {
            match self.line() {
                Ok(Line { event: Some(event), .. }) => return Ok(Some(EventLine { event })),
                Ok(_) => {}
                Err(ClientError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn line(&mut self) -> Result<Line, ClientError> {
        let mut text = String::new();
        if self.lines.read_line(&mut text)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        serde_json::from_str(&text).map_err(|_| ClientError::NoResponse(text.trim_end().to_owned()))
    }
}

/// Sends a line, and descriptors with its first bytes.
fn send(stream: &mut UnixStream, line: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if files.is_empty() {
        return stream.write_all(line);
    }
    let message = || SendAncillaryMessage::ScmRights(files);
    let mut space = vec![MaybeUninit::uninit(); message().size()];
    let sent = loop {
        let mut control = SendAncillaryBuffer::new(&mut space);
        // There is space for it.
        control.push(message());
        match sendmsg(&*stream, &[IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => break sent,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    stream.write_all(&line[sent..])
}
