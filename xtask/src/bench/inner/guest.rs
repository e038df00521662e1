//! A monitor whose guest prints to standard output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

const ERROR_LINES: usize = 3;

/// A running monitor; killed when this is dropped.
pub(super) struct Guest {
    process: Process,
    output: Receiver<(Instant, Vec<u8>)>,
    log: Receiver<String>,
    seen: String,
    /// Where [`next_line`](Self::next_line) goes on in `seen`.
    next: usize,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest {
    pub(super) fn start(argv: &[String]) -> Result<Self, String> {
        let mut command = Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| format!("can't start {}: {error}", argv[0]))?;
        let mut process = Process(child);
        let output = reader(process.0.stdout.take().expect("its standard output is a pipe"));
        let log = line_reader(process.0.stderr.take().expect("its standard error is a pipe"));
        Ok(Self { process, output, log, seen: String::new(), next: 0 })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Types `text`.
    pub(super) fn send(&mut self, text: &str) -> Result<(), String> {
        let pipe = self.process.0.stdin.as_mut().expect("its standard input is a pipe");
        pipe.write_all(text.as_bytes()).map_err(|error| format!("the monitor reads nothing: {error}"))
    }

    /// The guest's output that has been read so far.
    pub(super) fn said(&self) -> &str {
        &self.seen
    }

    /// Reads until the output contains `text`; returns the time at which it arrived.
    pub(super) fn wait_for(&mut self, text: &str, deadline: Instant) -> Result<Instant, &'static str> {
        self.wait_until(|seen| seen.contains(text), deadline)
    }

    /// Reads until a complete line contains `text`; returns what follows `text` in that line.
    pub(super) fn line(&mut self, text: &str, deadline: Instant) -> Result<String, &'static str> {
        self.wait_until(|seen| rest_of_line(seen, text).is_some(), deadline)?;
        Ok(rest_of_line(&self.seen, text).expect("it was waited for").to_owned())
    }

    /// Like [`line`](Self::line), but looks only behind the line that this returned last.
    pub(super) fn next_line(&mut self, text: &str, deadline: Instant) -> Result<String, &'static str> {
        let from = self.next;
        self.wait_until(|seen| rest_of_line(&seen[from..], text).is_some(), deadline)?;
        let rest = rest_of_line(&self.seen[from..], text).expect("it was waited for");
        self.next = rest.as_ptr().addr() - self.seen.as_ptr().addr() + rest.len();
        Ok(rest.to_owned())
    }

    fn wait_until(
        &mut self,
        has_come: impl Fn(&str) -> bool,
        deadline: Instant,
    ) -> Result<Instant, &'static str> {
        let mut arrived = Instant::now();
        while !has_come(&self.seen) {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok((at, piece)) => {
                    arrived = at;
                    self.seen.push_str(&String::from_utf8_lossy(&piece));
                }
                Err(RecvTimeoutError::Timeout) => return Err("timeout"),
                Err(RecvTimeoutError::Disconnected) => return Err("the monitor has exited"),
            }
        }
        Ok(arrived)
    }

    /// Kills the monitor and returns the lines that it has written to standard error.
    pub(super) fn end(self) -> Vec<String> {
        let Self { process, log, .. } = self;
        drop(process);
        log.iter().collect()
    }

    /// Kills the monitor and returns an error message: `problem`, and the last lines of the monitor's standard error, or, if that is
    /// empty, of the guest's output.
    pub(super) fn end_with(self, problem: &str) -> String {
        let said = self.seen.clone();
        let log = self.end();
        let lines = if log.is_empty() { said.lines().map(str::to_owned).collect() } else { log };
        format!("{problem} {}", last(&lines))
    }
}

/// What follows `text` up to the end of the line; `None` if the line isn't complete.
fn rest_of_line<'a>(seen: &'a str, text: &str) -> Option<&'a str> {
    seen.split_once(text)?.1.split_once("\r\n").map(|(rest, _)| rest)
}

/// The last few lines, joined.
pub(super) fn last(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(ERROR_LINES)..].join(" | ")
}

/// Starts a thread that sends each piece of output with its time of arrival, until the end of the pipe.
fn reader(mut pipe: impl Read + Send + 'static) -> Receiver<(Instant, Vec<u8>)> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(len @ 1..) = pipe.read(&mut piece) {
            if sender.send((Instant::now(), piece[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    receiver
}

fn line_reader(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver): (Sender<String>, _) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_of_a_line_that_is_not_whole_is_none() {
        assert_eq!(rest_of_line("[ 0.3] PCI\r\nDEVICES 1", "DEVICES "), None);
    }

    #[test]
    fn rest_of_a_line_ends_with_it() {
        assert_eq!(rest_of_line("[ 0.3] PCI\r\nDEVICES 16\r\n# ", "DEVICES "), Some("16"));
    }
}
